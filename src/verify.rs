//! `landfall verify`, and what an installation checks beyond the partition table: whether the disk boots, and
//! what.
//!
//! Nothing is written. What can be read from the disk's own bytes is read from there. File systems that only
//! a kernel can read are mounted privately and read-only, without replaying their journals; a kernel that
//! doesn't know their partitions is told of them. What could not be checked is reported.

mod check;
mod entries;
mod order;
mod recorded;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::image::rootfs::Rootfs;
use crate::machine::disk::chosen::Disk;
use crate::machine::disk::installed::{BootPath, InstalledDisk};
use crate::machine::disk::layout::Role;
use crate::machine::disk::table::Partition;
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::luks::Header;
use crate::machine::filesystem::{Condition, condition};
use crate::machine::private_mount::{Access, PrivateMount};
use crate::sys::blocking::{apart, pause};
use check::Outcome::{self, Failed, NotChecked, Passed};
pub use check::{Check, Verdict};
use entries::Entries;

/// Checks a disk.
pub async fn verify(device: PathBuf) -> Result<Verdict> {
    crate::image::root::check_root()?;
    let disk = apart(move || InstalledDisk::probe(Disk::probe(&device)?)).await?;
    let mut verdict = Verdict::default();
    verdict.add("partition table", table(&disk));
    pause().await;
    verdict.add("boot loader", boot_loader(&disk));
    pause().await;
    look_inside(&disk, BootPath::Loader, None, &mut verdict);
    Ok(verdict)
}

/// Checks an installed disk beyond its table and its boot loader; `digest` is that of the image it must hold,
/// and `boot` is how it is to boot.
pub fn installed(disk: &InstalledDisk, boot: BootPath, digest: &str) -> Verdict {
    let mut verdict = Verdict::default();
    look_inside(disk, boot, Some(digest), &mut verdict);
    verdict
}

fn table(disk: &InstalledDisk) -> Outcome {
    if disk.table_is_in_order() {
        Passed("both copies are sound and in their places, and the protective MBR covers the disk".into())
    } else {
        Failed("a copy of it or the protective MBR is missing, damaged or out of place".into())
    }
}

fn boot_loader(disk: &InstalledDisk) -> Outcome {
    match &disk.boot_loader {
        Ok(found) if found.is_fallback => Passed(found.path.clone()),
        Ok(found) => Passed(format!(
            "{}, which needs a firmware boot entry: check that there is one (efibootmgr -v)",
            found.path
        )),
        Err(error) => match Outcome::from(error) {
            Failed(problem) => Failed(format!("{problem}; with --bootloader none that is expected")),
            outcome => outcome,
        },
    }
}

/// `expected` is the digest of the image that was installed just now.
fn look_inside(disk: &InstalledDisk, boot_path: BootPath, expected: Option<&str>, verdict: &mut Verdict) {
    let mut entries = Entries::default();
    let mut esp = disk.partition(Role::Esp).and_then(|esp| {
        let volume = Volume::open(disk.region(&esp));
        let volume = volume.inspect_err(|error| entries.cannot_read("the EFI system partition", error));
        volume.ok()
    });
    if let Some(esp) = &mut esp {
        entries.add_esp(esp);
    }
    let boot = disk.partition(Role::Boot);
    if let Some(boot) = &boot {
        match Mounted::partition(disk, boot) {
            Ok(mounted) => {
                entries.add_boot(&mounted.rootfs);
                if let Some(esp) = &mut esp {
                    entries.add_menu(&mounted.rootfs, ".", esp);
                }
            }
            Err(why) => entries.cannot_read("the boot partition", &why),
        }
    }
    let recorded = match root(disk, verdict) {
        Ok(mounted) => {
            entries.add_root(&mounted.rootfs);
            if let Some(esp) = &mut esp {
                entries.add_menu(&mounted.rootfs, "boot", esp);
            }
            recorded::outcome(&mounted.rootfs, entries.first(), expected)
        }
        Err(why) => {
            // With a boot partition, it is empty that a boot loader would read.
            if boot.is_none() {
                entries.cannot_read("the root file system", &why);
            }
            NotChecked(format!("{why:#}"))
        }
    };
    verdict.add("boot entries", entries.outcome(boot_path));
    verdict.add("image on the disk", recorded);
}

/// Checks the root partition, and mounts its file system. An error is the reason why what is in it was not
/// checked.
fn root(disk: &InstalledDisk, verdict: &mut Verdict) -> Result<Mounted> {
    const WHAT: &str = "root";
    let (partition, signature) = match &disk.root {
        Ok(found) => found,
        Err(error) => {
            verdict.add(WHAT, error.into());
            bail!("{error}");
        }
    };
    let mut region = disk.region(partition);
    if signature.kind == "crypto_LUKS" {
        verdict.add(
            WHAT,
            match Header::read(&mut region) {
                Ok(header) if header.has_tpm2_token() => Passed("LUKS, unlocked by a TPM 2.0".into()),
                Ok(_) => Failed(
                    "LUKS without a TPM 2.0 token to unlock it at boot: enrol one with systemd-cryptenroll, \
                     or install again"
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
    Mounted::partition(disk, partition)
}

/// A file system, mounted read-only. It is unmounted when this is dropped.
struct Mounted {
    // Closed before it is unmounted.
    rootfs: Rootfs,
    _mount: PrivateMount,
}

impl Mounted {
    fn partition(disk: &InstalledDisk, partition: &Partition) -> Result<Self> {
        let known = disk.signatures(partition)?;
        let kind = known.first().context("it has no known file system")?.kind;
        let mount = PrivateMount::new(&disk.node(partition)?, kind, Access::Read)?;
        Ok(Self {
            rootfs: Rootfs::open(mount.path())?,
            _mount: mount,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::installed::{check_root, find_boot_loader};
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
            (&find_boot_loader(Broken, None).unwrap_err()).into(),
            (&find_boot_loader(Broken, Some(Arch::X86_64)).unwrap_err()).into(),
            (&check_root(&mut Broken, 1 << 20, None).unwrap_err()).into(),
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
            (&check_root(&mut io::Cursor::new(vec![0; 1 << 20]), 1 << 20, None).unwrap_err()).into(),
        );
        assert!(verdict.refuse_failures().is_err());
    }
}
