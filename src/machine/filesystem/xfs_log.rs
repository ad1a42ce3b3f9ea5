//! The log of an XFS: whether its newest record says that the filesystem was unmounted (`fs/xfs/xfs_log_recover.c`).
//!
//! A log has up to 2 GiB, nearly all of it old or never written. So it is not read from end to end: the place where the
//! newest writes end is found by bisection, as the kernel's own mount does it, and only what is around it is read.

use std::io::{self, Read, Seek};

use super::FilesystemError;
use super::bytes::{array, be32, read_up_to};

const BLOCK_BYTES: u64 = 512;
const MAGIC: [u8; 4] = [0xfe, 0xed, 0xba, 0xbe];
/// As far as the kernel writes ahead of what has arrived: eight buffers of 256 KiB, which may arrive in any order.
const IN_FLIGHT_BLOCKS: u64 = 8 * (256 << 10) / BLOCK_BYTES;

/// Where the log is.
pub(super) struct Log {
    start_bytes: u64,
    blocks: u64,
}

impl Log {
    /// The log of the filesystem with this superblock; `None` when it is on another device.
    pub(super) fn of(superblock: &[u8]) -> Result<Option<Self>, FilesystemError> {
        let first = u64::from_be_bytes(array(superblock, 48));
        if first == 0 {
            return Ok(None);
        }
        let inside = Self::inside(superblock, first);
        inside.map(Some).ok_or_else(|| FilesystemError::Unsound {
            kind: "XFS",
            problem: "its log is outside of it".into(),
        })
    }

    /// `first` is a number of an allocation group, and of a block in it.
    fn inside(superblock: &[u8], first: u64) -> Option<Self> {
        let block_bytes = u64::from(be32(superblock, 4));
        let (group_blocks, group_shift) = (u64::from(be32(superblock, 84)), array::<1>(superblock, 124)[0]);
        let group = first.checked_shr(group_shift.into())?;
        let block = group
            .checked_mul(group_blocks)?
            .checked_add(first - (group << group_shift))?;
        let start_bytes = block.checked_mul(block_bytes)?;
        let length_bytes = u64::from(be32(superblock, 96)) * block_bytes;
        start_bytes.checked_add(length_bytes)?;
        let blocks = length_bytes / BLOCK_BYTES;
        (blocks > 0).then_some(Self { start_bytes, blocks })
    }

    /// Whether the newest record says that the filesystem was unmounted. `None` when there is no record.
    ///
    /// In what follows a header, every block's first word is replaced by a cycle number, so the magic number marks headers
    /// alone.
    pub(super) fn ends_with_unmount<R: Read + Seek>(&self, device: &mut R) -> io::Result<Option<bool>> {
        const UNMOUNT: u8 = 0x20;
        // What was found may be the far end of the writes in flight, and the newest record may be the one before them all.
        let behind = self.blocks.min(2 * IN_FLIGHT_BLOCKS);
        let first = self.end_of_cycle(device)? + self.blocks - behind;
        let around = self.read(device, first, self.blocks.min(behind + IN_FLIGHT_BLOCKS))?;
        let (blocks, _) = around.as_chunks::<{ BLOCK_BYTES as usize }>();
        let headers = blocks
            .iter()
            .zip(first..)
            .filter(|(block, _)| block.starts_with(&MAGIC));
        // The sequence number: a cycle, and the block in the log.
        let newest = headers.max_by_key(|(block, _)| u64::from_be_bytes(array(&block[..], 16)));
        let Some((header, at)) = newest else {
            return Ok(None);
        };
        let operation = self.read(device, at + header_blocks(header), 1)?;
        let is_single = be32(header, 40) == 1;
        Ok(Some(is_single && array::<1>(&operation, 9)[0] & UNMOUNT != 0))
    }

    /// The block where the writes of the log's newest cycle end. Where some of the last ones did not arrive it is one of
    /// several such places, no further from each other than what was in flight.
    ///
    /// The log is written round and round, each round with the next cycle number in its blocks. So all blocks up to there
    /// have the first one's cycle, and those beyond have the one before, or none if they were never written.
    fn end_of_cycle<R: Read + Seek>(&self, device: &mut R) -> io::Result<u64> {
        let newest = self.cycle(device, 0)?;
        let (mut inside, mut beyond) = (0, self.blocks);
        while beyond - inside > 1 {
            let middle = inside.midpoint(beyond);
            if self.cycle(device, middle)? == newest {
                inside = middle;
            } else {
                beyond = middle;
            }
        }
        Ok(beyond)
    }

    fn cycle<R: Read + Seek>(&self, device: &mut R, block: u64) -> io::Result<u32> {
        let block = self.read(device, block, 1)?;
        Ok(be32(&block, if block.starts_with(&MAGIC) { 4 } else { 0 }))
    }

