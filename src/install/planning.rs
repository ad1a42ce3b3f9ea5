//! Before anything is pulled: find the image, look at the machine and the disk, and refuse what cannot work.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::bootc::arguments::SSH_KEYS_PATH;
use crate::config_drive::{self, ConfigDrive};
use crate::console::progress::{Progress, Wait};
use crate::console::text::size;
use crate::container::{self, Isolation, Network};
use crate::image::estimate::{Estimate, with_filesystem};
use crate::image::memory::{Memory, Purpose};
use crate::image::oci::Image;
use crate::image::overlay::ExtraFile;
use crate::image::root::{self, FoundImage};
use crate::machine::disk::chosen::{Disk, Expendable};
use crate::machine::disk::layout::{Arch, Backend, BootcVersion, Layout, LayoutRequest};
use crate::machine::disk::table::{Extent, MIB};
use crate::machine::kernel;
use crate::request;
use crate::sys::blocking::apart;

use super::uefi::Booted;
use super::{boot_order, machine};

/// How much larger an image is once it is installed, in percent: file system structures, and bootc's own copy
/// of what it boots.
const INSTALLED_PERCENT: u64 = 115;
/// … and at least this much, in MiB: a journal.
const INSTALLED_MIB: u64 = 128;
/// A file of SSH keys that is larger is something else.
const MAX_SSH_KEYS_BYTES: u64 = 1 << 20;

/// Everything that was decided before anything is pulled.
pub struct Plan {
    /// The image.
    pub image: Arc<Image>,
    /// How memory is shared out.
    pub memory: Memory,
    /// The disk, whose contents may go.
    pub disk: Expendable,
    /// How the disk will be laid out. The image may turn out to want another backend; then this is computed
    /// again.
    pub layout: Layout,
    /// What goes onto its last partition.
    pub config_drive: Option<ConfigDrive>,
    /// The SSH keys of root on the installed system.
    pub ssh_keys: Option<Vec<u8>>,
    /// The guards against a hostile image.
    pub isolation: Isolation,
    /// What is not known yet, or could not be found out.
    pub not_checked: Vec<String>,
}

/// Decides all that can be decided, or refuses; gives also where the image is. Nothing is written. The config
/// drive's place is taken out of `request`: an address may be a secret.
pub async fn plan(request: &mut request::Install, progress: &Progress) -> Result<(Plan, FoundImage)> {
    root::check_machine()?;
    let isolation = Isolation::of_this_machine();
    if request.require_isolation {
        isolation.require()?;
    }
    let config_drive = match request.config_drive.take() {
        Some(place) => Some(config_drive::read(&place, &request.image.source, progress).await?),
        None => None,
    };
    let ssh_keys = match request.bootc.root_ssh_authorized_keys.clone() {
        Some(path) => Some(apart(move || read_ssh_keys(&path)).await?),
        None => None,
    };
    let backend = request.bootc.backend(false);
    let not_known = machine::check_kernel()?;
    machine::check(request.bootc.block_setup, backend)?;
    if let Some(filesystem) = request.bootc.filesystem {
        kernel::need_filesystem(filesystem.name())?;
    }
    boot_order::check_bootloader(request.boot_entry, request.bootc.bootloader.as_deref())?;
    // What stands in the way is better known now.
    boot_order::check_machine(request.boot_entry)?;
    let (path, hints) = (request.disk().map(Path::to_owned), request.hints.clone());
    let wipe = request.wipe;
    let looking = progress.waiting(Wait::new("looking at the disks"));
    let disk = apart(move || Disk::choose(path.as_deref(), &hints)?.give_up(wipe)).await?;
    drop(looking);
    let config_drive = config_drive
        .map(|drive| config_drive::fit(drive, disk.disk().geometry.sector_bytes, progress))
        .transpose()?;
    disk.disk()
        .look_for_stale_config_drives(request.clear_stale_config_drives, progress)
        .await?;
    let found = root::find(&request.image, progress).await?;
    if found.image.layers.is_empty() {
        bail!("the image has no layers, so there is nothing to install: use a bootable container image");
    }
    container::spec::environment(&found.image.environment)?;
    // A stick that the image is on is mounted only now.
    found.refuse_as_target(disk.disk())?;
    disk.disk().refuse_if_in_use()?;
    let memory = found.memory(&request.image, Purpose::Install, progress).await?;
    let unknown = BootcVersion::default();
    let request = &*request;
    let has_drive = config_drive.is_some();
    let lay_out = |bytes| {
        lay_out(
            request,
            &found.image,
            bytes,
            disk.disk(),
            backend,
            unknown,
            has_drive,
        )
    };
    let layout = lay_out(with_filesystem(memory.unpacked.at_least_bytes))?;
    if let Err(doubt) = lay_out(memory.unpacked.likely_bytes) {
        progress.warn(format!(
            "the image may turn out to be too large for the disk: {doubt:#}"
        ));
    }
    let booted = Booted::find_out();
    if request.bootc.bootloader.as_deref() == Some("grub") && !request.bootc.is_generic_image() {
        booted.refuse_bootupd(arch(&found.image)?)?;
    }
    let plan = Plan {
        not_checked: not_known
            .into_iter()
            .chain(left_to_the_image(request, booted))
            .collect(),
        image: Arc::clone(&found.image),
        memory,
        disk,
        layout,
        config_drive,
        ssh_keys,
        isolation,
    };
    Ok((plan, found))
}

