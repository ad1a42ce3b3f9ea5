//! The target disk: which one it is, what is on it, how it will be laid out, and whether that came true.
//!
//! The way of a disk, each step a type that only the step before can make:
//!
//! ```text
//! Disk::probe ──► Disk::give_up ──► Disk::claim ──► (bootc) ──► VerifiedDisk::verify
//!      └────────► Layout::plan ───────────────────────────────────┘
//! ```
//!
//! Nothing is written before a [`Claim`], and a partition can be added to an [`VerifiedDisk`] alone. No udev,
//! no other program: sysfs, ioctls and the disk's own bytes (a kernel need not know GPT).

pub mod chosen;
pub mod find;
pub mod installed;
pub mod layout;
pub mod numbers;
pub mod table;
