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
//! | [`cli`], [`init`] | what was typed; what the kernel was booted with, when Landfall is its first process |
//! | [`install`] | the story |
//! | [`commands`] | the other commands |
//! | [`request`] | what is to be done |
//! | [`report`] | the record of an installation, and what each phase cost |
//! | [`verify`] | whether an installed disk boots, and what |
//! | [`container`] | programs of the image, sealed off; their network, and on it the relay: the image as a registry of its own |
//! | [`bootc`] | what the image's bootc needs, can and is asked |
//! | [`config_drive`] | OpenStack's config drive |
//! | [`image`] | from a reference to a mounted root: [`image::oci`], [`image::source`], [`image::layer`], [`image::pull`] … |
//! | [`machine`] | its disks, from first look to verification; file systems, firmware, kernel |
//! | [`console`] | what people see: progress, output, text of strangers on its way to a terminal |
//! | [`sys`] | the only unsafe code |
//! | `fuzz` | what is fuzzed, in tests and under the fuzzer only |
//!
//! A room imports only those below it.

pub mod bootc;
pub mod cli;
pub mod commands;
pub mod config_drive;
pub mod console;
pub mod container;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod image;
pub mod init;
pub mod install;
pub mod machine;
pub mod report;
pub mod request;
pub mod sys;
pub mod verify;

#[global_allocator]
static HEAP: sys::heap::Allocator = sys::heap::Allocator;
