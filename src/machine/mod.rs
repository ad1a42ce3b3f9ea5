//! The machine: its disks, its firmware, its kernel.

pub mod disk;
pub mod filesystem;
pub mod firmware;
pub mod first_process;
pub mod kernel;
pub mod labelled;
pub mod memory;
pub mod private_mount;
pub mod ramdisk;
