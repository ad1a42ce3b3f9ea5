//! What config drives are like: label, sizes, file systems, and how they come packed.

use std::fmt;

use serde::Serialize;

/// The label that readers look for. All of them do in small letters, and some in capital ones, too.
pub const LABEL: &str = "config-2";
/// The largest config drive in bytes: what its partition holds.
pub const MAX_BYTES: u64 = 64 << 20;
/// The largest input in bytes: base64 of a drive that gzip can't make smaller, with line breaks.
pub const MAX_INPUT_BYTES: u64 = MAX_BYTES / 3 * 4 + MAX_BYTES / 8;

/// How many files a config drive that is built may have. Writing them costs the square of their number.
pub(super) const MAX_FILES: usize = 2000;
/// How many directories may be in one another: eight levels (ECMA-119, 6.8.2.1), the first of which is the
/// root.
pub(super) const MAX_DEPTH: usize = 7;

/// How the config drive was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Not at all.
    Raw,
    /// gzip.
    Gzip,
    /// base64.
    Base64,
    /// base64 of gzip.
    Base64Gzip,
    /// It was built from Ironic's JSON.
    Json,
    /// It was built from a directory.
    Directory,
}

/// The file system of a config drive.
///
/// cloud-init and Ignition read both; afterburn reads ISO 9660 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// ISO 9660.
    Iso9660,
    /// FAT.
    Vfat,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Iso9660 => "ISO 9660",
            Self::Vfat => "FAT",
        })
    }
}
