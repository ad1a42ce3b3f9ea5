//! A disk with a system on it that gets a config drive, without anything else being touched.

use std::fs::File;

use anyhow::{Context, Result};
use serde::Serialize;

use super::kernel_view::{KernelView, show_to_kernel};
use super::room::{CONFIG_DRIVE_NAME, Place};
use crate::machine::disk::chosen::Decided;
use crate::machine::disk::chosen::device::Disk;
use crate::machine::disk::layout::LINUX_TYPE;
use crate::machine::disk::table::gpt::Table;
use crate::sys::block::{self, Region};

/// Room for a config drive on a disk that otherwise stays as it is. The config drive is written first, and
/// then [`Room::take`] makes the partition: an interruption leaves no partition without content, and a new
/// one is never seen empty.
#[derive(Debug)]
pub struct Room {
    disk: Disk,
    file: File,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoomReport {
    pub number: u32,
    pub origin: Origin,
    pub start_bytes: u64,
    pub size_bytes: u64,
    /// What the kernel made of it, if it is new.
    pub kernel_view: Option<KernelView>,
}

/// How the partition came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Existing,
    Gpt,
    Mbr,
}

impl Disk {
    /// Finds room for a config drive of `needed` bytes beside what the disk holds.
    pub fn room_for_config_drive(self, needed: u64) -> Result<Room> {
        self.refuse_read_only()?;
        self.refuse_if_in_use()?;
        let path = self.path.display();
        let file = self
            .open_for_writing()
            .with_context(|| format!("open(\"{path}\", O_RDWR)"))?;
        let mut whole = Region::new(&file, 0, self.geometry.size_bytes);
        let place = Place::find(&mut whole, self.geometry, needed);
        let place = place.with_context(|| format!("{path} has no room for a config drive"))?;
        Ok(Room {
            disk: self,
            file,
            place,
        })
    }
}

impl Decided for Room {
    fn disk(&self) -> &Disk {
        &self.disk
    }
}

impl Room {
    /// The bytes of the partition, which may not be in the table yet.
    pub fn region(&self) -> Region<'_> {
        let (start, length) = self.place.extent().bytes(&self.disk.geometry);
        Region::new(&self.file, start, length)
    }

    /// Makes the partition where there is none, and puts both copies of a GPT where they belong.
    pub fn take(mut self) -> Result<RoomReport> {
        let geometry = self.disk.geometry;
        let extent = self.place.extent();
        let (number, origin) = match self.place {
            Place::Existing { number, .. } => {
                self.repair_table()?;
                (number, Origin::Existing)
            }
            Place::Gpt { mut table, extent } => {
                let partition = table.add(CONFIG_DRIVE_NAME, LINUX_TYPE, extent)?;
                table.write(&mut self.file)?;
                (partition.number, Origin::Gpt)
            }
            Place::Mbr { mut mbr, extent } => {
                let number = mbr.add(extent)?;
                mbr.write(&mut self.file)?;
                (number, Origin::Mbr)
            }
        };
        let is_new = origin != Origin::Existing;
        let kernel_view = is_new.then(|| show_to_kernel(&self.file, number, &extent, &geometry));
        // What was read through the partition's own node before is older. Where there is no node, nothing was
        // read.
        if let Ok(partition) = File::open(self.disk.partition_node(number)) {
            let _ = block::flush_buffers(&partition);
        }
        let (start_bytes, size_bytes) = extent.bytes(&geometry);
        Ok(RoomReport {
            number,
            origin,
            start_bytes,
            size_bytes,
            kernel_view,
        })
    }

    fn repair_table(&mut self) -> Result<()> {
        if let Some(mut table) = Table::read(&mut self.file, self.disk.geometry)?
            && !table.is_in_order()
        {
            table.write(&mut self.file)?;
        }
        Ok(())
    }
}
