//! A disk from its claim to the end of its installation, each step a type that only the step before leads to:
//!
//! ```text
//! Claim ──► Unfinished ──► (bootc) ──► Verified ──► (config drive) ──► Finished
//! ```
//!
//! An unfinished installation that is dropped clears the disk's partition table, if anything was written:
//! half a system that boots is worse than none. A finished one stays as it is, whatever fails then. However it
//! ends, the firmware's variables are put back.

use anyhow::Result;

use super::firmware::Before;
use crate::config_drive::{self, ConfigDrive};
use crate::console::progress::Progress;
use crate::image::oci::Digest;
use crate::machine::disk::chosen::{Claim, Disk};
use crate::machine::disk::installed::{BootPath, Unverified, VerifiedDisk};
use crate::machine::disk::layout::{Layout, Role};
use crate::machine::firmware::EspPath;
use crate::report::{DiskState, Report};
use crate::sys::blocking::pause;
use crate::verify;

/// A disk that is being installed.
pub struct Unfinished<'install> {
    claim: Claim,
    /// None: it is as it was before.
    firmware: Option<Before>,
    keep_on_failure: bool,
    is_settled: bool,
    pub(super) report: &'install mut Report,
    pub(super) progress: &'install Progress,
}

/// A disk that holds what was to be installed; the config drive may still be missing.
pub struct Verified<'install> {
    unfinished: Unfinished<'install>,
    disk: VerifiedDisk,
}

/// An installation that came to its end.
pub struct Finished {
    /// What the firmware is to start, unless that is none of our business.
    pub loader: Option<EspPath>,
    /// Whether the firmware doesn't find it by itself.
    pub needs_entry: bool,
    /// The firmware before the installation.
    pub firmware: Option<Before>,
}

impl<'install> Unfinished<'install> {
    /// From here on the disk may be written to.
    pub fn begin(
        claim: Claim,
        firmware: Option<Before>,
        keep_on_failure: bool,
        report: &'install mut Report,
        progress: &'install Progress,
    ) -> Self {
        report.disk_state = DiskState::Changed;
        Self {
            claim,
            firmware,
            keep_on_failure,
            is_settled: false,
            report,
            progress,
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        self.claim.disk()
    }

    /// Compares the disk with the plan; `digest` is that of the image which it must hold.
    pub async fn verify(
        self,
        layout: &Layout,
        boot_path: BootPath,
        digest: &Digest,
    ) -> Result<Verified<'install>> {
        pause().await;
        let disk = match VerifiedDisk::verify(&self.claim, layout, boot_path) {
            Ok(disk) => disk,
            Err(error) => return Err(self.reject(error)),
        };
        pause().await;
        let checks = verify::installed(disk.disk(), boot_path, digest.as_ref());
        pause().await;
        self.report.checks.clone_from(&checks.checks);
        checks.tell(self.progress);
        checks.refuse_failures()?;
        let unfinished = self;
        Ok(Verified { unfinished, disk })
    }

    /// Why the disk is not installed. What is wrong is cleared; what could not be looked at may be good, and
    /// stays.
    fn reject(mut self, error: Unverified) -> anyhow::Error {
        if matches!(error, Unverified::NotChecked(_)) {
            self.settle(DiskState::Unverified);
        }
        let path = self.claim.disk().path.display();
        anyhow::Error::new(error).context(format!("verifying what was installed on {path}"))
    }

    fn settle(&mut self, state: DiskState) {
        self.report.disk_state = state;
        self.is_settled = true;
    }

    /// Puts the firmware's variables back, once.
    fn put_back_firmware(&mut self) -> Option<Before> {
        let before = self.firmware.take()?;
        let put_back = before.put_back(self.claim.disk(), self.progress);
        self.report.firmware = put_back;
        Some(before)
    }

    fn is_untouched(&self) -> bool {
        self.claim.is_untouched().unwrap_or_else(|error| {
            self.progress.warn(format!(
                "cannot tell whether anything was written to the disk, so it counts as changed: {error:#}"
            ));
            false
        })
    }
}

impl Verified<'_> {
    /// Writes the config drive to a partition of its own.
    pub async fn write(&mut self, config_drive: &ConfigDrive) -> Result<()> {
        let region = &mut self.disk.add_config_drive_partition()?.region;
        self.unfinished.report.config_drive = Some(config_drive::write(config_drive, region).await?);
        Ok(())
    }

    /// From here on the disk stays as it is.
    pub fn finish(mut self) -> Result<Finished> {
        let table = self.disk.report();
        self.unfinished.settle(DiskState::Installed);
        self.unfinished.report.disk = Some(table?);
        Ok(Finished {
            firmware: self.unfinished.put_back_firmware(),
            loader: loader_of(&self.disk),
            needs_entry: self.disk.boot_loader().is_some_and(|found| !found.is_fallback),
        })
    }
}

fn loader_of(installed: &VerifiedDisk) -> Option<EspPath> {
    let esp = installed.disk().partition(Role::Esp)?;
    Some(EspPath {
        partition_number: esp.number,
        partition_uuid: esp.uuid,
        start_lba: esp.extent.start_lba,
        sectors: esp.extent.sectors,
        path: installed.boot_loader()?.path.clone(),
    })
}

impl Unfinished<'_> {
    /// Sees to it that what is not finished doesn't boot.
    fn abandon(&mut self) {
        if self.is_untouched() {
            self.report.disk_state = DiskState::Untouched;
            return;
        }
        if self.keep_on_failure {
            return;
        }
        for name in self.claim.release() {
            self.progress.note(format!(
                "closed /dev/mapper/{name}, which the installation left open"
            ));
        }
        match self.claim.clear() {
            Ok(()) => self.report.disk_state = DiskState::Cleared,
            Err(error) => self.progress.warn(format!(
                "the disk holds an incomplete system that may boot: {error:#}"
            )),
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.abandon();
        }
        // Boot entries of what was cleared lead nowhere.
        self.put_back_firmware();
    }
}
