//! One run of `bench pull`: of what, and what it cost.

use lab::image::Compression;

use super::cgroup::Cost;

/// The compressions that are compared, with their names.
pub const COMPRESSIONS: [(&str, Compression); 2] = [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];

/// One run and what was run.
pub struct Run {
    /// The compression's name.
    pub compression: &'static str,
    /// The contender's name.
    pub who: &'static str,
    /// What it cost.
    pub cost: Cost,
}
