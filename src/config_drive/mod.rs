//! Config drives: the filesystem labelled `config-2` that tells a machine who it is (OpenStack's metadata, as Ironic
//! sends it).
//!
//! The content may hold secrets: it is kept in memory that is wiped, never shown and never written to a file.

mod build;
mod decode;
mod iso;
mod secret;
mod tree;
mod vfat;
mod write;

pub use build::BuildError;
pub use decode::{ConfigDrive, ConfigDriveError, Encoding, Kind, LABEL, MAX_BYTES, MAX_INPUT_BYTES};
pub use write::{WriteError, Written, write};
