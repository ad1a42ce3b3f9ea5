//! Config drives: the filesystem labelled `config-2` that tells a machine who it is (OpenStack's metadata, as Ironic
//! sends it).
//!
//! The content may hold secrets: it is kept in memory that is wiped, never shown and never written to a file. What the
//! crates that take part in it leave behind is wiped too, because everything here is done under a [`Wiping`].
//!
//! [`Wiping`]: crate::sys::heap::Wiping
//!
//! Built by our own code, because no crate does it as it is needed: `hadris-iso`, the only one that writes both Rock Ridge
//! and Joliet, dates its images by the clock and brings twenty crates along for what is a few hundred lines; `fatfs` gives
//! `.` and `..` long names, which fsck.fat takes for damage.

mod build;
mod decode;
mod directories;
mod error;
mod form;
mod iso;
mod secret;
mod tree;
mod vfat;
mod write;

pub use decode::ConfigDrive;
pub use error::{BuildError, ConfigDriveError};
pub use form::{Encoding, Kind, LABEL, MAX_BYTES, MAX_INPUT_BYTES};
pub use write::{WriteError, Written, write};
