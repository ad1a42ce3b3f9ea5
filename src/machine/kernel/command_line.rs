//! What the kernel was booted with, and how much of it an image may see.

use std::fs;

use anyhow::{Context, Result};

pub fn read() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    Ok(words(&text))
}

/// Splits the kernel command line as the kernel does: at spaces outside double quotes, which are left out.
pub fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for char in cmdline.chars() {
        match char {
            '"' => quoted = !quoted,
            char if char.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            char => word.push(char),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Parts of names of words that no image needs and that may hold what nobody else is to know.
const CONFIDENTIAL: [&str; 7] = [
    "credential",
    "passphrase",
    "passw",
    "proxy",
    "secret",
    "token",
    "url",
];

/// A copy of the kernel command line without what is meant for Landfall, and without words that may hold a
/// credential. A word goes or stays as a whole.
pub fn cleaned(cmdline: &str) -> String {
    let kept: Vec<_> = words(cmdline)
        .into_iter()
        .filter(|word| !is_confidential(word))
        .map(|word| quoted(&word))
        .collect();
    kept.join(" ") + "\n"
}

fn is_confidential(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word).to_ascii_lowercase();
    name.starts_with("landfall.") || CONFIDENTIAL.iter().any(|part| name.contains(part)) || may_sign_in(word)
}

/// Whether this may hold user information (`https://user:password@host`, `iscsi:user:password@host`) or a
/// URL that a query signs.
fn may_sign_in(word: &str) -> bool {
    let behind = |mark| word.split_once(mark).map_or("", |(_, behind)| behind);
    behind(":").contains('@') || behind("://").contains('?')
}

/// The word as [`words`] reads it again.
fn quoted(word: &str) -> String {
    match word.split_once('=') {
        _ if !word.contains(|char: char| char.is_ascii_whitespace()) => word.to_owned(),
        Some((name, value)) if !name.contains(|char: char| char.is_ascii_whitespace()) => {
            format!("{name}=\"{value}\"")
        }
        _ => format!("\"{word}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_sees_the_kernels_words_and_none_of_ours() {
        for (text, seen) in [
            ("", ""),
            (
                "root=UUID=ab rw console=ttyS0,115200n8 selinux=0 enforcing=0 ip=dhcp rd.luks.uuid=cd iommu.passthrough=1",
                "root=UUID=ab rw console=ttyS0,115200n8 selinux=0 enforcing=0 ip=dhcp rd.luks.uuid=cd iommu.passthrough=1",
            ),
            (
                "netconsole=1@10.0.0.1/eth1,2@10.0.0.2/ crashkernel=64M@16M",
                "netconsole=1@10.0.0.1/eth1,2@10.0.0.2/ crashkernel=64M@16M",
            ),
            (
                r#"quiet landfall.image=a landfall.args="--karg 'x y'" debug"#,
                "quiet debug",
            ),
            (r#""landfall.args=a b" quiet "#, "quiet"),
            (r#"landfall.pull-secret="a b"#, ""),
            (
                "http_proxy=http://10.0.0.1:3128 HTTPS_PROXY=h no_proxy=a,b proxy=h rd.proxy=h quiet",
                "quiet",
            ),
            (
                "root=live:https://u:p@h/i inst.ks=https://u@h/ a=b quiet",
                "a=b quiet",
            ),
            (r#"x="http://h/ http://u:p@h/ y" quiet"#, "quiet"),
            (r#"x=http://u:"p q"@h/ quiet"#, "quiet"),
            ("x=http://h/?X-Amz-Signature=1 x=http://h/y", "x=http://h/y"),
            (
                "netroot=iscsi:u:p@h::3260:1:iqn.x netroot=iscsi:h::3260:1:iqn.x",
                "netroot=iscsi:h::3260:1:iqn.x",
            ),
            (
                "rd.iscsi.password=p systemd.set_credential=a:b ipa-api-url=h quiet",
                "quiet",
            ),
            (
                r#"dyndbg="file a.c +p" "my mod.x=1 2" "a b""#,
                r#"dyndbg="file a.c +p" "my mod.x=1 2" "a b""#,
            ),
            (r#"a="b c"#, r#"a="b c""#),
        ] {
            let cleaned = cleaned(text);
            assert_eq!(cleaned, format!("{seen}\n"), "{text:?}");
            assert_eq!(
                cleaned.trim_end(),
                super::cleaned(&cleaned).trim_end(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn words_are_split_as_the_kernel_does() {
        for (text, expected) in [
            ("", &[][..]),
            ("  a  b=c\n", &["a", "b=c"]),
            (r#"a="b c" d"#, &["a=b c", "d"]),
            (r#""a=b c" d"#, &["a=b c", "d"]),
            (r#"a="b c"#, &["a=b c"]),
            (r#"landfall.args="--karg 'x y'""#, &["landfall.args=--karg 'x y'"]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }
}
