//! Whether anything was written to a disk since it was claimed.
//!
//! The kernel counts what is written to a disk and to its partitions. Some drivers don't count, so what tells
//! what is on the disk is compared, too: its ends and those of its partitions, where tables and superblocks
//! are.

use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result};

use super::contents::Contents;
use super::device::Disk;
use crate::machine::disk::find::sysfs::{attribute, flag, kernel_partitions};
use crate::machine::disk::table::geometry::{Geometry, MIB};
use crate::sys::block::{self, Region};

/// A disk at one moment. Two that are equal mean that nothing was written in between.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Requests to write and to discard that the kernel has counted; `None` where it doesn't.
    writes: Option<u64>,
    /// The hash of the ends.
    digest: Vec<u8>,
    /// Where they are: begins and lengths in bytes.
    ends: Vec<(u64, u64)>,
}

impl Fingerprint {
    /// Takes it of a disk that holds `contents`.
    pub(super) fn take(disk: &Disk, contents: &Contents) -> Result<Self> {
        Self::of_ends(disk, ends(contents, &disk.geometry))
    }

    /// Whether `disk` is still as it was.
    pub(super) fn fits(&self, disk: &Disk) -> Result<bool> {
        Ok(*self == Self::of_ends(disk, self.ends.clone())?)
    }

    fn of_ends(disk: &Disk, ends: Vec<(u64, u64)>) -> Result<Self> {
        let path = disk.node.display();
        let file = disk.open().with_context(|| format!("open(\"{path}\")"))?;
        // What is only in memory is neither counted nor read. Partitions have memory of their own.
        for partition in kernel_partitions(&disk.sysfs())? {
            let node = disk.partition_node(partition.partition);
            match std::fs::File::open(&node) {
                Ok(partition) => block::flush_buffers(&partition)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("open(\"{}\")", node.display())),
            }
        }
        block::flush_buffers(&file)?;
        let mut whole = Region::new(&file, 0, disk.geometry.size_bytes);
        let digest = digest_of(&mut whole, &ends).with_context(|| format!("read(\"{path}\")"))?;
        Ok(Self {
            writes: writes(disk),
            digest,
            ends,
        })
    }
}

/// The first and the last mebibyte of `length` bytes from `start` on: boot sector, both copies of a GPT,
/// superblocks.
pub fn ends_of(start: u64, length: u64) -> [(u64, u64); 2] {
    let end = MIB.min(length);
    [(start, end), (start + length - end, end)]
}

fn ends(contents: &Contents, geometry: &Geometry) -> Vec<(u64, u64)> {
    let mut ends = ends_of(0, geometry.size_bytes).to_vec();
    for partition in &contents.partitions {
        let (start, length) = partition.extent.bytes(geometry);
        let start = start.min(geometry.size_bytes);
        ends.extend(ends_of(start, length.min(geometry.size_bytes - start)));
    }
    ends
}

fn digest_of<D: Read + Seek>(disk: &mut D, ranges: &[(u64, u64)]) -> std::io::Result<Vec<u8>> {
    let mut hasher = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; MIB as usize];
    for (start, length) in ranges {
        let bytes = &mut buffer[..*length as usize];
        disk.seek(SeekFrom::Start(*start))?;
        disk.read_exact(bytes)?;
        hasher.update(bytes);
    }
    Ok(hasher.finish().as_ref().into())
}

fn writes(disk: &Disk) -> Option<u64> {
    let sysfs = disk.sysfs();
    let counts = flag(&sysfs.join("queue/iostats"));
    counts.then(|| writes_in(&attribute(&sysfs.join("stat"))?))?
}

/// The fifth and, since Linux 4.18, the twelfth number (Documentation/block/stat.rst).
fn writes_in(stat: &str) -> Option<u64> {
    let numbers = stat.split_whitespace().map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    Some(numbers.get(4)? + numbers.get(11).unwrap_or(&0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::chosen::contents::OldPartition;
    use crate::machine::disk::table::geometry::Extent;
    use std::io::Cursor;

    #[test]
    fn the_ends_stay_on_the_disk() {
        assert_eq!(ends_of(0, 10 * MIB + 5), [(0, MIB), (9 * MIB + 5, MIB)]);
        assert_eq!(ends_of(7, 1024), [(7, 1024), (7, 1024)]);
    }

    #[test]
    fn a_change_at_the_end_of_a_partition_is_seen() {
        let geometry = Geometry::plain(10 * MIB, 512);
        let partition = |start_lba, sectors| OldPartition {
            number: 1,
            name: None,
            extent: Extent { start_lba, sectors },
            size_bytes: 0,
            signatures: Vec::new(),
        };
        // The second lies: it has an end that is not on the disk.
        let contents = Contents {
            partitions: vec![partition(6144, 6144), partition(14_336, 1 << 40)],
            ..Contents::default()
        };
        let ends = ends(&contents, &geometry);
        let mut disk = vec![0; 10 * MIB as usize];
        let before = digest_of(&mut Cursor::new(&disk), &ends).unwrap();
        for (at_mib, seen) in [
            (0, true),
            (2, false),
            (3, true),
            (4, false),
            (5, true),
            (7, true),
            (9, true),
        ] {
            let at = at_mib * MIB as usize + 5000;
            disk[at] = 1;
            let after = digest_of(&mut Cursor::new(&disk), &ends).unwrap();
            assert_eq!(after != before, seen, "{at_mib} MiB");
            disk[at] = 0;
        }
    }

    #[test]
    fn writes_and_discards_are_counted() {
        let old = "2 0 40 3 17 2032 16384 140 0 40 157";
        assert_eq!(writes_in(old), Some(17));
        assert_eq!(writes_in(&format!("{old} 4 0 8 1 9 13")), Some(21));
        assert_eq!(writes_in(""), None);
        assert_eq!(writes_in("1 2 3 4 x"), None);
    }
}
