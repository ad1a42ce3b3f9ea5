//! What the modules of a kernel are called, what they serve and what they need: the files that depmod(8)
//! writes.
//!
//! Pure: texts in, an index out.

use std::collections::{BTreeMap, HashSet};

#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    /// Its file, below the directory of the kernel's modules.
    pub path: String,
    /// The names of the modules that must be loaded before it.
    pub needs: Vec<String>,
    /// The names or aliases of modules that should be loaded before it, and work without.
    pub wants_before: Vec<String>,
    /// The same, after it.
    pub wants_after: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    modules: BTreeMap<String, Module>,
    /// Patterns of fnmatch(3), and the module that serves what matches.
    aliases: Vec<(String, String)>,
    builtin: HashSet<String>,
}

/// The texts of depmod's files: `modules.dep` and so on.
pub(super) struct Texts {
    pub dep: String,
    pub alias: String,
    pub softdep: String,
    pub builtin: String,
}

/// The name of the module in this file: without directory and endings, and with `_` where the file may have
/// `-`.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".gz" | ".xz" | ".zst").then(|| canonical(name))
}

/// Names are the same with `-` and `_`; the kernel writes `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

impl Index {
    pub(super) fn parse(texts: &Texts) -> Self {
        let builtin = texts.builtin.lines().filter_map(name_of).collect();
        let mut index = Self {
            builtin,
            ..Self::default()
        };
        for (path, needs) in texts.dep.lines().filter_map(|line| line.split_once(':')) {
            let Some(name) = name_of(path) else { continue };
            let module = Module {
                path: path.to_owned(),
                needs: needs.split_whitespace().filter_map(name_of).collect(),
                ..Module::default()
            };
            index.modules.insert(name, module);
        }
        for line in texts.alias.lines() {
            if let ["alias", pattern, name] = line.split_whitespace().collect::<Vec<_>>()[..] {
                index.aliases.push((pattern.to_owned(), canonical(name)));
            }
        }
        for line in texts.softdep.lines() {
            let rest = line.strip_prefix("softdep ").map(str::trim_start);
            if let Some((name, wishes)) = rest.and_then(|rest| rest.split_once(' ')) {
                index.wish(&canonical(name), wishes);
            }
        }
        index
    }

    fn wish(&mut self, name: &str, wishes: &str) {
        let Some(module) = self.modules.get_mut(name) else {
            return;
        };
        let mut list = &mut module.wants_before;
        for word in wishes.split_whitespace() {
            match word {
                "pre:" => list = &mut module.wants_before,
                "post:" => list = &mut module.wants_after,
                name => list.push(name.to_owned()),
            }
        }
    }

    pub(super) fn module(&self, name: &str) -> Option<(&str, &Module)> {
        self.modules
            .get_key_value(&canonical(name))
            .map(|(name, module)| (name.as_str(), module))
    }

