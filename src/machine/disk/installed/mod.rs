//! A disk that bootc has installed to and that was verified: the only one that gets a config drive's partition.

mod amend;
#[cfg(test)]
mod differential;
mod parts;
mod room;
pub(super) mod verify;

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use uuid::Uuid;

use self::room::CONFIG_DRIVE_NAME;
pub use self::verify::{BootLoader, BootPath, Unverified, VerifyError};
use crate::machine::disk::chosen::claim::Claim;
use crate::machine::disk::chosen::device::Disk;
use crate::machine::disk::layout::{LINUX_TYPE, Layout, Role};
use crate::machine::disk::table::geometry::{Extent, Geometry};
use crate::machine::disk::table::gpt::{Partition, Table};
use crate::machine::filesystem::{Signature, identify};
use crate::sys::block::{self, Region};

pub use amend::{Origin, Room, RoomReport};
pub use parts::{Parts, check_root, find_boot_loader};
pub use room::NoRoom;

/// An installed, verified disk.
#[derive(Debug)]
pub struct InstalledDisk {
    path: PathBuf,
    file: File,
    layout: Layout,
    table: Table,
    boot_loader: Option<BootLoader>,
    kernel_view: Option<KernelView>,
}

/// What the kernel made of a new partition. It is written through the whole disk, so nothing depends on this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelView {
    /// It was told of this one partition.
    Added,
    /// It read the whole table again.
    Reread,
    /// It will see the partition after a reboot; why not now.
    Unaware(String),
}

/// The room for a config drive: a partition's bytes.
#[derive(Debug)]
pub struct Slot<'disk> {
    /// The partition.
    pub partition: Partition,
    /// Its bytes.
    pub region: Region<'disk>,
}

/// A disk as it is after the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// The disk, as it was named.
    pub disk: PathBuf,
    /// Its size and sectors.
    pub geometry: Geometry,
    /// Its GUID.
    pub disk_guid: Uuid,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
    /// What starts the system; none where it boots in a way that Landfall doesn't know (`--bootloader none`).
    pub boot_loader: Option<BootLoader>,
    /// What the kernel made of the config drive's partition.
    pub kernel_view: Option<KernelView>,
}

/// A partition as it is after the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The partition.
    #[serde(flatten)]
    pub partition: Partition,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What is on it.
    pub signatures: Vec<Signature>,
}

impl InstalledDisk {
    /// Compares the claimed disk with the plan.
    pub fn verify(claim: &Claim, layout: &Layout, boot: BootPath) -> Result<Self, Unverified> {
        let disk = claim.disk().probe_again()?;
        let file = disk
            .open_for_writing()
            .with_context(|| format!("open(\"{}\", O_RDWR)", disk.node.display()))?;
        // The partitions were written through their own nodes; what the disk's node has in memory is older.
        block::flush_buffers(&file).context("forgetting what is in memory")?;
        let table = read_sound_table(&file, &disk)?;
        verify::check_table(layout, &table)?;
        let region = |role| {
            let planned = layout
                .partition(role)
                .ok_or_else(|| anyhow!("the plan has no {role:?} partition"))?;
            Ok::<_, anyhow::Error>(region_of(&file, &planned.extent, &layout.geometry))
        };
        let boot_loader = match boot {
            BootPath::Loader => Some(verify::find_boot_loader(region(Role::Esp)?, layout.arch)?),
            BootPath::Foreign => None,
        };
        let mut root = region(Role::Root)?;
        let root_bytes = root.length_bytes();
        verify::check_root(&mut root, root_bytes, layout.block_setup)?;
        Ok(Self {
            path: disk.path,
            file,
            layout: layout.clone(),
            table,
            boot_loader,
            kernel_view: None,
        })
    }

    /// The EFI system partition.
    pub fn esp(&self) -> Option<Partition> {
        let planned = self.layout.partition(Role::Esp)?;
        self.table
            .partitions()
            .find(|partition| partition.number == planned.number)
    }

    /// What starts the system.
    pub fn boot_loader(&self) -> Option<&BootLoader> {
        self.boot_loader.as_ref()
    }

    /// Adds the planned partition for the config drive.
    pub fn add_config_drive_partition(&mut self) -> Result<Slot<'_>> {
        let extent = self
            .layout
            .config_drive
            .ok_or_else(|| anyhow!("the plan has no room for a config drive"))?;
        let partition = self.table.add(CONFIG_DRIVE_NAME, LINUX_TYPE, extent)?;
        self.table.write(&mut self.file)?;
        self.kernel_view = Some(show_to_kernel(
            &self.file,
            partition.number,
            &extent,
            &self.layout.geometry,
        ));
        Ok(Slot {
            region: region_of(&self.file, &extent, &self.layout.geometry),
            partition,
        })
    }

    /// The disk as it is now.
    pub fn report(&self) -> Result<TableReport> {
        let partitions = self
            .table
            .partitions()
            .map(|partition| self.describe(partition))
            .collect::<Result<_>>()?;
        Ok(TableReport {
            disk: self.path.clone(),
            geometry: self.layout.geometry,
            disk_guid: self.table.disk_guid(),
            partitions,
            boot_loader: self.boot_loader.clone(),
            kernel_view: self.kernel_view.clone(),
        })
    }

    fn describe(&self, partition: Partition) -> Result<PartitionReport> {
        let (start_bytes, size_bytes) = partition.extent.bytes(&self.layout.geometry);
        let signatures = identify(&mut Region::new(&self.file, start_bytes, size_bytes), size_bytes)
            .with_context(|| format!("reading partition {}", partition.number))?;
        Ok(PartitionReport {
            partition,
            start_bytes,
            size_bytes,
            signatures,
        })
    }
}

/// Reads the table and puts it in order where a copy of it isn't.
fn read_sound_table(mut file: &File, disk: &Disk) -> Result<Table, Unverified> {
    let mut table = Table::read(&mut file, disk.geometry)?.ok_or(VerifyError::NoTable)?;
    if !table.is_in_order() {
        table.relocate_backup();
        let mut file = disk.open_for_writing().context("open")?;
        table.write(&mut file)?;
    }
    Ok(table)
}

fn region_of<'disk>(file: &'disk File, extent: &Extent, geometry: &Geometry) -> Region<'disk> {
    let (start, length) = extent.bytes(geometry);
    Region::new(file, start, length)
}

/// Tells the kernel of a new partition, so that its node appears (devtmpfs makes it before the call returns).
///
/// The one partition first: reading the whole table again is refused while any partition is held, and a kernel that
/// knows no GPT would forget all of them.
pub fn show_to_kernel(file: &File, number: u32, extent: &Extent, geometry: &Geometry) -> KernelView {
    let (start, length) = extent.bytes(geometry);
    let Err(add) = block::add_partition(file, number, start, length) else {
        return KernelView::Added;
    };
    match block::reread_partitions(file) {
        Ok(()) => KernelView::Reread,
        Err(reread) => KernelView::Unaware(format!("{add}; {reread}")),
    }
}
