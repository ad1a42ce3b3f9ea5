//! `cargo xtask vm`: the demo's machine, for any image a user names.

use std::path::PathBuf;

use anyhow::Result;
use lab::registry::Registry;
use lab::scenario::{self, Installation};
use lab::vm::{Disk, Machine};
use lab::{fixture, product};

use crate::demo::Steps;
use crate::setup;

/// What to install in which machine.
#[derive(Debug, clap::Args)]
pub struct Virtual {
    /// The image, as the machine reaches it: this host's loopback is 10.0.2.2 there (default: the fixture
    /// image)
    #[arg(long)]
    pub image: Option<String>,
    /// The fixture image's variant, when no image is named: bootable, many-layers, no-bootc, fails-halfway
    #[arg(long, default_value = fixture::BOOTABLE, conflicts_with = "image")]
    pub variant: String,
    /// The machine's memory in MiB
    #[arg(long, default_value_t = 2048)]
    pub memory: u32,
    /// The disk's size in MiB
    #[arg(long, default_value_t = 10240)]
    pub disk_size: u64,
    /// The disk's logical sector size
    #[arg(long, default_value_t = 512, value_parser = sector_size)]
    pub sector_size: u32,
    /// Make it an NVMe disk (default: virtio)
    #[arg(long)]
    pub nvme: bool,
    /// A config drive image
    #[arg(long)]
    pub config_drive: Option<PathBuf>,
    /// More arguments for the kernel command line: 'landfall.tls-verify=0 landfall.args="--karg quiet"'
    #[arg(long, default_value = "")]
    pub arguments: String,
    /// Where the disk image goes (default: target/vm/disk.img)
    #[arg(long)]
    pub disk: Option<PathBuf>,
}

fn sector_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("disks have sectors of 512 or 4096 bytes".into()),
    }
}

/// Installs and boots.
pub fn run(wanted: &Virtual) -> Result<()> {
    let mut steps = Steps::default();
    setup::ensure()?;
    let landfall = steps.run("Building Landfall", product::build)?;
    let registry = match wanted.image {
        None => Some(steps.run("Serving the fixture image", || serve(&wanted.variant))?),
        Some(_) => None,
    };
    let (image, more) = match (&wanted.image, &registry) {
        (None, Some(registry)) => (
            format!("{}/os/fixture:1", registry.host_for_vm()),
            "landfall.tls-verify=0",
        ),
        (image, _) => (image.clone().unwrap_or_default(), ""),
    };
    let disk = disk(wanted)?;
    let installation = Installation {
        config_drive: wanted.config_drive.as_deref(),
        memory_mib: wanted.memory,
        arguments: &format!("{more} {}", wanted.arguments),
        ..Installation::new(&landfall, &image, &disk)
    };
    steps.run("Installing", || installation.run())?;
    let checks = || scenario::check_disk(&disk, installation.config_drive);
    steps
        .run("Checking the disk from outside", checks)?
        .iter()
        .for_each(|line| println!("    {line}"));
    let booted = Machine::new(&disk).memory_mib(wanted.memory).echo("  | ");
    steps.run(
        "Booting the disk; press Ctrl-C to leave a system that doesn't power off",
        || booted.run(),
    )?;
    println!("\n{}", steps.table());
    Ok(())
}

fn serve(variant: &str) -> Result<Registry> {
    let layout = fixture::layout()?;
    let registry = Registry::start()?;
    registry.place(&layout, variant, "os/fixture:1")?;
    Ok(registry)
}

fn disk(wanted: &Virtual) -> Result<Disk> {
    let path = wanted
        .disk
        .clone()
        .unwrap_or_else(|| lab::target().join("vm/disk.img"));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let disk = Disk::create(&path, wanted.disk_size)?.sector_size(wanted.sector_size);
    Ok(if wanted.nvme { disk.nvme() } else { disk })
}
