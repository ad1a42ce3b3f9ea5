//! Foreign file systems, read from their bytes: what they are, and files in the simple ones.
//!
//! Nothing here is mounted and nothing is written. The bytes may come from anyone: every read is bounded, and
//! a lie in them is an error, never a panic.

mod bytes;
mod clean;
mod device;
pub mod fat;
pub mod iso9660;
pub mod luks;
mod signature;

use zeroize::Zeroizing;

pub use bytes::read_up_to;
pub use clean::{Condition, condition};
pub use signature::{Signature, identify};

/// A file of a file system. Its content is wiped when it is no longer needed; there is no `Debug`.
pub struct NamedFile {
    /// Its path from the root, with `/` between the names and none before the first.
    pub path: String,
    pub content: Zeroizing<Vec<u8>>,
}

/// What is wrong with a file system's bytes.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("not a sound {kind} file system: {problem}")]
    Unsound { kind: &'static str, problem: String },
}
