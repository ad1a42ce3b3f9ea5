//! The target disk: which one it is, what is on it, how it will be laid out, and whether that came true.
//!
//! The way of a disk, each step a type that only the step before can make:
//!
//! ```text
//! Disk::probe ──► Disk::contents ──► Contents::expendable ──► Disk::claim ──► (bootc) ──► InstalledDisk::verify
//!      └────────► Layout::plan ────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is written before a [`Claim`], and a partition can be added to an [`InstalledDisk`] alone. No udev, no other
//! program: sysfs, ioctls and the disk's own bytes (a kernel need not know GPT).

mod amend;
mod claim;
mod contents;
mod device;
#[cfg(test)]
mod differential;
mod discover;
mod fingerprint;
mod geometry;
mod gpt;
mod hints;
mod identity;
mod in_use;
mod installed;
mod layout;
mod links;
#[cfg(test)]
mod machines;
mod mbr;
mod parts;
mod path_id;
mod room;
mod sfdisk;
mod stale;
mod sysfs;
#[cfg(test)]
mod sysfs_fixture;
mod transport;
mod trial;
mod verify;

pub use amend::{Origin, Room, RoomReport};
pub use claim::{Claim, ClaimError};
pub use contents::{Contents, Expendable, HoldsData, OldPartition, TableKind};
pub use device::{Disk, ProbeError};
pub use discover::{Found, NoDisk, Rejected, Wish, choose, disks};
pub use geometry::{Extent, Geometry, MIB};
pub use gpt::{GptError, Partition, Table};
pub use hints::{Candidate, HintError, Hints};
pub use identity::Identity;
pub use in_use::{InUse, Use};
pub use installed::{InstalledDisk, KernelView, PartitionReport, Slot, TableReport};
pub use layout::{
    Arch, Backend, BlockSetup, BootcVersion, CONFIG_DRIVE_MIB, Layout, LayoutError, LayoutRequest,
};
pub use layout::{Planned, Role};
pub use parts::{Parts, check_root, find_boot_loader};
pub use room::NoRoom;
pub use stale::{StaleConfigDrive, stale_config_drives};
pub use sysfs::KernelPartition;
pub use trial::kernel_reads_gpt;
pub use verify::{BootLoader, BootPath, Unverified, VerifyError};