    pub(super) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&canonical(name))
    }

    /// The names of the modules that `word` stands for: one of that name, else those with an alias that
    /// matches.
    pub(super) fn resolve(&self, word: &str) -> Vec<String> {
        if let Some((name, _)) = self.module(word) {
            return vec![name.to_owned()];
        }
        let mut names = Vec::new();
        for (pattern, name) in &self.aliases {
            if !names.contains(name) && matches(pattern, word) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// Whether the pattern matches the whole text, as fnmatch(3) has it without flags: `*`, `?`, `[a-z]`, `[!x]`,
/// `\c`. As in all of modprobe(8), `-` and `_` are the same outside brackets.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last `*` has to take one byte more: linear in space, and no worse than the
    // product in time.
    let mut retry = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            (retry, p) = (Some((p + 1, t)), p + 1);
            continue;
        }
        match (one(&pattern[p..]), text.get(t)) {
            (None, None) => return true,
            (Some((one, length)), Some(byte)) if one.matches(*byte) => (p, t) = (p + length, t + 1),
            _ => match retry {
                Some((after, from)) if from < text.len() => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// What stands for one byte.
enum One<'a> {
    Any,
    Literal(u8),
    In(&'a [u8]),
    NotIn(&'a [u8]),
}

/// What stands for one byte at the start of a pattern, and its length.
fn one(pattern: &[u8]) -> Option<(One<'_>, usize)> {
    Some(match *pattern {
        [] => return None,
        [b'?', ..] => (One::Any, 1),
        [b'\\', literal, ..] => (One::Literal(literal), 2),
        [b'[', ref rest @ ..] => {
            let negated = matches!(rest.first(), Some(b'!' | b'^'));
            let start = usize::from(negated);
            // A bracket that comes first is a member.
            match rest.iter().skip(start + 1).position(|byte| *byte == b']') {
                None => (One::Literal(b'['), 1),
                Some(members) => {
                    let end = start + 1 + members;
                    let one = if negated { One::NotIn } else { One::In };
                    (one(&rest[start..end]), end + 2)
                }
            }
        }
        [literal, ..] => (One::Literal(literal), 1),
    })
}

impl One<'_> {
    fn matches(&self, byte: u8) -> bool {
        match *self {
            Self::Any => true,
            Self::Literal(literal) => dash(literal) == dash(byte),
            Self::In(set) => in_set(set, byte),
            Self::NotIn(set) => !in_set(set, byte),
        }
    }
}

fn dash(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        set = match *set {
            [] => return false,
            [low, b'-', high, ref rest @ ..] if (low..=high).contains(&byte) || rest.is_empty() => {
                return (low..=high).contains(&byte);
            }
            [_, b'-', _, ref rest @ ..] => rest,
            [only, ..] if only == byte => return true,
            [_, ref rest @ ..] => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_has_it() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[abc]x", "bx", true),
            ("[abc]x", "dx", false),
            ("[0-9a-f]", "e", true),
            ("[0-9a-f]", "g", false),
            ("[!0-9]", "7", false),
            ("[!0-9]", "x", true),
            ("[]]", "]", true),
            ("[-x]", "-", true),
            ("[x-]", "-", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("fs-vfat", "fs_vfat", true),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "pci:v00008086d000010D3sv*sd*bc*sc*i*",
                "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
                true,
            ),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0099*",
                "cpu:type:x86,ven0000fam0006mod001A:feature:,0000,0099,00E1",
                true,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip[0-9]0in*",
                "usb:v0627p0001d0000dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_exponential_time() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn names_of_files() {
        for (path, name) in [
            ("kernel/fs/overlayfs/overlay.ko", Some("overlay")),
            ("kernel/drivers/net/virtio-net.ko.xz", Some("virtio_net")),
            ("a.ko.zst", Some("a")),
            ("a.ko.gz", Some("a")),
            ("a.ko.bz2", None),
            ("a.o", None),
            ("modules.dep", None),
        ] {
            assert_eq!(name_of(path).as_deref(), name, "{path}");
        }
    }

    fn texts() -> Texts {
        Texts {
            dep: "kernel/net/failover.ko:\n\
                  kernel/drivers/net/net_failover.ko: kernel/net/failover.ko\n\
                  kernel/drivers/net/virtio-net.ko.xz: kernel/drivers/net/net_failover.ko kernel/net/failover.ko\n"
                .to_owned(),
            alias: "# Aliases extracted from modules themselves.\n\
                    alias virtio:d00000001v* virtio_net\n\
                    alias net-pf-17 failover\nalias net-pf-1* net_failover\nalias net-pf-17 failover\n"
                .to_owned(),
            softdep: "# Soft dependencies\nsoftdep virtio_net pre: crc32c fs-x post: failover\n".to_owned(),
            builtin: "kernel/fs/ext4/ext4.ko\n".to_owned(),
        }
    }

    #[test]
    fn depmods_files_are_read() {
        let index = Index::parse(&texts());
        let (name, module) = index.module("virtio-net").unwrap();
        assert_eq!(name, "virtio_net");
        assert_eq!(module.path, "kernel/drivers/net/virtio-net.ko.xz");
        assert_eq!(module.needs, ["net_failover", "failover"]);
        assert_eq!(
            (&module.wants_before[..], &module.wants_after[..]),
            (&["crc32c".into(), "fs-x".into()][..], &["failover".into()][..])
        );
        assert_eq!(index.resolve("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index.resolve("net-pf-17"), ["failover", "net_failover"]);
        assert_eq!(index.resolve("net_failover"), ["net_failover"]);
        assert_eq!(index.resolve("nothing"), [""; 0]);
        assert!(index.is_builtin("ext4") && !index.is_builtin("overlay"));
    }
}
