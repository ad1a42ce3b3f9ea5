//! `landfall verify`, and what an installation checks beyond the partition table: whether the disk boots, and what.
//!
//! Nothing is written. What can be read from the disk's own bytes is read so; file systems that only a kernel can read are
//! mounted read-only, without their journals being replayed, where nobody else sees it; a kernel that doesn't know their
//! partitions is told of them. What could not be checked is said.

mod entries;
mod order;
mod recorded;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::console::progress::Progress;
use crate::console::text::printable;
use crate::image::rootfs::Rootfs;
use crate::machine::disk::chosen::Disk;
use crate::machine::disk::installed::{self, BootPath, Parts, Unverified};
use crate::machine::disk::layout::Role;
use crate::machine::disk::table::Partition;
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::luks::Header;
use crate::machine::filesystem::{Condition, FilesystemError, condition};
use crate::machine::private_mount::{Access, PrivateMount};
use crate::sys::blocking::{apart, pause};
use entries::Entries;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// It is as it should be: what was found.
    Passed(String),
    /// It is not: what was found.
    Failed(String),
    /// It could not be checked: why.
    NotChecked(String),
}

use Outcome::{Failed, NotChecked, Passed};

impl From<Unverified> for Outcome {
    fn from(error: Unverified) -> Self {
        match error {
            Unverified::Wrong(error) => Failed(error.to_string()),
            Unverified::NotChecked(error) => NotChecked(format!("{error:#}")),
        }
    }
}

impl From<FilesystemError> for Outcome {
    fn from(error: FilesystemError) -> Self {
        match error {
            FilesystemError::Unsound { .. } => Failed(error.to_string()),
            FilesystemError::Io(error) => NotChecked(error.to_string()),
        }
    }
}

/// All checks of a disk.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// In their order.
    pub checks: Vec<Check>,
}

impl Verdict {
    fn add(&mut self, what: &'static str, outcome: Outcome) {
        self.checks.push(Check { what, outcome });
    }

    /// Tells what was found and what could not be checked.
    pub fn tell(&self, progress: &Progress) {
        for Check { what, outcome } in &self.checks {
            match outcome {
                Passed(found) => progress.note(format!("{what}: {found}")),
                NotChecked(why) => progress.note(format!("{what}: not checked: {why}")),
                // It becomes the error.
                Failed(_) => {}
            }
        }
    }

