//! Which disk is meant: what disks there are, what they are called, and what Ironic's hints say of them.

mod choose;
pub(super) mod discover;
pub(super) mod hints;
pub(super) mod identity;
mod links;
#[cfg(test)]
mod machines;
mod path_id;
pub(super) mod sysfs;
#[cfg(test)]
pub(super) mod sysfs_fixture;
mod transport;

pub use choose::{NoDisk, choose};
pub use discover::{BlockDevice, disks};
pub use hints::{Candidate, Hints};
