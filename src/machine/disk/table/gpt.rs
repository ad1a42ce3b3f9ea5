//! The GUID Partition Table (UEFI 2.10, chapter 5) on anything that reads, writes and seeks.
//!
//! `gptman` knows the bytes of headers and entries; this module knows what is sound. Every field is checked
//! before it is used, because the crate panics on entry sizes it does not know and allocates what a header
//! asks for.

mod copy;

use std::io::{self, Read, Seek, SeekFrom, Write};

use gptman::{GPTHeader, GPTPartitionEntry};
use serde::Serialize;
use uuid::Uuid;

use super::geometry::{Extent, Geometry};
use super::mbr;
use crate::sys::block::Durable;
use copy::{Copy, PRIMARY_ARRAY_LBA, PRIMARY_LBA, Unsound, array_sectors};

/// Why a partition table can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    #[error("partition table: {0}")]
    Io(#[from] io::Error),
    #[error("partition table: the primary copy: {primary}; the backup copy: {backup}")]
    Damaged { primary: String, backup: String },
    #[error("partition table: no room for \"{name}\" at sectors {start} to {end}: {problem}")]
    NoRoom {
        name: String,
        start: u64,
        end: u64,
        problem: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    pub name: String,
    pub type_guid: Uuid,
    /// Its own GUID (`PARTUUID`).
    pub uuid: Uuid,
    pub extent: Extent,
}

/// A sound partition table.
#[derive(Clone, Debug)]
pub struct Table {
    geometry: Geometry,
    /// The primary header, also when only the backup could be read.
    header: GPTHeader,
    entries: Vec<GPTPartitionEntry>,
    in_order: bool,
}

impl Table {
    /// Reads the table of a disk; `None` when neither end has one, or an MBR has taken its place.
    pub fn read<D: Read + Seek>(disk: &mut D, geometry: Geometry) -> Result<Option<Self>, GptError> {
        let Some(last_lba) = geometry.sectors().checked_sub(1) else {
            return Ok(None);
        };
        if mbr::rules_out_gpt(disk, &geometry)? {
            return Ok(None);
        }
        let primary = Copy::read(disk, geometry, PRIMARY_LBA)?;
        // The backup belongs to the last sector; on a disk that grew it is where the primary says.
        let named = primary
            .as_ref()
            .ok()
            .map_or(last_lba, |copy| copy.header.backup_lba);
        let at_end = Copy::read(disk, geometry, last_lba)?;
        let backup = if at_end.is_err() && named != last_lba {
            Copy::read(disk, geometry, named)?
        } else {
            at_end
        };
        let whole = matches!(&backup, Ok(copy) if copy.header.primary_lba == last_lba);
        let table = match (primary, backup) {
            (Err(Unsound::Absent), Err(Unsound::Absent)) => return Ok(None),
            (Err(primary), Err(backup)) => {
                return Err(GptError::Damaged {
                    primary: primary.to_string(),
                    backup: backup.to_string(),
                });
            }
            (Ok(primary), backup) => {
                let same = backup.is_ok_and(|backup| backup.agrees_with(&primary));
                Self {
                    geometry,
                    header: primary.header,
                    entries: primary.entries,
                    in_order: whole && same,
                }
            }
            (Err(_), Ok(backup)) => Self::from_backup(geometry, backup),
        };
        let in_order = table.in_order && mbr::is_protective(disk, &geometry)?;
        Ok(Some(Self { in_order, ..table }))
    }

    fn from_backup(geometry: Geometry, backup: Copy) -> Self {
        let mut header = backup.header;
        header.backup_lba = header.primary_lba;
        header.primary_lba = PRIMARY_LBA;
        header.partition_entry_lba = PRIMARY_ARRAY_LBA;
        Self {
            geometry,
            header,
            entries: backup.entries,
            in_order: false,
        }
    }

    /// Whether both copies are sound, alike and where they belong, and the protective MBR covers the disk.
    pub fn is_in_order(&self) -> bool {
        self.in_order
    }

    /// The disk's GUID.
    pub fn disk_guid(&self) -> Uuid {
        Uuid::from_bytes_le(self.header.disk_guid)
    }

    /// The first sector that a partition may use.
    pub fn first_usable_lba(&self) -> u64 {
        self.header.first_usable_lba
    }

    /// The last sector that a partition may use.
    pub fn last_usable_lba(&self) -> u64 {
        self.header.last_usable_lba
    }

    /// The partitions, by number.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.entries
            .iter()
            .zip(1..)
            .filter(|(entry, _)| entry.is_used())
            .map(|(entry, number)| Partition {
                number,
                name: entry.partition_name.as_str().to_string(),
                type_guid: Uuid::from_bytes_le(entry.partition_type_guid),
                uuid: Uuid::from_bytes_le(entry.unique_partition_guid),
                extent: Extent {
                    start_lba: entry.starting_lba,
                    sectors: entry.ending_lba - entry.starting_lba + 1,
                },
            })
    }

    /// Moves the backup copy to the end of the disk and makes the sectors before it usable.
    pub fn relocate_backup(&mut self) {
        self.header.backup_lba = self.geometry.sectors() - 1;
        self.header.last_usable_lba = self.header.backup_lba - self.array_sectors() - 1;
    }

    /// Adds a partition in the first free entry.
    pub fn add(&mut self, name: &str, type_guid: Uuid, extent: Extent) -> Result<Partition, GptError> {
        let no_room = |problem: String| GptError::NoRoom {
            name: name.into(),
            start: extent.start_lba,
            end: extent.end_lba(),
            problem,
        };
        let usable = self.header.first_usable_lba..=self.header.last_usable_lba;
        if extent.sectors == 0
            || !usable.contains(&extent.start_lba)
            || !usable.contains(&(extent.end_lba() - 1))
        {
            return Err(no_room(format!(
                "sectors {} to {} can be used",
                usable.start(),
                usable.end()
            )));
        }
        let overlaps = |other: &Partition| {
            other.extent.start_lba < extent.end_lba() && extent.start_lba < other.extent.end_lba()
        };
        if let Some(other) = self.partitions().find(overlaps) {
            return Err(no_room(format!(
                "partition {} (\"{}\") is there",
                other.number,
                other.name.escape_debug()
            )));
        }
        let free = self.entries.iter().position(GPTPartitionEntry::is_unused);
        let free = free.ok_or_else(|| no_room("all entries of the table are taken".into()))?;
        self.entries[free] = GPTPartitionEntry {
            partition_type_guid: type_guid.to_bytes_le(),
            unique_partition_guid: Uuid::new_v4().to_bytes_le(),
            starting_lba: extent.start_lba,
            ending_lba: extent.end_lba() - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
        let added = self.partitions().find(|partition| partition.extent == extent);
        Ok(added.expect("the entry was just filled"))
    }

    /// Writes both copies, the backup to the end of the disk and first, each made durable before the next:
    /// one of them is sound at any moment.
    pub fn write<D: Read + Write + Seek + Durable>(&mut self, disk: &mut D) -> Result<(), GptError> {
        self.relocate_backup();
        let mut backup = self.header.clone();
        backup.primary_lba = self.header.backup_lba;
        backup.backup_lba = PRIMARY_LBA;
        backup.partition_entry_lba = self.header.backup_lba - self.array_sectors();
        write_copy(disk, &mut backup, &self.entries, &self.geometry)?;
        disk.make_durable()?;
        write_copy(disk, &mut self.header, &self.entries, &self.geometry)?;
        mbr::make_protective(disk, &self.geometry)?;
        disk.make_durable()?;
        self.in_order = true;
        Ok(())
    }

    fn array_sectors(&self) -> u64 {
        array_sectors(&self.header, &self.geometry)
    }
}

fn write_copy<D: Write + Seek>(
    disk: &mut D,
    header: &mut GPTHeader,
    entries: &[GPTPartitionEntry],
    geometry: &Geometry,
) -> Result<(), GptError> {
    // The header takes 92 bytes of its sector; the rest must be zeros.
    disk.seek(SeekFrom::Start(header.primary_lba * geometry.sector_bytes))?;
    disk.write_all(&vec![0; geometry.sector_bytes as usize])?;
    header
        .write_into(disk, geometry.sector_bytes, entries)
        .map_err(|error| match error {
            gptman::Error::Io(error) => GptError::Io(error),
            other => GptError::Io(io::Error::other(other)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SECTORS: u64 = 4096;
    const LINUX: Uuid = uuid::uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

    fn geometry() -> Geometry {
        Geometry::plain(SECTORS * 512, 512)
    }

    fn extent(start_lba: u64, sectors: u64) -> Extent {
        Extent { start_lba, sectors }
    }

    /// A disk with one partition, at sectors 100 to 199.
    fn disk() -> Cursor<Vec<u8>> {
        let mut disk = Cursor::new(vec![0; SECTORS as usize * 512]);
        gptman::GPT::new_from(&mut disk, 512, [7; 16])
            .unwrap()
            .write_into(&mut disk)
            .unwrap();
        let mut table = read(&mut disk).unwrap();
        table.add("first", LINUX, extent(100, 100)).unwrap();
        table.write(&mut disk).unwrap();
        disk
    }

    fn read(disk: &mut Cursor<Vec<u8>>) -> Option<Table> {
        Table::read(disk, geometry()).unwrap()
    }

    #[test]
    fn no_table_is_no_error() {
        for size in [0, 511, 512, 1024, 100_000] {
            let geometry = Geometry::plain(size, 512);
            let mut disk = Cursor::new(vec![0; size as usize]);
            assert!(Table::read(&mut disk, geometry).unwrap().is_none());
        }
    }

    #[test]
    fn partitions_are_added_where_there_is_room_and_nowhere_else() {
        let mut table = read(&mut disk()).unwrap();
        assert_eq!(table.last_usable_lba(), SECTORS - 34);
        let refused = [
            extent(0, 100),
            extent(33, 1),
            extent(99, 2),
            extent(150, 1),
            extent(199, 1),
            extent(50, 500),
            extent(SECTORS - 34, 2),
            extent(300, 0),
            extent(300, u64::MAX - 300),
        ];
        for extent in refused {
            assert!(table.add("x", LINUX, extent).is_err(), "{extent:?}");
        }
        for (extent, number) in [
            (extent(34, 66), 2),
            (extent(200, 1), 3),
            (extent(SECTORS - 34, 1), 4),
        ] {
            assert_eq!(table.add("x", LINUX, extent).unwrap().number, number);
        }
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let mut table = read(&mut disk()).unwrap();
        for number in 1..128 {
            table.add("x", LINUX, extent(200 + number, 1)).unwrap();
        }
        let error = table.add("x", LINUX, extent(1000, 1)).unwrap_err();
        assert!(error.to_string().contains("all entries"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_from_either_copy() {
        let mut disk = disk();
        let whole = read(&mut disk).unwrap();
        assert!(whole.is_in_order());
        for lba in [1, SECTORS - 1] {
            let mut half = disk.clone();
            half.get_mut()[lba as usize * 512] = 0;
            let table = read(&mut half).unwrap();
            assert!(!table.is_in_order());
            assert!(table.partitions().eq(whole.partitions()));
        }
        disk.get_mut()[1024] ^= 1;
        disk.get_mut()[(SECTORS as usize - 33) * 512] ^= 1;
        let error = Table::read(&mut disk, geometry()).unwrap_err().to_string();
        assert!(error.contains("corrupted partition entry array"), "{error}");
    }

    /// Puts `change` into the header at `lba`, with the right checksum.
    fn forge(disk: &mut Cursor<Vec<u8>>, lba: u64, change: impl FnOnce(&mut [u8])) {
        let start = lba as usize * 512;
        let header = &mut disk.get_mut()[start..start + 92];
        change(header);
        header[16..20].fill(0);
        let checksum = crc32(header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let bit = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc))
        })
    }

    #[test]
    fn a_forged_header_is_refused_or_harmless() {
        for lba in [1, SECTORS - 1] {
            for offset in 8..92 {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    for length in [1, 4, 8] {
                        let mut disk = disk();
                        forge(&mut disk, lba, |header| {
                            let end = (offset + length).min(92);
                            header[offset..end].fill(value);
                        });
                        // The other copy is lost, so this one decides.
                        disk.get_mut()[(SECTORS - lba) as usize * 512] = 0;
                        let Ok(Some(mut table)) = Table::read(&mut disk, geometry()) else {
                            continue;
                        };
                        let _ = table.add("x", LINUX, extent(300, 10));
                        table.write(&mut disk).unwrap();
                        assert_eq!(disk.get_ref().len(), SECTORS as usize * 512);
                        assert!(read(&mut disk).unwrap().is_in_order());
                    }
                }
            }
        }
    }

    #[test]
    fn an_array_elsewhere_and_other_entry_sizes_are_refused() {
        let refusal = |offset: usize, value: u64, length: usize| {
            let mut disk = disk();
            forge(&mut disk, 1, |header| {
                header[offset..offset + length].copy_from_slice(&value.to_le_bytes()[..length]);
            });
            disk.get_mut()[(SECTORS as usize - 1) * 512] = 0;
            Table::read(&mut disk, geometry()).unwrap_err().to_string()
        };
        assert!(refusal(72, 3, 8).contains("its entries are at sector 3; only 2 is supported"));
        assert!(refusal(84, 256, 4).contains("entries of 256 bytes; only 128 is supported"));
        assert!(refusal(80, u32::MAX.into(), 4).contains("4294967295 entries"));
        assert!(refusal(80, 0, 4).contains("0 entries"));
        assert!(refusal(24, 5, 8).contains("it says that it is at sector 5"));
        assert!(refusal(48, SECTORS, 8).contains("usable sectors"));
        assert!(refusal(40, 20, 8).contains("first usable sector 20 is in the table"));
    }
}
