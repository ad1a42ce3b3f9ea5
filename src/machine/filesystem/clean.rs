//! Whether a file system was left clean: unmounted, its journal empty, no error noted in it.
//!
//! Read from superblocks alone. XFS's does not say whether the log is empty. Nothing is repaired.

use std::io::{Read, Seek};

use super::FilesystemError;
use super::bytes::{array, le16, le32, read_up_to};

/// How a file system was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In order.
    Clean,
    /// Not in order, and why.
    Unclean(&'static str),
    /// This can't be told, and why.
    Unknown(&'static str),
}

/// Tells how the file system `kind` (by `blkid`'s name) on `device` was left.
pub fn condition<R: Read + Seek>(device: &mut R, kind: &str) -> Result<Condition, FilesystemError> {
    match kind {
        "ext2" | "ext3" | "ext4" => Ok(ext(&read_up_to(device, 1024, 1024)?)),
        "xfs" => Ok(xfs(&read_up_to(device, 0, 512)?)),
        "btrfs" => Ok(btrfs(&read_up_to(device, 0x10000, 4096)?)),
        _ => Ok(Condition::Unknown("only ext4, XFS and Btrfs can be checked")),
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

fn xfs(superblock: &[u8]) -> Condition {
    const NEEDS_REPAIR: u32 = 1 << 4;
    if superblock.get(126) != Some(&0) {
        Condition::Unclean("mkfs did not finish")
    } else if u32::from_be_bytes(array(superblock, 216)) & NEEDS_REPAIR != 0 {
        Condition::Unclean("errors were found in it: run xfs_repair")
    } else {
        Condition::Unknown("only its log, which only the kernel reads, shows whether it was unmounted")
    }
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
    fn the_superblock_of_xfs_tells_what_is_wrong_but_not_that_all_is_well() {
        for (offset, value, is_unclean) in [(0, 0, false), (126, 1, true), (219, 0x10, true), (219, 8, false)]
        {
            let mut disk = vec![0; 4096];
            disk[offset] = value;
            match condition(&mut Cursor::new(disk), "xfs").unwrap() {
                Condition::Unclean(_) => assert!(is_unclean, "byte {offset} = {value}"),
                Condition::Unknown(_) => assert!(!is_unclean, "byte {offset} = {value}"),
                Condition::Clean => panic!("clean with byte {offset} = {value}"),
            }
        }
    }
}
