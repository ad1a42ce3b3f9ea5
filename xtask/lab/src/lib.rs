//! The laboratory, which the tests and the chores share: registries, images, ramdisks, virtual machines.
//!
//! | module | gives |
//! |---|---|
//! | [`product`] | the release build of Landfall |
//! | [`command`] | other programs, with their last words where they fail |
//! | [`apt`], [`kernel`] | packages from the machine's own sources, and the distribution's kernel |
//! | [`registry`] | a real registry on loopback, ended when its guard is dropped |
//! | [`faulty`] | a proxy in front of it that spoils what it passes on |
//! | [`network`] | network namespaces, each a machine of a fleet |
//! | [`image`] | OCI images made for a test, as a layout on disk that may be edited and corrupted |
//! | [`fixture`] | the bootable image, made from Debian packages, with its stand-in `bootc` |
//! | [`hostile`] | what a hostile image attacks with |
//! | [`ramdisk`] | an initramfs of Landfall and kernel modules, nothing else |
//! | [`vm`] | a QEMU machine with a disk, UEFI firmware and a serial console |
//! | [`able_kernel`] | Landfall under a kernel that says that it can install |
//! | [`gpt`] | where a disk image's partitions are |
//! | [`config_drive`] | an ISO 9660 config drive as OpenStack has it |
//! | [`scenario`] | Landfall installs in a machine, the disk is checked and booted |
//!
//! What starts a process owns a guard ([`command::Guarded`]), which ends that one only.

pub mod able_kernel;
pub mod apt;
pub mod command;
pub mod config_drive;
pub mod faulty;
pub mod fixture;
pub mod gpt;
pub mod hostile;
pub mod image;
pub mod kernel;
pub mod network;
pub mod product;
pub mod ramdisk;
pub mod registry;
pub mod scenario;
pub mod vm;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The top of the work tree.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = xtask.and_then(Path::parent);
    root.expect("xtask/lab lies in the work tree").to_path_buf()
}

/// Where everything that is built goes: cargo's own target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A temporary directory on the file system of [`target`], so that files can be hard-linked into it.
pub fn tempdir() -> Result<tempfile::TempDir> {
    let parent = target().join("tmp");
    std::fs::create_dir_all(&parent)?;
    Ok(tempfile::tempdir_in(parent)?)
}

/// For a test that this machine can't run: says so where a person sees it, and fails where nobody looks
/// (`CI=true`).
pub fn cannot_run(test: &str, reason: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("{test} can't run here: {reason}");
    }
    eprintln!("\n*** NOT RUN: {test}: {reason}\n");
    Ok(())
}
