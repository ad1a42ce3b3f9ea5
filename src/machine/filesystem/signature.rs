//! What is on a disk or partition, recognised by magic numbers at fixed places (as `libblkid` and `wipefs`
//! know them).
//!
//! Enough to say what would be lost and to recognise a root file system; not a proof that the contents are
//! sound.

use std::fmt;
use std::io::{self, Read, Seek};

use serde::Serialize;

use super::bytes::{array, read_up_to, text};
use super::fat::{Volume, if_sound};

/// A file system, volume manager, RAID or encryption that was recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// What it is, by the name that `blkid` uses, e.g. `ext4`, `crypto_LUKS`, `LVM2_member`.
    pub kind: &'static str,
    pub label: Option<String>,
    pub uuid: Option<String>,
}

impl Signature {
    /// Whether readers of config drives (cloud-init, Ignition) would take this for one.
    pub fn is_config_drive(&self) -> bool {
        let label = self.label.as_deref().unwrap_or_default();
        matches!(self.kind, "vfat" | "iso9660") && label.eq_ignore_ascii_case("config-2")
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            // It is untrusted text on its way to a terminal.
            Some(label) => write!(out, "{} \"{}\"", self.kind, label.escape_debug()),
            None => out.write_str(self.kind),
        }
    }
}

#[derive(Clone, Copy)]
enum At {
    /// So many bytes from the start.
    Start(u64),
    /// This many bytes before the end, after rounding the size down to a multiple.
    End { before: u64, multiple: u64 },
}

impl At {
    fn offset(self, size_bytes: u64) -> Option<u64> {
        match self {
            Self::Start(offset) => Some(offset),
            Self::End { before, multiple } => (size_bytes / multiple * multiple).checked_sub(before),
        }
    }
}

/// Where a superblock, which begins at `at`, keeps what.
struct Magic {
    kind: &'static str,
    at: At,
    /// The offset of the magic number in the superblock, and the number.
    magic: (usize, &'static [u8]),
    /// Offset and length of the label.
    label: Option<(usize, usize)>,
    /// Offset of the 16 bytes of the UUID.
    uuid: Option<usize>,
}

const fn row(kind: &'static str, at: u64, offset: usize, magic: &'static [u8]) -> Magic {
    Magic {
        kind,
        at: At::Start(at),
        magic: (offset, magic),
        label: None,
        uuid: None,
    }
}

const fn tail(kind: &'static str, before: u64, multiple: u64, magic: &'static [u8]) -> Magic {
    Magic {
        at: At::End { before, multiple },
        ..row(kind, 0, 0, magic)
    }
}

impl Magic {
    const fn labelled(mut self, offset: usize, length: usize) -> Self {
        self.label = Some((offset, length));
        self
    }

