//! Whiteouts (image-spec `layer.md`): names that say what a layer removes from those below it, and what they
//! become for overlayfs: a character device 0:0, and the attribute `trusted.overlay.opaque` of a directory.

use std::ffi::CStr;

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs's own bookkeeping: means nothing to anyone else.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// overlayfs's mark on a directory that hides everything below it: the value `y`.
pub const OPAQUE_XATTR: &CStr = c"trusted.overlay.opaque";

/// overlayfs's mark on a directory that was copied up. Where it is, with an empty value ("origin unknown"),
/// readdir leaves out whiteouts, even if no lower directory is merged with this one; without it they would
/// show.
pub const ORIGIN_XATTR: &CStr = c"trusted.overlay.origin";

/// All attributes that mean something to overlayfs have this prefix.
pub const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";

/// What overlayfs shows as `trusted.overlay.*` has this prefix on the disk.
pub const ESCAPED_PREFIX: &[u8] = b"trusted.overlay.overlay.";

/// What a name in a layer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    Name,
    /// The layers below lose this name.
    Removes(&'a [u8]),
    /// The layers below lose all that is in this directory.
    Opaque,
    Ignored,
    /// A whiteout of nothing that can have a name.
    Malformed,
}

/// What `name`, the last component of a path, means.
pub fn meaning(name: &[u8]) -> Meaning<'_> {
    if name == OPAQUE {
        return Meaning::Opaque;
    }
    if name.starts_with(AUFS_PREFIX) {
        return Meaning::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Meaning::Name,
        Some(b"" | b"." | b"..") => Meaning::Malformed,
        Some(removed) => Meaning::Removes(removed),
    }
}

/// `name` as it must be stored in a layer's directory, so that overlayfs shows it and does not obey it.
pub fn escaped(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY_PREFIX) {
        Some(rest) => [ESCAPED_PREFIX, rest].concat(),
        None => name.to_vec(),
    }
}

/// What a stored attribute is outside overlayfs: `None` for overlayfs's own marks.
pub fn unescaped(name: &[u8]) -> Option<Vec<u8>> {
    match name.strip_prefix(ESCAPED_PREFIX) {
        Some(rest) => Some([OVERLAY_PREFIX, rest].concat()),
        None => (!name.starts_with(OVERLAY_PREFIX)).then(|| name.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_mean() {
        for (name, expected) in [
            (b"a".as_slice(), Meaning::Name),
            (b".wh", Meaning::Name),
            (b"a.wh.b", Meaning::Name),
            (b".wh.a", Meaning::Removes(b"a")),
            (b".wh.a b\xff", Meaning::Removes(b"a b\xff")),
            (b".wh..a", Meaning::Removes(b".a")),
            (b".wh...a", Meaning::Removes(b"..a")),
            (b".wh..wh..opq", Meaning::Opaque),
            (b".wh..wh.plnk", Meaning::Ignored),
            (b".wh..wh.aufs", Meaning::Ignored),
            (b".wh.", Meaning::Malformed),
            (b".wh..", Meaning::Malformed),
            (b".wh...", Meaning::Malformed),
        ] {
            assert_eq!(meaning(name), expected, "{name:?}");
        }
    }

    #[test]
    fn overlay_attributes_are_escaped_and_come_back() {
        for (name, stored) in [
            ("user.a", "user.a"),
            ("trusted.overlay.opaque", "trusted.overlay.overlay.opaque"),
            (
                "trusted.overlay.overlay.opaque",
                "trusted.overlay.overlay.overlay.opaque",
            ),
            ("trusted.overlay", "trusted.overlay"),
        ] {
            assert_eq!(escaped(name.as_bytes()), stored.as_bytes());
            assert_eq!(unescaped(stored.as_bytes()).as_deref(), Some(name.as_bytes()));
        }
        assert_eq!(unescaped(b"trusted.overlay.opaque"), None);
    }
}
