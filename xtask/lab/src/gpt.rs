//! Reads a disk image's GUID partition table (UEFI specification, section 5.3): where its partitions are.
//!
//! A second reader beside the product's own, and for any sector size: the distribution's tools take an image
//! file's sectors for 512 bytes. Checking the table is theirs all the same.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result};

use crate::vm::Disk;

/// A partition, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the table.
    pub name: String,
    /// Where it starts.
    pub start_bytes: u64,
    /// How long it is.
    pub size_bytes: u64,
}

/// The partitions of a disk image; none where there is no table.
pub fn partitions(disk: &Disk) -> Result<Vec<Partition>> {
    let sector = u64::from(disk.logical_sector_size());
    let mut file = File::open(&disk.path).with_context(|| format!("opening {}", disk.path.display()))?;
    let header = read(&mut file, sector, 92)?;
    if &header[..8] != b"EFI PART" {
        return Ok(Vec::new());
    }
    let (count, size) = (u32_at(&header, 80) as usize, u32_at(&header, 84) as usize);
    let entries = read(&mut file, u64_at(&header, 72) * sector, count * size)?;
    let used = entries.chunks_exact(size).filter(|entry| entry[..16] != [0; 16]);
    Ok(used.map(|entry| partition(entry, sector)).collect())
}

fn partition(entry: &[u8], sector: u64) -> Partition {
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    let units = entry[56..128]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Partition {
        name: String::from_utf16_lossy(&name),
        start_bytes: first * sector,
        size_bytes: (last + 1 - first) * sector,
    }
}

fn read(file: &mut File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)
        .context("reading the partition table")?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::command;

    #[test]
    fn reads_what_sfdisk_writes() {
        let directory = crate::tempdir().unwrap();
        let disk = Disk::create(&directory.path().join("disk"), 16).unwrap();
        assert_eq!(partitions(&disk).unwrap(), []);
        let script = b"label: gpt\nsize=1MiB, name=\"one\"\nsize=2MiB, name=\"two\"\n";
        command::filter(Command::new("sfdisk").arg("--quiet").arg(&disk.path), script).unwrap();
        let expected = [("one", 1 << 20, 1 << 20), ("two", 2 << 20, 2 << 20)];
        let expected = expected.map(|(name, start_bytes, size_bytes)| Partition {
            name: name.into(),
            start_bytes,
            size_bytes,
        });
        assert_eq!(partitions(&disk).unwrap(), expected);
    }
}
