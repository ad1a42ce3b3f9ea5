//! Whether a filesystem was left in order: unmounted, its journal empty, no error noted in it.
//!
//! Read from superblocks and, for XFS, from the head of its log, as the kernel's own mount does. Nothing is repaired.

use std::io::{Read, Seek};

use super::FilesystemError;
use super::bytes::{array, le16, le32, read_up_to};

/// The largest XFS log that is searched for its head: the kernel allows 2 GiB, mkfs makes 64 MiB for disks up to 1 TiB or so.
const MAX_XFS_LOG_BYTES: u64 = 256 << 20;
const XFS_BLOCK: usize = 512;
const XFS_LOG_MAGIC: [u8; 4] = [0xfe, 0xed, 0xba, 0xbe];

/// How a filesystem was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In order.
    Clean,
    /// Not in order, and why.
    Unclean(&'static str),
    /// This can't be told, and why.
    Unknown(&'static str),
}

/// Tells how the filesystem `kind` (by `blkid`'s name) on `device` was left.
pub fn condition<R: Read + Seek>(device: &mut R, kind: &str) -> Result<Condition, FilesystemError> {
    match kind {
        "ext2" | "ext3" | "ext4" => Ok(ext(&read_up_to(device, 1024, 1024)?)),
        "xfs" => xfs(device),
        "btrfs" => Ok(btrfs(&read_up_to(device, 0x10000, 4096)?)),
        _ => Ok(Condition::Unknown("only ext4, XFS and Btrfs can be asked")),
    }
}

fn ext(superblock: &[u8]) -> Condition {
    const VALID: u16 = 1;
    const ERRORS: u16 = 2;
    const NEEDS_RECOVERY: u32 = 4;
    let state = le16(superblock, 0x3a);
    if state & ERRORS != 0 {
        Condition::Unclean("errors were found in it: run fsck")
    } else if state & VALID == 0 {
        Condition::Unclean("it was not unmounted")
    } else if le32(superblock, 0x60) & NEEDS_RECOVERY != 0 {
        Condition::Unclean("its journal is not empty: it was not unmounted")
    } else {
        Condition::Clean
    }
}

fn btrfs(superblock: &[u8]) -> Condition {
    if array(superblock, 0x60) == [0_u8; 8] {
        Condition::Clean
    } else {
        Condition::Unclean("its log is not empty: it was not unmounted")
    }
}

/// Where the log of an XFS is, in bytes.
struct XfsLog {
    start: u64,
    length: u64,
}

fn be32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes(array(bytes, offset))
}

fn xfs<R: Read + Seek>(device: &mut R) -> Result<Condition, FilesystemError> {
    const NEEDS_REPAIR: u32 = 1 << 4;
    let superblock = read_up_to(device, 0, 512)?;
    if superblock.get(126) != Some(&0) {
        return Ok(Condition::Unclean("mkfs did not finish"));
    }
    if be32(&superblock, 216) & NEEDS_REPAIR != 0 {
        return Ok(Condition::Unclean("errors were found in it: run xfs_repair"));
    }
    let log = match XfsLog::of(&superblock)? {
        Some(log) if log.length <= MAX_XFS_LOG_BYTES => log,
        Some(_) => return Ok(Condition::Unknown("its log is too large to be searched")),
        None => return Ok(Condition::Unknown("its log is on another device")),
    };
    let blocks = read_up_to(device, log.start, log.length as usize)?;
    Ok(match ends_with_unmount(&blocks) {
        Some(true) => Condition::Clean,
        Some(false) => Condition::Unclean("its log is not empty: it was not unmounted"),
        None => Condition::Unclean("its log has no head"),
    })
}

impl XfsLog {
    /// `None` when it is external.
    fn of(superblock: &[u8]) -> Result<Option<Self>, FilesystemError> {
        let unsound = || FilesystemError::Unsound {
            kind: "XFS",
            problem: "its log is outside of it".into(),
        };
        let first = u64::from_be_bytes(array(superblock, 48));
        if first == 0 {
            return Ok(None);
        }
        let block_bytes = u64::from(be32(superblock, 4));
        let (group_blocks, group_shift) = (u64::from(be32(superblock, 84)), superblock[124]);
        let group = first.checked_shr(group_shift.into()).ok_or_else(unsound)?;
        let block = group
            .checked_mul(group_blocks)
            .and_then(|blocks| blocks.checked_add(first - (group << group_shift)))
            .ok_or_else(unsound)?;
        let start = block.checked_mul(block_bytes).ok_or_else(unsound)?;
        let length = u64::from(be32(superblock, 96)) * block_bytes;
        Ok(Some(Self { start, length }))
    }
}

/// Whether the newest record of the log says that the filesystem was unmounted. `None` when there is no record.
///
/// Every block's first word is replaced by a cycle number in what follows a header, so the magic number marks headers alone.
fn ends_with_unmount(log: &[u8]) -> Option<bool> {
    const LARGE_HEADER_BYTES: u32 = 32 << 10;
    const UNMOUNT: u8 = 0x20;
    let (blocks, _) = log.as_chunks::<XFS_BLOCK>();
    let headers = blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.starts_with(&XFS_LOG_MAGIC));
    // The sequence number: a cycle, and the block in the log.
    let (index, head) = headers.max_by_key(|(_, block)| u64::from_be_bytes(array(&block[..], 16)))?;
    let header_blocks = match be32(head, 8) {
        // Version 2 takes a block for every 32 KiB of a record.
        2 => be32(head, 320).div_ceil(LARGE_HEADER_BYTES).max(1),
        _ => 1,
    };
    let operation = blocks.get((index + header_blocks as usize) % blocks.len())?;
    Some(be32(head, 40) == 1 && operation[9] & UNMOUNT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_flags_of_ext4_decide() {
        for (state, incompatible, expected) in [
            (1_u16, 0_u32, Condition::Clean),
            (1, 0x40, Condition::Clean),
            (0, 0, Condition::Unclean("it was not unmounted")),
            (3, 0, Condition::Unclean("errors were found in it: run fsck")),
            (
                1,
                4,
                Condition::Unclean("its journal is not empty: it was not unmounted"),
            ),
        ] {
            let mut disk = vec![0; 4096];
            disk[1024 + 0x3a..1024 + 0x3c].copy_from_slice(&state.to_le_bytes());
            disk[1024 + 0x60..1024 + 0x64].copy_from_slice(&incompatible.to_le_bytes());
            assert_eq!(condition(&mut Cursor::new(disk), "ext4").unwrap(), expected);
        }
    }

    #[test]
    fn lies_about_the_log_of_xfs_are_no_panic() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            for offset in 0..512 {
                let mut disk = vec![0; 1 << 16];
                disk[7] = 1;
                disk[48..56].fill(1);
                disk[offset] = value;
                disk[99] = value;
                let _ = condition(&mut Cursor::new(disk), "xfs");
            }
        }
        assert_eq!(ends_with_unmount(&[0; 1024]), None);
        assert_eq!(ends_with_unmount(&XFS_LOG_MAGIC.repeat(128)), Some(false));
    }
}
