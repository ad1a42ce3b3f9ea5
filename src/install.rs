//! The story: how an image gets onto a disk. Read [`install`] from top to bottom.
//!
//! Nothing is written to the disk before [`Unfinished::begin`]; whatever can be known by then has been checked by then.

mod boot_order;
mod consent;
mod installer;
mod machine;
mod planning;
mod questions;
mod uefi;

use std::ops::Deref;

use anyhow::Result;

use crate::bootc::arguments::SSH_KEYS_PATH;
use crate::config_drive;
use crate::console::progress::{Phase, Progress, Wait};
use crate::container::Network;
use crate::image::overlay::ExtraFile;
use crate::machine::disk::chosen::{Claim, Decided, Disk};
use crate::machine::disk::installed::{InstalledDisk, Unverified};
use crate::machine::firmware::{EspPath, Variables};
use crate::report::meter::Meter;
use crate::report::{DiskState, Report};
use crate::request;
use crate::sys::blocking::pause;
use crate::verify;
use boot_order::Wish;
use installer::Installer;
use planning::lay_out;
pub use planning::{Plan, Summary, plan};
use questions::Questions;

/// Installs an image as it is asked for, and gives the last word. `report` tells what was done, also when this fails or is
/// dropped half-way.
pub async fn install(
    request: &request::Install,
    meter: &Meter,
    progress: &Progress,
    report: &mut Report,
) -> Result<String> {
    meter.enter(Phase::Plan);
    let plan = plan(request, progress).await?;
    let image = &plan.found.image;
    report.image = Some((&**image).into());

    consent::obtain(&plan.disk, request.yes, progress).await?;

    meter.enter(Phase::Pull);
    let network = Network::new(request.network)?;
    let mut files = network.files(image, request.bootc.enforce_container_sigpolicy)?;
    files.extend(plan.ssh_keys.clone().map(|content| ExtraFile {
        path: SSH_KEYS_PATH,
        content,
    }));
    let root = plan.found.mount(&plan.memory, &files, progress).await?;

    // The image is here; what it says of itself may still stop us.
    meter.enter(Phase::Examine);
    let questions = Questions {
        root: &root,
        network: &network,
        environment: &image.environment,
        progress,
    };
    let installer = Installer::examine(&questions, request).await?;
    let layout = lay_out(
        request,
        &plan.found,
        root.unpacked_bytes,
        plan.disk.disk(),
        installer.backend,
        installer.version(),
    )?;
    installer.check_boot(planning::arch(&plan.found)?, request)?;
    let command = installer.command(&plan, &layout, request)?;
    installer.rehearse(&command, &questions).await?;
    let bootc = report.bootc.insert(installer.report(&command));
    let relay = network.serve(&plan.found, &root)?;

    let remember = |place| Wish::remember(place, plan.disk.disk());
    let wish = request.boot_entry.map(remember).transpose()?;

    let device = plan.disk.disk().path.clone();
    let claim = Disk::claim(plan.disk)?;
    if request.clear_stale_config_drives {
        claim.clear_stale_config_drives(progress)?;
    }
    // From here on the disk changes.
    let claim = Unfinished::begin(claim, request.keep_on_failure, &mut report.disk_state, progress);
    meter.enter(Phase::Install);
    let fetching = progress.waiting(Wait::telling(relay.tell_progress()));
    let ran = installer::run(&command, &root, &network, &image.environment, bootc, progress).await;
    drop(fetching);
    installer::explain(ran, &relay.shutdown().await, progress)?;
    if let Err(error) = root.close() {
        // What is on the disk is not worse for it.
        progress.warn(format!("{error:#}"));
    }

    meter.enter(Phase::Verify);
    let boot_path = installer.boot_path(request);
    pause().await;
    let mut installed = match InstalledDisk::verify(&claim, &layout, boot_path) {
        Ok(installed) => installed,
        Err(error) => return Err(claim.reject(error)),
    };
    pause().await;

    let checks = verify::installed(claim.disk(), boot_path, plan.found.image.digest.as_ref());
    pause().await;
    report.checks.clone_from(&checks.checks);
    checks.tell(progress);
    checks.refuse_failures()?;

    if let Some(config_drive) = &plan.config_drive {
        meter.enter(Phase::ConfigDrive);
        let region = &mut installed.add_config_drive_partition()?.region;
        report.config_drive = Some(config_drive::write(config_drive, region).await?);
    }
    let loader = loader_of(&installed);
    let needs_entry = installed.boot_loader().is_some_and(|found| !found.is_fallback);
    let table = installed.report();

    // From here on the disk stays as it is, whatever fails.
    let finished = claim.finish();
    report.disk = Some(table?);
    match (wish, loader) {
        (Some(wish), Some(loader)) => {
            report.boot_order = Some(wish.fulfil(&finished, &loader, progress)?);
        }
        (None, Some(loader)) => {
            let variables = Variables::of_this_machine();
            boot_order::check_entry(variables, &loader, needs_entry, progress)?;
        }
        (_, None) => {}
    }
    report.success = true;
    Ok(format!(
        "installed {} on {}",
        image.name_by_digest(),
        device.display()
    ))
}

/// What the firmware is to start, unless that is none of our business.
fn loader_of(installed: &InstalledDisk<'_>) -> Option<EspPath> {
    let esp = installed.esp()?;
    Some(EspPath {
        partition_number: esp.number,
        partition_uuid: esp.uuid,
        start_lba: esp.extent.start_lba,
        sectors: esp.extent.sectors,
        path: installed.boot_loader()?.path.clone(),
    })
}

/// A disk that is being installed. If that does not come to its end and anything was written, the disk's partition table is
/// cleared: half a system that boots is worse than none.
struct Unfinished<'install> {
    claim: Claim,
    keep_on_failure: bool,
    is_settled: bool,
    state: &'install mut DiskState,
    progress: &'install Progress,
}

impl<'install> Unfinished<'install> {
    fn begin(
        claim: Claim,
        keep_on_failure: bool,
        state: &'install mut DiskState,
        progress: &'install Progress,
    ) -> Self {
        *state = DiskState::Changed;
        Self {
            claim,
            keep_on_failure,
            is_settled: false,
            state,
            progress,
        }
    }

    /// Why the disk is not installed. What is wrong is cleared; what could not be looked at may be good, and stays.
    fn reject(mut self, error: Unverified) -> anyhow::Error {
        if matches!(error, Unverified::NotChecked(_)) {
            self.settle(DiskState::Unverified);
        }
        let path = self.claim.disk().path.display();
        anyhow::Error::new(error).context(format!("verifying what was installed on {path}"))
    }

    fn finish(mut self) -> Finished {
        self.settle(DiskState::Installed);
        Finished(())
    }

    fn settle(&mut self, state: DiskState) {
        *self.state = state;
        self.is_settled = true;
    }

    fn is_untouched(&self) -> bool {
        self.claim.is_untouched().unwrap_or_else(|error| {
            self.progress.warn(format!(
                "whether anything was written to the disk can't be told, so it counts as changed: {error:#}"
            ));
            false
        })
    }
}

/// An installation that came to its end. What may fail without the disk being cleared asks for it.
struct Finished(());

impl Deref for Unfinished<'_> {
    type Target = Claim;

    fn deref(&self) -> &Claim {
        &self.claim
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        if self.is_untouched() {
            *self.state = DiskState::Untouched;
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
            Ok(()) => *self.state = DiskState::Cleared,
            Err(error) => self.progress.warn(format!(
                "half a system is on the disk, and it may boot: {error:#}"
            )),
        }
    }
}
