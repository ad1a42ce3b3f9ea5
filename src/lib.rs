//! Landfall installs bootable containers (bootc images) onto bare metal, without podman and without a daemon.
//!
//! This is the map; the story is in [`install`].
//!
//! ```text
//!  image: reference ─► source ─► pull ─► root ─► container: bootc ─► machine: disk ─► config_drive ─► report
//!                      resolve   layer           relay             verify
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`init`] | Landfall as the first process of a ramdisk: what the kernel was booted with |
//! | [`cli`] | what was typed, and what a file says that was not; each option is defined here, once |
//! | [`install`], [`commands`] | the story; the other commands |
//! | [`request`] | what is to be done |
//! | [`report`] | the record of an installation, and what each phase cost |
//! | [`verify`] | whether an installed disk boots, and what |
//! | [`container`] | programs of the image, in two grades of power; what guards these; their network; the relay, its registry |
//! | [`bootc`] | what the image's bootc needs, can and is asked |
//! | [`config_drive`] | OpenStack's config drive |
//! | [`image`] | from a reference to a mounted root |
//! | [`machine`] | its disks, from first look to verification; file systems, firmware, kernel |
//! | [`console`] | what people see: progress, output, untrusted text on its way to a terminal |
//! | [`sys`] | the only unsafe code |
//! | `fuzz` | what is fuzzed, in tests and under the fuzzer only |
//!
//! A room imports only those below its row, and no imports run in a circle: `tests/layers.rs` reads this
//! table.

mod bootc;
pub mod cli;
pub mod commands;
pub mod config_drive;
mod console;
mod container;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
pub mod init;
pub mod install;
mod machine;
mod report;
pub mod request;
mod sys;
pub mod verify;

// What `main.rs` and the programs in `tests/` name. All else is private, so that the compiler sees what
// nobody uses.
pub use console::{output, progress, text};
pub use container::relay::{Blobs, Place, Relay, policy_json, registries_conf};
pub use container::{NotStarted, helper};
pub use image::oci::digest::{Hasher, sha256};
pub use image::oci::{Digest, Image, Platform, Reference};
pub use image::pull::{Options as PullOptions, unpack_to};
pub use image::root::Wanted;
pub use image::source::name::{ImageName, Opened};
pub use image::source::registry::{Options, Policy, ProxySettings, Registry, Timeouts};
pub use image::source::{Source, resolve::resolve};
pub use machine::disk::chosen::Disk;
pub use machine::disk::find::{Candidate, Hints};
pub use machine::disk::installed::{BootPath, VerifiedDisk, find_boot_loader};
pub use machine::disk::layout::{Arch, Backend, BlockSetup, BootcVersion, Layout, LayoutRequest, Role};
pub use machine::disk::table::{Extent, Geometry, MIB, Table};
pub use machine::filesystem::{Condition, condition, fat::Volume, identify, luks::Header};
pub use machine::firmware::{BootEntry, EspPath, Firmware, Target, Variables};
pub use report::meter::Meter;
pub use report::{DiskState, Report};
pub use sys::block::Region;
pub use sys::heap;
pub use sys::namespace::enter_private_mounts;

#[global_allocator]
static HEAP: sys::heap::Allocator = sys::heap::Allocator;
