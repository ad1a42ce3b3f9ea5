//! A disk that bootc has installed to and that was verified: only this one gets a config drive partition.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use uuid::Uuid;

use super::boot_loader::BootLoader;
use super::error::{Unverified, VerifyError};
use super::kernel_view::{KernelView, show_to_kernel};
use super::room::CONFIG_DRIVE_NAME;
use super::view::InstalledDisk;
use crate::machine::disk::chosen::claim::Claim;
use crate::machine::disk::chosen::device::Disk;
use crate::machine::disk::layout::{Arch, LINUX_TYPE, Layout, Planned, Role};
use crate::machine::disk::table::geometry::{Extent, Geometry};
use crate::machine::disk::table::gpt::{Partition, Table};
use crate::machine::filesystem::Signature;
use crate::sys::block::{self, Region};

/// How the disk is meant to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootPath {
    /// By a boot loader that the image installs.
    Loader,
    /// In a way that Landfall doesn't know (`--bootloader none`).
    Foreign,
}

/// An installed, verified disk.
#[derive(Debug)]
pub struct VerifiedDisk {
    disk: InstalledDisk,
    boot_path: BootPath,
    /// Where the config drive's partition will be.
    config_drive: Option<Extent>,
    kernel_view: Option<KernelView>,
}

/// The room for a config drive: a partition's bytes.
#[derive(Debug)]
pub struct Slot<'disk> {
    pub partition: Partition,
    pub region: Region<'disk>,
}

/// A disk as it is after the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    pub disk: PathBuf,
    pub geometry: Geometry,
    pub disk_guid: Uuid,
    pub partitions: Vec<PartitionReport>,
    /// What starts the system; none where it boots in a way that Landfall doesn't know (`--bootloader none`).
    pub boot_loader: Option<BootLoader>,
    /// What the kernel made of the config drive's partition.
    pub kernel_view: Option<KernelView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    #[serde(flatten)]
    pub partition: Partition,
    pub start_bytes: u64,
    pub size_bytes: u64,
    pub signatures: Vec<Signature>,
}

impl VerifiedDisk {
    /// Compares the claimed disk with the plan.
    pub fn verify(claim: &Claim, layout: &Layout, boot_path: BootPath) -> Result<Self, Unverified> {
        let disk = claim.disk().probe_again()?;
        let file = disk
            .open_for_writing()
            .with_context(|| format!("open(\"{}\", O_RDWR)", disk.node.display()))?;
        // The partitions were written through their own nodes; what the disk's node has in memory is older.
        block::flush_buffers(&file).context("dropping the disk's cached blocks")?;
        let table = read_sound_table(&file, &disk)?;
        check_table(layout, &table)?;
        let disk = match InstalledDisk::look(disk, file, table, Some(layout)) {
            InstalledDisk {
                boot_loader: Err(error),
                ..
            } if boot_path == BootPath::Loader => return Err(error),
            InstalledDisk { root: Err(error), .. } => return Err(error),
            sound => sound,
        };
        Ok(Self {
            disk,
            boot_path,
            config_drive: layout.config_drive,
            kernel_view: None,
        })
    }

    /// What was verified.
    pub fn disk(&self) -> &InstalledDisk {
        &self.disk
    }

    /// What starts the system.
    pub fn boot_loader(&self) -> Option<&BootLoader> {
        match self.boot_path {
            BootPath::Loader => self.disk.boot_loader.as_ref().ok(),
            BootPath::Foreign => None,
        }
    }

    /// Adds the planned partition for the config drive.
    pub fn add_config_drive_partition(&mut self) -> Result<Slot<'_>> {
        let extent = self.config_drive;
        let extent = extent.ok_or_else(|| anyhow!("the plan has no room for a config drive"))?;
        let InstalledDisk {
            disk, file, table, ..
        } = &mut self.disk;
        let partition = table.add(CONFIG_DRIVE_NAME, LINUX_TYPE, extent)?;
        table.write(file)?;
        let view = show_to_kernel(file, partition.number, &extent, &disk.geometry);
        self.kernel_view = Some(view);
        Ok(Slot {
            region: self.disk.region(&partition),
            partition,
        })
    }

    /// The disk as it is now.
    pub fn report(&self) -> Result<TableReport> {
        let InstalledDisk { disk, table, .. } = &self.disk;
        let partitions = table.partitions().map(|partition| self.describe(partition));
        Ok(TableReport {
            disk: disk.path.clone(),
            geometry: disk.geometry,
            disk_guid: table.disk_guid(),
            partitions: partitions.collect::<Result<_>>()?,
            boot_loader: self.boot_loader().cloned(),
            kernel_view: self.kernel_view.clone(),
        })
    }

    fn describe(&self, partition: Partition) -> Result<PartitionReport> {
        let (start_bytes, size_bytes) = partition.extent.bytes(&self.disk.disk.geometry);
        Ok(PartitionReport {
            signatures: self.disk.signatures(&partition)?,
            partition,
            start_bytes,
            size_bytes,
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

/// Compares the table with the plan. The planned config drive may be there or not.
fn check_table(layout: &Layout, table: &Table) -> Result<(), VerifyError> {
    for planned in &layout.partitions {
        let (number, name) = (planned.number, planned.name);
        let found = table.partitions().find(|partition| partition.number == number);
        let found = found.ok_or(VerifyError::Missing { number, name })?;
        if found.extent != planned.extent {
            return Err(VerifyError::Misplaced {
                number,
                name,
                found: found.extent,
                planned: planned.extent,
            });
        }
        if found.name != name || !is_type_of(planned, layout.arch, &found) {
            return Err(VerifyError::WrongKind {
                number,
                found: found.name.escape_debug().to_string(),
                found_type: found.type_guid,
                planned: name,
                planned_type: planned.type_guid,
            });
        }
    }
    let is_planned = |partition: &Partition| {
        layout
            .partitions
            .iter()
            .any(|planned| planned.number == partition.number)
            || layout.config_drive == Some(partition.extent)
    };
    match table.partitions().find(|partition| !is_planned(partition)) {
        Some(Partition { number, name, .. }) => Err(VerifyError::Unplanned {
            number,
            name: name.escape_debug().to_string(),
        }),
        None => Ok(()),
    }
}

/// Before its version is known, bootc may give root either of two types.
fn is_type_of(planned: &Planned, arch: Arch, found: &Partition) -> bool {
    found.type_guid == planned.type_guid
        || (planned.role == Role::Root && [LINUX_TYPE, arch.root_type()].contains(&found.type_guid))
}
