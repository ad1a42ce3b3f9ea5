//! Whether this kernel reads GUID Partition Tables: it is given one to try.

use std::fs::{self, File};
use std::io::ErrorKind;

use anyhow::{Context, Result};
use gptman::{GPT, GPTPartitionEntry};
use nix::sys::memfd::{MFdFlags, memfd_create};
use uuid::Uuid;

use crate::sys::block;
use crate::sys::loop_device::LoopDevice;

const SECTOR_BYTES: u64 = 512;
const DISK_BYTES: u64 = 1 << 20;
const START_LBA: u64 = 64;
const END_LBA: u64 = 127;

/// Shows the kernel a disk in memory that has one partition. An error says why that could not be done.
pub fn kernel_reads_gpt() -> Result<bool> {
    let disk = memfd_create(c"landfall-gpt", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let mut disk = File::from(disk);
    write_table(&mut disk)?;
    let device = LoopDevice::of(&disk).context("making a loop device")?;
    block::reread_partitions(&device.file)?;
    let start = format!("/sys/block/{0}/{0}p1/start", device.name);
    match fs::read_to_string(&start) {
        Ok(found) => Ok(found.trim() == START_LBA.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("reading {start}")),
    }
}

fn write_table(disk: &mut File) -> Result<()> {
    disk.set_len(DISK_BYTES).context("ftruncate")?;
    let mut table = GPT::new_from(disk, SECTOR_BYTES, Uuid::new_v4().into_bytes())?;
    table[1] = GPTPartitionEntry {
        // Linux's own kind of data.
        partition_type_guid: Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4).to_bytes_le(),
        unique_partition_guid: Uuid::new_v4().into_bytes(),
        starting_lba: START_LBA,
        ending_lba: END_LBA,
        attribute_bits: 0,
        partition_name: "trial".into(),
    };
    table.write_into(disk)?;
    GPT::write_protective_mbr_into(disk, SECTOR_BYTES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::table::{Geometry, gpt::Table};

    #[test]
    fn the_table_is_sound() {
        let mut disk = tempfile::tempfile().unwrap();
        write_table(&mut disk).unwrap();
        let geometry = Geometry::plain(DISK_BYTES, SECTOR_BYTES);
        let table = Table::read(&mut disk, geometry).unwrap().unwrap();
        assert!(table.is_in_order());
        let extents: Vec<_> = table.partitions().map(|each| each.extent).collect();
        assert_eq!(extents.len(), 1);
        assert_eq!(
            (extents[0].start_lba, extents[0].sectors),
            (START_LBA, END_LBA - START_LBA + 1)
        );
    }
}
