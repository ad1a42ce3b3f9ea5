//! What stands in an archive under one name, without its data.

use std::collections::BTreeMap;

/// A point in time: nanoseconds count up from the second, before 1970 too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its size with holes, in bytes, and where its data lies if it has any holes.
    File {
        size: u64,
        extents: Option<Vec<Extent>>,
    },
    Directory,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    /// Major and minor number.
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// One entry: everything but its data.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name as it stands in the archive.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A run of data in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes from the file's beginning.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}
