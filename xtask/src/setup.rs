//! `cargo xtask setup`: the distribution's packages that the demo, the tests and the fixtures stand on.
//!
//! Root installs them with apt-get; anybody else gets the line to run. Works on Debian 12 and 13 and on
//! Ubuntu 24.04. Nothing comes from anywhere but the machine's own apt sources.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use lab::apt;

/// Every package, with what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("apache2-utils", "htpasswd, for the registry's users"),
    (
        "binutils",
        "objcopy, which puts the fixture's unified kernel image together",
    ),
    ("btrfs-progs", "a file system that may be left unclean"),
    ("busybox-static", "all programs of the smallest test images"),
    ("cpio", "packs the ramdisk"),
    ("cryptsetup-bin", "makes LUKS headers for tests to read"),
    ("docker-registry", "the registry that images are pulled from"),
    ("dosfstools", "checks the ESP"),
    ("e2fsprogs", "checks the root file system"),
    ("efibootmgr", "the second opinion on boot entries"),
    ("fdisk", "sfdisk, the partitioner that bootc uses"),
    ("gcc", "Landfall's dependencies compile a little C"),
    ("gdisk", "sgdisk -v, the second opinion on partition tables"),
    ("iproute2", "network namespaces, each a machine of a fleet"),
    ("kmod", "depmod, for the ramdisk's modules"),
    ("libc6-dev", "the C library for the static binary"),
    ("mmdebstrap", "makes the fixture image from packages"),
    ("mtools", "reads the ESP without mounting it"),
    ("nginx-light", "a cache that fetches a blob once for all clients"),
    ("openssl", "a private CA for the registry"),
    ("ovmf", "UEFI firmware for virtual machines"),
    (
        "podman",
        "reads the same configuration files, the second opinion on which registries they lead to",
    ),
    ("python3", "runs cloud-init, which reads the config drive"),
    ("qemu-utils", "qemu-img"),
    ("skopeo", "pushes and copies images"),
    ("swtpm", "a TPM for virtual machines"),
    ("umoci", "unpacks images, the second opinion on ours"),
    ("util-linux", "blkid, losetup, wipefs"),
    ("xfsprogs", "a file system to recognise by its first bytes"),
    ("xorriso", "makes the config drive"),
    ("xz-utils", "inflates kernel modules"),
    ("zstd", "compresses the fixture's layers"),
];

/// Apart from the others: on Debian 12 with newer QEMU tools it comes from backports.
const QEMU: &str = "qemu-system-x86";

/// Installs what is missing; without root, fails with the line that would.
pub fn ensure() -> Result<()> {
    let wanted: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    let mut missing = apt::missing(&wanted);
    let qemu_missing = !apt::missing(&[QEMU]).is_empty();
    if missing.is_empty() && !qemu_missing {
        return Ok(());
    }
    if !is_root() {
        missing.extend(qemu_missing.then(|| QEMU.to_string()));
        bail!(
            "packages are missing; as root, run\n  {}",
            apt::install_line(&missing)
        );
    }
    eprintln!(
        "installing {} packages",
        missing.len() + usize::from(qemu_missing)
    );
    apt::update_if_empty()?;
    if !missing.is_empty() {
        install_fresh(&missing, None)?;
    }
    if qemu_missing {
        install_qemu()?;
    }
    Ok(())
}

/// Installs, and once more with new package lists: old ones name versions that the mirror no longer has.
fn install_fresh(packages: &[String], suite: Option<&str>) -> Result<()> {
    apt::install(packages, suite).or_else(|_| {
        apt::update()?;
        apt::install(packages, suite)
    })
}

/// From the release; where installed QEMU tools are from its backports and clash with that, from there.
fn install_qemu() -> Result<()> {
    let package = [QEMU.to_string()];
    let Err(error) = install_fresh(&package, None) else {
        return Ok(());
    };
    if apt::distribution()? != "debian" {
        return Err(error);
    }
    let suite = apt::add_backports().context("qemu-system-x86 can't be installed from the release")?;
    apt::install(&package, Some(&suite))
}

/// Whether this process may do what only root may.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// What is needed and why, as lines.
pub fn describe() -> String {
    let rows = PACKAGES.iter().copied().chain([(QEMU, "virtual machines")]);
    rows.map(|(name, purpose)| format!("{name:18} {purpose}"))
        .collect::<Vec<_>>()
        .join("\n")
}
