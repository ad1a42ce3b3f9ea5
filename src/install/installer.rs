//! The image as its own installer: what its bootc is, what it is asked, and how it is run.

use std::collections::VecDeque;

use anyhow::{Context, Result, anyhow, bail};

use super::boot_order;
use super::machine;
use super::planning::Plan;
use super::questions::Questions;
use super::uefi::Booted;
use crate::bootc::arguments::{self, Installation};
use crate::bootc::messages;
use crate::bootc::probe::Probe;
use crate::bootc::requirements;
use crate::bootc::uki::Uki;
use crate::console::progress::{Event, Progress};
use crate::container::relay::Served;
use crate::container::{self, Devices, Network, Output, Sandbox};
use crate::image::root::Root;
use crate::image::rootfs::Rootfs;
use crate::machine::disk::installed::BootPath;
use crate::machine::disk::layout::{Arch, Backend, BootcVersion, Layout};
use crate::machine::kernel;
use crate::report::BootcReport;
use crate::request;

/// How many lines of bootc's output are kept, and how many bytes.
const KEPT_LINES: usize = 2000;
const KEPT_BYTES: usize = 1 << 20;

/// An image that can install itself, as far as can be seen without trying.
pub struct Installer {
    probe: Probe,
    uki: Option<Uki>,
    /// bootc's backend for this image.
    pub backend: Backend,
    has_bound_images: bool,
    /// Whether bootupd installs the boot loader.
    by_bootupd: bool,
}

impl Installer {
    /// Looks for all that bootc needs, and asks bootc what it can. Nothing is written to the disk.
    pub async fn examine(questions: &Questions<'_>, request: &request::Install) -> Result<Self> {
        let rootfs = Rootfs::open(questions.root.path())?;
        let uki = Uki::find(&rootfs)?;
        let composefs = request.bootc.composefs_backend || uki.is_some();
        let backend = if composefs {
            Backend::Composefs
        } else {
            Backend::Ostree
        };
        requirements::check_bootc(&rootfs)?;
        let probe = questions.probe().await?;
        probe.check_version()?;
        probe.check_block_setup(request.bootc.block_setup)?;
        requirements::check(&rootfs, &request.bootc, backend, &probe)?;
        // With composefs, bootc has no storage of podman's to set up.
        if backend == Backend::Ostree {
            questions
                .try_podman(&requirements::doubted_for_podman(&rootfs)?)
                .await?;
        }
        machine::check(request.bootc.block_setup, backend)?;
        kernel::need_filesystem(&probe.filesystem(&request.bootc)?)?;
        boot_order::check_bootloader(request.boot_entry, probe.bootloader(&request.bootc))?;
        if backend == Backend::Composefs && probe.mounts_erofs_files() {
            warn_of_old_kernel(&probe.version, questions.progress)?;
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

    /// Refuses a machine that the disk would not boot from afterwards.
    pub fn check_boot(&self, arch: Arch, request: &request::Install) -> Result<()> {
        if self.by_bootupd && !request.bootc.is_generic_image() {
            Booted::find_out().refuse_bootupd(arch)?;
        }
        Ok(())
    }

    /// Has bootc read its arguments, and do nothing.
    pub async fn rehearse(&self, command: &[String], questions: &Questions<'_>) -> Result<()> {
        let (status, said) = questions.ask(&arguments::rehearsal(command)).await?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "the image's bootc {} does not take what it would be told: {}: look at --bootc-arg and the options for bootc",
            self.probe.version,
            messages::complaint(&said)
        )
    }

    /// The version of the image's bootc, as far as layouts depend on it.
    pub fn version(&self) -> BootcVersion {
        self.probe.version.parse().unwrap_or_default()
    }

    /// How the installed disk boots.
    pub fn boot_path(&self, request: &request::Install) -> BootPath {
        match self.probe.bootloader(&request.bootc) {
            Some("none") => BootPath::Foreign,
            _ => BootPath::Loader,
        }
    }

    /// The command that installs the image.
    pub fn command(&self, plan: &Plan, layout: &Layout, request: &request::Install) -> Result<Vec<String>> {
        let image = &plan.found.image;
        let device = plan
            .disk
            .disk()
            .node
            .to_str()
            .context("the disk's name is not UTF-8")?;
        let target = request
            .bootc
            .target_imgref
            .clone()
            .unwrap_or_else(|| image.reference.update_name());
        let installation = Installation {
            device,
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
            "bootc {bootc} mounts what it has installed from a file, which Linux {release} may not do with erofs: if the \
             installation fails, use a ramdisk with Linux 6.12 or newer"
        ));
    }
    Ok(())
}

/// Runs `command` with the kernel's devices, and shows and keeps what it prints.
pub async fn run(
    command: &[String],
    root: &Root,
    network: &Network,
    environment: &[String],
    report: &mut BootcReport,
    progress: &Progress,
) -> Result<()> {
    let command = arguments::in_shell(command);
    let devices = Devices::Kernel {
        efivars: Booted::find_out() == Booted::ByUefi,
    };
    let sandbox = Sandbox::new(root, &command, environment, devices, network);
    let mut kept = Kept::default();
    let mut keep = |line: String| {
        progress.tell(Event::Output(line.clone()));
        kept.push(line);
    };
    let ended = container::run(&sandbox, Output::Lines(&mut keep)).await;
    report.output = kept.lines.into();
    let status = ended?;
    report.exit_status = Some(status.to_string());
    if status.success() {
        return Ok(());
    }
    bail!(
        "the image's bootc failed with {status}{}",
        messages::reason(&report.output)
    )
}

/// How bootc's run ended, with what the image's source said meanwhile: bootc itself only saw that it did not get a blob.
pub fn explain(ran: Result<()>, served: &Served, progress: &Progress) -> Result<()> {
    match (ran, served.failures.first()) {
        (Err(error), Some(failure)) => Err(anyhow!(
            "the image's source failed while bootc read from it ({failure}), and {error:#}"
        )),
        (Ok(()), Some(failure)) => {
            progress.note(format!(
                "the image's source failed while bootc read from it, and bootc tried again: {failure}"
            ));
            Ok(())
        }
        (ran, None) => ran,
    }
}

/// The last lines of an output, and not too much of them.
#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT_LINES || self.bytes > KEPT_BYTES {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_kept() {
        let mut kept = Kept::default();
        (0..KEPT_LINES + 10).for_each(|number| kept.push(number.to_string()));
        assert_eq!((kept.lines.len(), kept.lines[0].as_str()), (KEPT_LINES, "10"));
        (0..1000).for_each(|_| kept.push("x".repeat(4096)));
        assert_eq!(kept.lines.len(), KEPT_BYTES / 4096);
        assert_eq!(kept.bytes, kept.lines.iter().map(String::len).sum::<usize>());
        kept.push("x".repeat(KEPT_BYTES + 1));
        assert_eq!((kept.lines.len(), kept.bytes), (0, 0));
    }
}
