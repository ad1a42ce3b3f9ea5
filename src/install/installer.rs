//! The image as its own installer: what its bootc is, and what it is asked.

use anyhow::{Context, Result, bail};

use super::planning::{self, Plan};
use super::programs::Programs;
use super::uefi::Booted;
use super::{boot_order, machine};
use crate::bootc::arguments::{self, Installation};
use crate::bootc::{messages, probe::Probe, requirements, uki::Uki};
use crate::console::progress::Progress;
use crate::image::rootfs::Rootfs;
use crate::machine::disk::installed::BootPath;
use crate::machine::disk::layout::{Backend, Layout};
use crate::machine::kernel;
use crate::report::BootcReport;
use crate::request;

/// An image that can install itself, as far as can be seen without trying.
pub struct Installer {
    probe: Probe,
    uki: Option<Uki>,
    /// bootc's backend for this image.
    backend: Backend,
    has_bound_images: bool,
    /// Whether bootupd installs the boot loader.
    by_bootupd: bool,
}

impl Installer {
    /// Looks for all that bootc needs, and asks bootc what it can. Nothing is written to the disk.
    pub async fn examine(programs: &Programs<'_>, request: &request::Install) -> Result<Self> {
        let rootfs = Rootfs::open(programs.root.path())?;
        let uki = Uki::find(&rootfs)?;
        let backend = request.bootc.backend(uki.is_some());
        requirements::check_bootc(&rootfs)?;
        let probe = programs.probe().await?;
        probe.check_version()?;
        probe.check_block_setup(request.bootc.block_setup)?;
        requirements::check(&rootfs, &request.bootc, backend, &probe)?;
        // With composefs, bootc has no storage of podman's to set up.
        if backend == Backend::Ostree {
            let doubted = requirements::doubted_for_podman(&rootfs)?;
            programs.try_podman(&doubted).await?;
        }
        machine::check(request.bootc.block_setup, backend)?;
        kernel::need_filesystem(&probe.filesystem(&request.bootc)?)?;
        boot_order::check_bootloader(request.boot_entry, probe.bootloader(&request.bootc))?;
        if backend == Backend::Composefs && probe.mounts_erofs_files() {
            warn_of_old_kernel(&probe.version, programs.progress)?;
        }
        let has_bound_images = !rootfs.list("usr/lib/bootc/bound-images.d")?.is_empty();
        Ok(Self {
            uki,
            backend,
            has_bound_images,
            by_bootupd: requirements::is_for_bootupd(&rootfs, &request.bootc, backend, &probe)?,
            probe,
        })
    }

    /// The layout of the disk for an image that takes `unpacked_bytes` in a file system.
    pub fn lay_out(&self, plan: &Plan, unpacked_bytes: u64, request: &request::Install) -> Result<Layout> {
        let version = self.probe.version.parse().unwrap_or_default();
        let disk = plan.disk.disk();
        let config_drive = plan.config_drive.is_some();
        planning::lay_out(
            request,
            &plan.image,
            unpacked_bytes,
            disk,
            self.backend,
            version,
            config_drive,
        )
    }

    /// Refuses a machine that the disk would not boot from afterwards.
    pub fn check_boot(&self, plan: &Plan, request: &request::Install) -> Result<()> {
        if self.by_bootupd && !request.bootc.is_generic_image() {
            Booted::find_out().refuse_bootupd(planning::arch(&plan.image)?)?;
        }
        Ok(())
    }

    /// Has bootc read its arguments, and do nothing.
    pub async fn rehearse(&self, command: &[String], programs: &Programs<'_>) -> Result<()> {
        let (status, said) = programs.ask(&arguments::rehearsal(command)).await?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "the image's bootc {} rejects its arguments: {}: check --bootc-arg and the options for bootc",
            self.probe.version,
            messages::complaint(&said)
        )
    }

    pub fn boot_path(&self, request: &request::Install) -> BootPath {
        match self.probe.bootloader(&request.bootc) {
            Some("none") => BootPath::Foreign,
            _ => BootPath::Loader,
        }
    }

    pub fn command(&self, plan: &Plan, layout: &Layout, request: &request::Install) -> Result<Vec<String>> {
        let image = &plan.image;
        let node = &plan.disk.disk().node;
        let target = request.bootc.target_imgref.clone();
        let target = target.unwrap_or_else(|| image.reference.update_name());
        let installation = Installation {
            device: node.to_str().context("the disk's name is not UTF-8")?,
            source: &image.name_by_digest(),
            target: &target,
            root_size_mib: layout.root_size_mib,
            wipe: request.wipe,
            backend: self.backend,
            uki: self.uki.as_ref(),
            has_bound_images: self.has_bound_images,
        };
        arguments::to_disk(&installation, &request.bootc, &self.probe)
    }

    /// What the report says of bootc before it is run.
    pub fn report(&self, command: &[String]) -> BootcReport {
        BootcReport {
            version: self.probe.version.clone(),
            command: command.to_vec(),
            ..BootcReport::default()
        }
    }
}

/// It is not refused: distributions change their older kernels, and their bootc to go with them.
fn warn_of_old_kernel(bootc: &str, progress: &Progress) -> Result<()> {
    let release = kernel::release()?;
    if !kernel::is_since(&release, (6, 12)) {
        progress.warn(format!(
            "bootc {bootc} mounts an erofs image from a file, which Linux {release} may not support: if the \
             installation fails, use a ramdisk with Linux 6.12 or newer"
        ));
    }
    Ok(())
}
