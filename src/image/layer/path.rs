//! Names in archives as names below a root: cleaned as text, and never leading out.

use std::fmt;

/// The longest path, in bytes: Linux has none that are longer.
pub const MAX_PATH_BYTES: usize = 4096;

/// The deepest directory, counted from the root.
pub const MAX_DEPTH: usize = 256;

/// A path below the root: components joined by `/`, none of them empty, `.` or `..`. Empty for the root
/// itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Vec<u8>);

/// A name that cannot be below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("leads out of the layer")]
    Outside,
    #[error("is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    #[error("is more than {MAX_DEPTH} directories deep")]
    TooDeep,
    #[error("contains a NUL byte")]
    Nul,
}

impl RelativePath {
    /// Cleans `name` as text: `/a//./b/../c/` is `a/c`. That is how podman and umoci read it, too.
    pub fn clean(name: &[u8]) -> Result<Self, BadPath> {
        if name.len() > MAX_PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        if name.contains(&0) {
            return Err(BadPath::Nul);
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop().ok_or(BadPath::Outside)?),
                _ => components.push(component),
            }
        }
        if components.len() > MAX_DEPTH {
            return Err(BadPath::TooDeep);
        }
        Ok(Self(components.join(&b'/')))
    }

    /// The directory and the name in it; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Self::default(), &self.0),
        })
    }

    pub fn join(&self, name: &[u8]) -> Self {
        if self.is_root() {
            Self(name.to_vec())
        } else {
            Self([&self.0, b"/".as_slice(), name].concat())
        }
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The path's bytes; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In the order of paths, all that lie in this directory, which is not the root.
    pub fn range_below(&self) -> std::ops::Range<Self> {
        // `0` comes after `/`.
        Self([&self.0, b"/".as_slice()].concat())..Self([&self.0, b"0".as_slice()].concat())
    }
}

/// Printable on one line, whatever its bytes are.
impl fmt::Display for RelativePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return out.write_str("/");
        }
        out.write_str(&shown(&self.0))
    }
}

/// `bytes`, printable on one line.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        let long = vec![b'a'; MAX_PATH_BYTES];
        let longer = vec![b'a'; MAX_PATH_BYTES + 1];
        let deep = b"a/".repeat(MAX_DEPTH);
        let deeper = b"a/".repeat(MAX_DEPTH + 1);
        for (name, expected) in [
            (b"a".as_slice(), Ok(b"a".as_slice())),
            (b"./a/", Ok(b"a")),
            (b"/a//./b/../c/", Ok(b"a/c")),
            (b"", Ok(b"")),
            (b"./", Ok(b"")),
            (b"a/..", Ok(b"")),
            (b"/", Ok(b"")),
            (b"...", Ok(b"...")),
            (b"a\nb\xff", Ok(b"a\nb\xff")),
            (b"..", Err(BadPath::Outside)),
            (b"/..", Err(BadPath::Outside)),
            (b"a/../../b", Err(BadPath::Outside)),
            (b"a\0b", Err(BadPath::Nul)),
            (&long, Ok(&long)),
            (&longer, Err(BadPath::TooLong)),
            (&deep, Ok(&deep[..deep.len() - 1])),
            (&deeper, Err(BadPath::TooDeep)),
        ] {
            let cleaned = RelativePath::clean(name);
            assert_eq!(
                cleaned.as_ref().map(RelativePath::as_bytes),
                expected.as_ref().copied()
            );
        }
    }

    #[test]
    fn a_path_is_in_a_directory_by_whole_components() {
        let path = |text: &str| RelativePath::clean(text.as_bytes()).unwrap();
        let below = path("a").range_below();
        assert!(below.contains(&path("a/b")));
        assert!(below.contains(&path("a/\u{7f}/b")));
        for other in ["a", "a!", "a-/b", "a0", "ab", "b"] {
            assert!(!below.contains(&path(other)), "{other}");
        }
        assert_eq!(path("a/b/c").split(), Some((path("a/b"), b"c".as_slice())));
        assert_eq!(path("a").split(), Some((path(""), b"a".as_slice())));
        assert_eq!(path("").split(), None);
    }

    #[test]
    fn what_is_shown_stays_on_its_line() {
        let shown = |name: &[u8]| RelativePath::clean(name).unwrap().to_string();
        assert_eq!(shown(b"a\n\x1b[2J\xff\xc3\xa9"), "a\\n\\u{1b}[2J\\xff\u{e9}");
        assert_eq!(shown(b""), "/");
    }
}
