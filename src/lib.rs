//! Landfall installs bootable containers (bootc images) onto bare metal, without podman and without a daemon.
//!
//! This is the map; the story is in [`install`].
//!
//! ```text
//!  reference ─► source ─► plan ─► pull ─► overlay ─► container ─► disk::verify ─► config_drive ─► report
//!               resolve           layer              bootc
//!                                 store              relay: the image, by its own name, on a loopback-only network
//! ```
//!
//! | what | where |
//! |---|---|
//! | what was typed; what the kernel was booted with | [`cli`]; [`init`] |
//! | the commands | [`install`], [`disks`], [`config_drives`], [`verify`], [`run`], [`unpack`], [`save`] (`landfall pull`), [`inspect`]; what they have in common: [`session`] |
//! | words and rules of the OCI specifications, no I/O | [`oci`] |
//! | where images come from; a file system found by its label; mounted for nobody else | [`source`]; [`stick`]; [`private_mount`] |
//! | a blob becomes a verified directory; all of them at once; where they are kept | [`layer`]; [`pull`]; [`store`] |
//! | directories become a root; looking into it | [`overlay`]; [`rootfs`] |
//! | programs of the image, sealed off; the only file that names libcontainer is `container/helper.rs` | [`container`] |
//! | what bootc needs, can and is asked | [`bootc`] |
//! | the image as a registry of its own, for the image's skopeo | [`relay`] |
//! | the target disk, from first look to verification; file systems by their first bytes | [`disk`]; [`filesystem`] |
//! | the running kernel: its modules, what it was booted with; the firmware's boot order | [`kernel`]; [`firmware`] |
//! | OpenStack's config drive | [`config_drive`] |
//! | decisions, events, costs, the record | [`plan`], [`progress`], [`meter`], [`report`] |
//! | text of strangers on its way to a terminal | [`text`] |
//! | work that blocks, and signals | `blocking` |
//! | standard output and standard error | [`output`] |
//! | the only unsafe code | [`sys`] |
//! | what is fuzzed, in tests and under the fuzzer only | `fuzz` |
//!
//! [`oci`] and [`sys`] import nothing of ours, siblings don't import each other, and only the commands know them all.

mod blocking;
pub mod bootc;
pub mod cli;
pub mod config_drive;
pub mod config_drives;
pub mod container;
pub mod disk;
pub mod disks;
pub mod filesystem;
pub mod firmware;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod init;
pub mod inspect;
pub mod install;
pub mod kernel;
pub mod layer;
pub mod meter;
pub mod oci;
pub mod output;
pub mod overlay;
pub mod plan;
pub mod private_mount;
pub mod progress;
pub mod pull;
#[cfg(test)]
mod random;
pub mod relay;
pub mod report;
pub mod rootfs;
pub mod run;
pub mod save;
pub mod session;
pub mod source;
pub mod stick;
pub mod store;
pub mod sys;
pub mod text;
pub mod unpack;
pub mod verify;

#[global_allocator]
static HEAP: sys::heap::Allocator = sys::heap::Allocator;
