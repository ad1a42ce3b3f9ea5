//! Config drives: the file system labelled `config-2` that tells a machine who it is (OpenStack's metadata,
//! as Ironic sends it).
//!
//! The content may hold secrets: it is kept in memory that is wiped, never shown and never written to a file.
//! What the crates that take part in it leave behind is wiped by the allocator.

mod build;
mod decode;
mod error;
mod form;
mod image;
mod place;
mod secret;
mod tree;
mod write;

pub use decode::ConfigDrive;
pub use form::{Encoding, Kind, MAX_BYTES};
pub use place::{fit, read, read_here};
pub use write::{Written, write};
