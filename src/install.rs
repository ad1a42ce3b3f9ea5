//! The story: how an image gets onto a disk. Read [`install`] from top to bottom.
//!
//! Whatever can be known before the disk is touched is checked before it: what may write to the disk is a
//! method of [`Unfinished`], which only a claim leads to. From a [`Finished`] installation on the disk stays
//! as it is.
//!
//! [`Unfinished`]: unfinished::Unfinished
//! [`Finished`]: unfinished::Finished

mod boot_order;
mod consent;
mod firmware;
mod installer;
mod machine;
mod planning;
mod programs;
mod quiet;
mod run;
mod uefi;
mod unfinished;

use anyhow::Result;

use crate::console::progress::{Phase, Progress};
use crate::container::Network;
use crate::machine::disk::chosen::{Decided, Disk};
use crate::report::Report;
use crate::request;
use installer::Installer;
pub use planning::{Plan, Summary, plan};
use programs::Programs;
use quiet::{Quiet, Ramdisk, needs_network};
use unfinished::Unfinished;

/// Installs an image as it is asked for, and gives the last word. `report` tells what was done, also when
/// this fails or is dropped half-way.
pub async fn install(
    request: &mut request::Install,
    progress: &Progress,
    report: &mut Report,
) -> Result<String> {
    let ramdisk = Ramdisk::find(request)?;
    progress.enter(Phase::Plan);
    let (plan, found) = plan(request, progress).await?;
    let request = &*request;
    let image = &plan.image;
    report.image = Some((&**image).into());
    consent::obtain(&plan.disk, request.yes, progress).await?;

    plan.isolation.warn(progress);
    progress.enter(Phase::Pull);
    let network = Network::new(request.network)?;
    let files = plan.files(&network, request)?;
    // With what was found go the credentials: no program of the image has run yet.
    let root = found.mount(&plan.memory, &files, progress).await?;

    // The image is here; what it says of itself may still stop us.
    progress.enter(Phase::Examine);
    let quiet = Quiet::begin(ramdisk, needs_network(request, &root), progress)?;
    let programs = Programs {
        root: &root,
        network: &network,
        environment: &image.environment,
        progress,
    };
    let installer = Installer::examine(&programs, request).await?;
    let layout = installer.lay_out(&plan, root.unpacked_bytes, request)?;
    installer.check_boot(&plan, request)?;
    let command = installer.command(&plan, &layout, request)?;
    installer.rehearse(&command, &programs).await?;
    report.bootc = Some(installer.report(&command));
    let relay = network.serve(image, &root)?;
    let firmware = firmware::Before::remember(plan.disk.disk(), request.boot_entry, progress)?;

    let claim = Disk::claim(plan.disk)?;
    if request.clear_stale_config_drives {
        claim.clear_stale_config_drives(progress)?;
    }
    let path = claim.disk().path.display().to_string();
    let mut unfinished = Unfinished::begin(claim, firmware, request.keep_on_failure, report, progress);
    progress.enter(Phase::Install);
    let block_setup = request.bootc.block_setup;
    unfinished.run(&command, block_setup, &programs, relay).await?;
    drop(quiet);
    if let Err(error) = root.close() {
        // What is on the disk is not worse for it.
        progress.warn(format!("{error:#}"));
    }

    progress.enter(Phase::Verify);
    let boot_path = installer.boot_path(request);
    let mut verified = unfinished.verify(&layout, boot_path, &image.digest).await?;
    if let Some(config_drive) = &plan.config_drive {
        progress.enter(Phase::ConfigDrive);
        verified.write(config_drive).await?;
    }
    let finished = verified.finish()?;
    report.boot_order = boot_order::settle(&finished, request.boot_entry, progress)?;
    report.success = true;
    Ok(format!("installed {} on {path}", image.name_by_digest()))
}
