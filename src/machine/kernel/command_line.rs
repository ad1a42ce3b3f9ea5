//! What the kernel was booted with.

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

#[cfg(test)]
mod tests {
    use super::*;

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