    const fn with_uuid(mut self, offset: usize) -> Self {
        self.uuid = Some(offset);
        self
    }
}

const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
/// The longest part of a superblock that a row of the table looks at.
const SUPERBLOCK_BYTES: usize = 4096 + 64;

#[rustfmt::skip]
const MAGICS: &[Magic] = &[
    row("xfs", 0, 0, b"XFSB").labelled(108, 12).with_uuid(32),
    row("btrfs", 0x10000, 0x40, b"_BHRfS_M").labelled(0x12b, 256).with_uuid(0x20),
    row("f2fs", 1024, 0, &[0x10, 0x20, 0xf5, 0xf2]).with_uuid(108),
    row("squashfs", 0, 0, b"hsqs"),
    row("erofs", 1024, 0, &[0xe2, 0xe1, 0xf5, 0xe0]).labelled(64, 16).with_uuid(48),
    row("bcachefs", 4096, 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    row("bcache", 4096, 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    row("ntfs", 0, 3, b"NTFS    "),
    row("exfat", 0, 3, b"EXFAT   "),
    row("ReFS", 0, 3, b"ReFS\0\0\0\0"),
    row("BitLocker", 0, 3, b"-FVE-FS-"),
    row("apfs", 0, 32, b"NXSB"),
    row("hfsplus", 1024, 0, b"H+\0\x04"),
    row("gfs2", 0x10000, 0, &[0x01, 0x16, 0x19, 0x70]).labelled(0xa0, 64).with_uuid(0x100),
    row("ocfs2", 4096, 0, b"OCFSV2"),
    row("jfs", 0x8000, 0, b"JFS1").labelled(152, 16).with_uuid(136),
    row("reiserfs", 0x10000, 52, b"ReIsEr2Fs").labelled(100, 16).with_uuid(84),
    row("reiserfs", 0x10000, 52, b"ReIsErFs"),
    row("reiserfs", 0x10000, 52, b"ReIsEr3Fs").labelled(100, 16).with_uuid(84),
    row("oracleasm", 0, 32, b"ORCLDISK").labelled(40, 24),
    row("stratis", 512, 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    row("vdo", 0, 0, b"dmvdo001"),
    row("DM_integrity", 0, 0, b"integrt\0"),
    row("ceph_bluestore", 0, 0, b"bluestore block device"),
    row("VMFS_volume_member", 0x100000, 0, &[0x0d, 0xd0, 0x01, 0xc0]),
    row("drbd", 4096, 60, &[0x83, 0x74, 0x02, 0x6b]),
    row("swap", 0, 4086, b"SWAPSPACE2").labelled(1052, 16).with_uuid(1036),
    row("LVM2_member", 0, 0, b"LABELONE"),
    row("LVM2_member", 512, 0, b"LABELONE"),
    row("LVM2_member", 1024, 0, b"LABELONE"),
    row("LVM2_member", 1536, 0, b"LABELONE"),
    row("linux_raid_member", 0, 0, MD).labelled(32, 32).with_uuid(16),
    row("linux_raid_member", 4096, 0, MD).labelled(32, 32).with_uuid(16),
    tail("linux_raid_member", 8192, 4096, MD).labelled(32, 32).with_uuid(16),
    tail("linux_raid_member", 65536, 65536, MD),
    tail("isw_raid_member", 1024, 512, b"Intel Raid ISM Cfg Sig. "),
    tail("ddf_raid_member", 512, 512, &[0xde, 0x11, 0xde, 0x11]),
];

/// Last of all: it leaves room for another before it.
const ISO_9660: Magic = row("iso9660", 0x8000, 0, b"\x01CD001").labelled(40, 32);

/// Everything recognised on `from`, which is `size_bytes` long. Partition tables are not among it.
pub fn identify<R: Read + Seek>(from: &mut R, size_bytes: u64) -> io::Result<Vec<Signature>> {
    let mut found: Vec<Signature> = Vec::new();
    for magic in MAGICS {
        let Some(offset) = magic.at.offset(size_bytes) else {
            continue;
        };
        let superblock = read_up_to(from, offset, SUPERBLOCK_BYTES)?;
        if let Some(signature) = magic.matches(&superblock)
            && !found.contains(&signature)
        {
            found.push(signature);
        }
    }
    found.extend(luks(&read_up_to(from, 0, 512)?));
    found.extend(ext(&read_up_to(from, 1024, 1024)?));
    found.extend(zfs(from)?);
    found.extend(fat(from)?);
    found.extend(ISO_9660.matches(&read_up_to(from, 0x8000, SUPERBLOCK_BYTES)?));
    Ok(found)
}

impl Magic {
    fn matches(&self, superblock: &[u8]) -> Option<Signature> {
        let (offset, magic) = self.magic;
        if !superblock.get(offset..)?.starts_with(magic) {
            return None;
        }
        Some(Signature {
            kind: self.kind,
            label: self.label.and_then(|(at, length)| text(superblock, at, length)),
            uuid: self.uuid.map(|offset| uuid_at(superblock, offset)),
        })
    }
}

fn uuid_at(bytes: &[u8], offset: usize) -> String {
    uuid::Uuid::from_bytes(array(bytes, offset)).to_string()
}

/// LUKS keeps its UUID as text, and a label from version 2 on.
fn luks(header: &[u8]) -> Option<Signature> {
    header.starts_with(b"LUKS\xba\xbe").then(|| Signature {
        kind: "crypto_LUKS",
        label: (array(header, 6) == [0, 2])
            .then(|| text(header, 24, 48))
            .flatten(),
        uuid: text(header, 168, 40),
    })
}

/// ext2, ext3 and ext4 have one magic number; their features tell them apart (as `libblkid` does it).
fn ext(superblock: &[u8]) -> Option<Signature> {
    const HAS_JOURNAL: u32 = 0x4;
    const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x10;
    if array(superblock, 0x38) != [0x53, 0xef] {
        return None;
    }
    let compatible = u32::from_le_bytes(array(superblock, 0x5c));
    let incompatible = u32::from_le_bytes(array(superblock, 0x60));
    let read_only_compatible = u32::from_le_bytes(array(superblock, 0x64));
    let kind = if incompatible & !EXT3_INCOMPATIBLE != 0 || read_only_compatible & !0x7 != 0 {
        "ext4"
    } else if compatible & HAS_JOURNAL != 0 {
        "ext3"
    } else {
        "ext2"
    };
    Some(Signature {
        kind,
        label: text(superblock, 0x78, 16),
        uuid: Some(uuid_at(superblock, 0x68)),
    })
}

/// FAT has no magic number: it is one if its boot sector makes sense.
fn fat<R: Read + Seek>(from: &mut R) -> io::Result<Option<Signature>> {
    let Some(mut volume) = if_sound(Volume::open(from))? else {
        return Ok(None);
    };
    let uuid = volume.serial();
    Ok(Some(Signature {
        kind: "vfat",
        uuid: uuid.map(|serial| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)),
        label: volume.label()?,
    }))
}

/// ZFS writes uberblocks, each with a magic number, into the second half of its first label (128 KiB to 256
/// KiB).
fn zfs<R: Read + Seek>(from: &mut R) -> io::Result<Option<Signature>> {
    const UBERBLOCK: usize = 1024;
    let labels = read_up_to(from, 128 * 1024, 128 * 1024)?;
    let is_uberblock = |block: &[u8]| {
        let magic = u64::from_le_bytes(array(block, 0));
        magic == 0x00ba_b10c || magic.swap_bytes() == 0x00ba_b10c
    };
    let found = labels.chunks(UBERBLOCK).any(is_uberblock);
    Ok(found.then_some(Signature {
        kind: "zfs_member",
        label: None,
        uuid: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SIZE: usize = 2 << 20;

    fn disk_with(offset: usize, bytes: &[u8]) -> Vec<Signature> {
        let mut disk = vec![0; SIZE];
        disk[offset..offset + bytes.len()].copy_from_slice(bytes);
        identify(&mut Cursor::new(disk), SIZE as u64).unwrap()
    }

    #[test]
    fn every_row_of_the_table_is_found_where_it_says() {
        for row in MAGICS {
            let offset = row.at.offset(SIZE as u64).unwrap() as usize + row.magic.0;
            let found = disk_with(offset, row.magic.1);
            assert_eq!(found.len(), 1, "{} at {offset}", row.kind);
            assert_eq!(found[0].kind, row.kind);
        }
    }

    #[test]
    fn zeros_and_short_devices_hold_nothing() {
        for size in [0, 1, 511, 512, 4096, 65535, SIZE] {
            assert_eq!(
                identify(&mut Cursor::new(vec![0; size]), size as u64).unwrap(),
                []
            );
        }
    }

    #[test]
    fn zfs_is_known_in_both_byte_orders() {
        for magic in [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()] {
            assert_eq!(disk_with(128 * 1024 + 5 * 1024, &magic)[0].kind, "zfs_member");
        }
    }

    #[test]
    fn a_label_cannot_steer_a_terminal() {
        let signature = Signature {
            kind: "xfs",
            label: Some("\u{1b}[2J".into()),
            uuid: None,
        };
        assert_eq!(signature.to_string(), "xfs \"\\u{1b}[2J\"");
    }
}