    /// Reads `count` blocks from `first` on; behind the log's last block comes its first one.
    fn read<R: Read + Seek>(&self, device: &mut R, first: u64, count: u64) -> io::Result<Vec<u8>> {
        let first = first % self.blocks;
        let before_end = count.min(self.blocks - first);
        let mut read = |block: u64, count: u64| {
            read_up_to(
                device,
                self.start_bytes + block * BLOCK_BYTES,
                (count * BLOCK_BYTES) as usize,
            )
        };
        let mut bytes = read(first, before_end)?;
        bytes.extend(read(0, count - before_end)?);
        Ok(bytes)
    }
}

/// Version 2 takes a header's block for every 32 KiB of a record.
fn header_blocks(header: &[u8]) -> u64 {
    const LARGE_HEADER_BYTES: u32 = 32 << 10;
    match be32(header, 8) {
        2 => be32(header, 320).div_ceil(LARGE_HEADER_BYTES).max(1).into(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::random::Random;
    use std::io::{Cursor, SeekFrom};

    /// Blocks from one header to the next.
    const RECORD: u64 = 64;

    /// A log that the kernel is in the `cycle`th round of, up to `head`; the blocks of `lost` records are still those of the
    /// round before. `kind` is that of the newest record that is not lost.
    fn log(blocks: u64, cycle: u32, head: u64, lost: &[u64], kind: u8) -> Vec<u8> {
        let mut log = vec![0; (blocks * BLOCK_BYTES) as usize];
        let newest = (0..).map(|back| (head + blocks - RECORD * (back + 1)) % blocks);
        let newest = newest.take(64).find(|record| !lost.contains(record)).unwrap();
        for (block, bytes) in (0..blocks).zip(log.chunks_exact_mut(BLOCK_BYTES as usize)) {
            let record = block / RECORD * RECORD;
            let is_old = block >= head;
            let cycle = cycle - u32::from(is_old) - u32::from(lost.contains(&record));
            bytes[..4].copy_from_slice(&cycle.to_be_bytes());
            if block == record && cycle > 0 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..8].copy_from_slice(&cycle.to_be_bytes());
                bytes[16..20].copy_from_slice(&cycle.to_be_bytes());
                bytes[20..24].copy_from_slice(&(block as u32).to_be_bytes());
                bytes[43] = 1;
            } else if block == newest + 1 {
                bytes[9] = kind;
            } else {
                // What old blocks say is not to be believed.
                bytes[9] = 0x20 - kind;
            }
        }
        log
    }

    fn ends_with_unmount(log: Vec<u8>) -> Option<bool> {
        let blocks = log.len() as u64 / BLOCK_BYTES;
        let place = Log {
            start_bytes: 0,
            blocks,
        };
        place.ends_with_unmount(&mut Cursor::new(log)).unwrap()
    }

    #[test]
    fn the_newest_record_decides_wherever_it_is_and_whatever_was_lost_around_it() {
        const BLOCKS: u64 = 5 * IN_FLIGHT_BLOCKS;
        let mut random = Random::new(9);
        for head in [
            RECORD,
            2 * RECORD,
            IN_FLIGHT_BLOCKS,
            9 * RECORD + BLOCKS / 2,
            BLOCKS - RECORD,
            BLOCKS,
        ] {
            for cycle in [1, 2, 7] {
                for lost in 0..4 {
                    // The round before has no end in a log of one round.
                    let reach =
                        if cycle == 1 { head } else { IN_FLIGHT_BLOCKS }.min(IN_FLIGHT_BLOCKS) / RECORD;
                    let lost = (0..lost * 8).map(|_| 1 + random.below(reach));
                    let lost: Vec<u64> = lost
                        .filter(|back| cycle > 1 || back * RECORD < head)
                        .map(|back| (head + BLOCKS - back * RECORD) % BLOCKS)
                        .collect();
                    for kind in [0, 0x20] {
                        let found = ends_with_unmount(log(BLOCKS, cycle, head, &lost, kind));
                        assert_eq!(found, Some(kind != 0), "cycle {cycle} to {head} without {lost:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn logs_without_sense_are_no_panic() {
        assert_eq!(ends_with_unmount(vec![0; 1024]), None);
        assert_eq!(ends_with_unmount(MAGIC.repeat(128)), Some(false));
    }

    /// Counts what is read.
    struct Counting(Cursor<Vec<u8>>, u64);

    impl Read for Counting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1 += read as u64;
            Ok(read)
        }
    }

    impl Seek for Counting {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn little_of_a_large_log_is_read() {
        let blocks = 50 * IN_FLIGHT_BLOCKS;
        let place = Log {
            start_bytes: 0,
            blocks,
        };
        let mut device = Counting(Cursor::new(log(blocks, 1, 99 * RECORD, &[], 0x20)), 0);
        assert_eq!(place.ends_with_unmount(&mut device).unwrap(), Some(true));
        assert!(device.1 < 8 << 20, "{} bytes were read", device.1);
    }
}