impl Plan {
    /// What is put into the image's root for the time of the installation.
    pub fn files(&self, network: &Network, request: &request::Install) -> Result<Vec<ExtraFile>> {
        let mut files = network.files(&self.image, request.bootc.enforce_container_sigpolicy)?;
        files.extend(self.ssh_keys.clone().map(|content| ExtraFile {
            path: SSH_KEYS_PATH,
            content,
        }));
        Ok(files)
    }
}

/// What only the image itself can tell, when it is here.
fn left_to_the_image(request: &request::Install, booted: Booted) -> impl Iterator<Item = String> {
    let always = [
        "whether the image contains bootc and all that bootc needs",
        "whether the image's bootc takes these options",
        "which backend the image uses: partition sizes may differ",
    ];
    let filesystem = "whether this kernel has the file system of the image's root";
    let uefi = "whether the image's boot loader can be installed from a machine that was not booted by UEFI; with \
                --generic-image it can";
    always
        .into_iter()
        .chain(request.bootc.filesystem.is_none().then_some(filesystem))
        .chain((booted != Booted::ByUefi && !request.bootc.is_generic_image()).then_some(uefi))
        .map(Into::into)
}

/// The layout for an image that takes `unpacked_bytes` in a file system, as far as it is known.
pub fn lay_out(
    request: &request::Install,
    image: &Image,
    unpacked_bytes: u64,
    disk: &Disk,
    backend: Backend,
    bootc: BootcVersion,
    config_drive: bool,
) -> Result<Layout> {
    let layout = LayoutRequest {
        geometry: disk.geometry,
        arch: arch(image)?,
        backend,
        block_setup: request.bootc.block_setup,
        bootc,
        config_drive,
        root_at_least_mib: unpacked_bytes / 100 * INSTALLED_PERCENT / MIB + INSTALLED_MIB,
        root_exactly_mib: request.root_size_mib,
    };
    Ok(Layout::plan(&layout)?)
}

/// What the image runs on.
pub fn arch(image: &Image) -> Result<Arch> {
    let architecture = image.platform.architecture.to_string();
    Arch::from_oci(&architecture)
        .with_context(|| format!("images for {architecture} cannot be installed, only amd64 and arm64"))
}

fn read_ssh_keys(path: &Path) -> Result<Vec<u8>> {
    let describe = || format!("reading the SSH keys in {}", path.display());
    if fs::metadata(path).with_context(describe)?.len() > MAX_SSH_KEYS_BYTES {
        bail!("{} is too large for a file of SSH keys", path.display());
    }
    fs::read(path).with_context(describe)
}

/// A plan as people and programs read it.
#[derive(Debug, Serialize)]
pub struct Summary {
    image: String,
    manifest_digest: String,
    platform: String,
    layers: usize,
    compressed_bytes: u64,
    #[serde(flatten)]
    unpacked: Estimate,
    memory: Memory,
    disk: String,
    disk_bytes: u64,
    logical_sector_bytes: u64,
    to_be_lost: Option<String>,
    partitions: Vec<PlannedPartition>,
    isolation: Isolation,
    not_checked: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PlannedPartition {
    name: String,
    start_lba: u64,
    size_bytes: u64,
}

impl From<&Plan> for Summary {
    fn from(plan: &Plan) -> Self {
        let image = &plan.image;
        let disk = plan.disk.disk();
        let sector = disk.geometry.sector_bytes;
        let partition = |name: &str, extent: &Extent| PlannedPartition {
            name: name.into(),
            start_lba: extent.start_lba,
            size_bytes: extent.sectors * sector,
        };
        let own = plan.layout.partitions.iter();
        let own = own.map(|planned| partition(planned.name, &planned.extent));
        let config_drive = plan.layout.config_drive.iter();
        let config_drive = config_drive.map(|extent| partition("config-2", extent));
        Self {
            image: image.reference.to_string(),
            manifest_digest: image.digest.to_string(),
            platform: image.platform.to_string(),
            layers: image.layers.len(),
            compressed_bytes: image.compressed_bytes(),
            unpacked: plan.memory.unpacked,
            memory: plan.memory,
            disk: disk.path.display().to_string(),
            disk_bytes: disk.geometry.size_bytes,
            logical_sector_bytes: sector,
            to_be_lost: (!plan.disk.contents().is_empty()).then(|| plan.disk.contents().to_string()),
            partitions: own.chain(config_drive).collect(),
            isolation: plan.isolation,
            not_checked: plan.not_checked.clone(),
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "image       {} ({})", self.image, self.platform)?;
        writeln!(out, "digest      {}", self.manifest_digest)?;
        let (sizes, guess) = self.unpacked.beside(self.compressed_bytes);
        writeln!(out, "layers      {}: {sizes}", self.layers)?;
        let (needed, available) = (size(self.memory.needed_bytes), size(self.memory.available_bytes));
        writeln!(
            out,
            "memory      about {needed} needed{guess}, {available} available"
        )?;
        let sector = self.logical_sector_bytes;
        writeln!(
            out,
            "disk        {}: {}, sectors of {sector} bytes",
            self.disk,
            size(self.disk_bytes)
        )?;
        match &self.to_be_lost {
            None => writeln!(out, "on it now   nothing")?,
            Some(what) => writeln!(out, "to be lost  {what}")?,
        }
        for partition in &self.partitions {
            let (name, bytes) = (&partition.name, size(partition.size_bytes));
            writeln!(
                out,
                "partition   {name:<12} {bytes:>10}, from sector {}",
                partition.start_lba
            )?;
        }
        for what in self.isolation.missing() {
            writeln!(out, "unguarded   a hostile image could {what}")?;
        }
        for what in &self.not_checked {
            writeln!(out, "not checked {what}")?;
        }
        Ok(())
    }
}