    /// An error when a check failed.
    pub fn refuse_failures(&self) -> Result<()> {
        let failed = self.checks.iter().filter_map(|check| match &check.outcome {
            Failed(problem) => Some(format!("{}: {problem}", check.what)),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("the disk is not as it should be: {}", failed.join("; "))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, outcome } in &self.checks {
            match outcome {
                Passed(found) => writeln!(out, "ok           {what}: {}", printable(found))?,
                Failed(found) => writeln!(out, "FAILED       {what}: {}", printable(found))?,
                NotChecked(why) => writeln!(out, "not checked  {what}: {}", printable(why))?,
            }
        }
        Ok(())
    }
}

/// Checks a disk.
pub async fn verify(device: PathBuf) -> Result<Verdict> {
    crate::image::root::check_root()?;
    let parts = apart(move || Parts::read(Disk::probe(&device)?)).await?;
    let mut verdict = Verdict::default();
    verdict.add("partition table", table(&parts));
    pause().await;
    verdict.add("boot loader", boot_loader(&parts));
    pause().await;
    look_inside(&parts, BootPath::Loader, None, &mut verdict);
    Ok(verdict)
}

/// Checks an installed disk beyond its table and its boot loader; `digest` is that of the image it must hold, and `boot` is
/// how it is to boot.
pub fn installed(disk: &Disk, boot: BootPath, digest: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let probed = Disk::probe(&disk.node).map_err(anyhow::Error::from);
    match probed.and_then(Parts::read) {
        Ok(parts) => look_inside(&parts, boot, Some(digest), &mut verdict),
        Err(error) => verdict.add("root", NotChecked(format!("{error:#}"))),
    }
    verdict
}

fn table(parts: &Parts) -> Outcome {
    if parts.table.is_in_order() {
        Passed("both copies are sound and in their places, and the protective MBR covers the disk".into())
    } else {
        Failed("a copy of it or the protective MBR is missing, damaged or out of place".into())
    }
}

fn boot_loader(parts: &Parts) -> Outcome {
    match find_boot_loader(parts) {
        Failed(problem) => Failed(format!(
            "{problem}; with --bootloader none that is as it was asked for"
        )),
        outcome => outcome,
    }
}

fn find_boot_loader(parts: &Parts) -> Outcome {
    let Some(esp) = parts.partition(Role::Esp) else {
        return Failed("there is no EFI system partition".into());
    };
    match installed::find_boot_loader(parts.region(&esp), parts.arch()) {
        Ok(found) if found.is_fallback => Passed(found.path),
        Ok(found) => Passed(format!(
            "{}, which needs a boot entry of the firmware: see that there is one (efibootmgr -v)",
            found.path
        )),
        Err(error) => error.into(),
    }
}

/// `expected` is the digest of the image that was installed just now.
fn look_inside(parts: &Parts, boot_path: BootPath, expected: Option<&str>, verdict: &mut Verdict) {
    let mut entries = Entries::default();
    let mut esp = parts
        .partition(Role::Esp)
        .and_then(|esp| match Volume::open(parts.region(&esp)) {
            Ok(volume) => Some(volume),
            Err(error) => {
                entries.cannot_read("the EFI system partition", &error);
                None
            }
        });
    if let Some(esp) = &mut esp {
        entries.add_esp(esp);
    }
    let boot = parts.partition(Role::Boot);
    if let Some(boot) = &boot {
        match Mounted::partition(parts, boot) {
            Ok(mounted) => {
                entries.add_boot(mounted.rootfs());
                if let Some(esp) = &mut esp {
                    entries.add_menu(mounted.rootfs(), ".", esp);
                }
            }
            Err(why) => entries.cannot_read("the boot partition", &why),
        }
    }
    let recorded = match root(parts, verdict) {
        Ok(mounted) => {
            entries.add_root(mounted.rootfs());
            if let Some(esp) = &mut esp {
                entries.add_menu(mounted.rootfs(), "boot", esp);
            }
            recorded::outcome(mounted.rootfs(), entries.first(), expected)
        }
        Err(why) => {
            // With a boot partition, there is nothing in it that a boot loader would read.
            if boot.is_none() {
                entries.cannot_read("the root file system", &why);
            }
            NotChecked(format!("{why:#}"))
        }
    };
    verdict.add("boot entries", entries.outcome(boot_path));
    verdict.add("image on the disk", recorded);
}

/// Checks the root partition, and mounts its file system. An error is the reason why what is in it was not checked.
fn root(parts: &Parts, verdict: &mut Verdict) -> Result<Mounted> {
    const WHAT: &str = "root";
    let Some(partition) = parts.partition(Role::Root) else {
        verdict.add(WHAT, Failed("there is no root partition".into()));
        bail!("there is no root partition");
    };
    let mut region = parts.region(&partition);
    let length = region.length_bytes();
    let signature = match installed::check_root(&mut region, length) {
        Ok(signature) => signature,
        Err(error) => {
            let why = error.to_string();
            verdict.add(WHAT, error.into());
            bail!(why);
        }
    };
    if signature.kind == "crypto_LUKS" {
        verdict.add(
            WHAT,
            match Header::read(&mut region) {
                Ok(header) if header.has_tpm2_token() => Passed("LUKS, which a TPM 2.0 unlocks".into()),
                Ok(_) => Failed(
                    "LUKS without a token for a TPM 2.0, which is to unlock it at boot: enrol one with systemd-cryptenroll, or \
                     install again"
                        .into(),
                ),
                Err(error) => error.into(),
            },
        );
        bail!("the root is encrypted");
    }
    match condition(&mut region, signature.kind) {
        Ok(Condition::Clean) => verdict.add(WHAT, Passed(format!("{}, clean", signature.kind))),
        Ok(Condition::Unclean(why)) => verdict.add(WHAT, Failed(format!("{}: {why}", signature.kind))),
        Ok(Condition::Unknown(why)) => verdict.add(WHAT, NotChecked(format!("{}: {why}", signature.kind))),
        Err(error) => verdict.add(WHAT, error.into()),
    }
    Mounted::partition(parts, &partition)
}

/// A file system, mounted read-only. It is unmounted when this is dropped.
struct Mounted {
    // Closed before it is unmounted.
    rootfs: Rootfs,
    _mount: PrivateMount,
}

impl Mounted {
    fn partition(parts: &Parts, partition: &Partition) -> Result<Self> {
        let known = parts.signatures(partition)?;
        let kind = known.first().context("it has no file system that is known")?.kind;
        let mount = PrivateMount::new(&parts.node(partition)?, kind, Access::Read)?;
        Ok(Self {
            rootfs: Rootfs::open(mount.path())?,
            _mount: mount,
        })
    }

    fn rootfs(&self) -> &Rootfs {
        &self.rootfs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::layout::Arch;
    use std::io::{self, Read, Seek, SeekFrom};

    /// A disk that has stopped to answer.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(nix::libc::EIO))
        }
    }

    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_checked_and_fails_nothing() {
        let mut verdict = Verdict::default();
        let outcomes: [Outcome; 5] = [
            installed::find_boot_loader(Broken, None).unwrap_err().into(),
            installed::find_boot_loader(Broken, Some(Arch::X86_64))
                .unwrap_err()
                .into(),
            installed::check_root(&mut Broken, 1 << 20).unwrap_err().into(),
            condition(&mut Broken, "ext4").unwrap_err().into(),
            Header::read(&mut Broken).unwrap_err().into(),
        ];
        for outcome in outcomes {
            assert!(
                matches!(&outcome, NotChecked(why) if why.contains("Input/output error")),
                "{outcome:?}"
            );
            verdict.add("a check", outcome);
        }
        verdict.refuse_failures().unwrap();
        verdict.add(
            "another",
            installed::check_root(&mut io::Cursor::new(vec![0; 1 << 20]), 1 << 20)
                .unwrap_err()
                .into(),
        );
        assert!(verdict.refuse_failures().is_err());
    }
}
