//! The master boot record: partitions of old disks, and the protective one before a GPT (UEFI 2.10, 5.2).

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::geometry::{Extent, Geometry};
use crate::machine::filesystem::read_up_to;
use crate::sys::block::Durable;

const SECTOR: usize = 512;
const TABLE: usize = 446;
const ENTRY: usize = 16;
const PROTECTIVE: u8 = 0xee;
/// FAT with 32-bit sector numbers: what Ironic gives the partition of a config drive.
const FAT_LBA: u8 = 0x0c;
/// More logical partitions than any tool makes; also what ends a chain that loops.
const MAX_LOGICAL: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbrPartition {
    /// 1 to 4, or from 5 on for a logical one.
    pub number: u32,
    pub kind: u8,
    pub extent: Extent,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Record {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The four records of a boot sector, if it is one.
fn records(sector: &[u8]) -> Option<[Record; 4]> {
    let sector: &[u8; SECTOR] = sector.first_chunk()?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    Some([0, 1, 2, 3].map(|index| {
        let at = TABLE + index * ENTRY;
        Record {
            status: sector[at],
            kind: sector[at + 4],
            start: word(at + 8),
            sectors: word(at + 12),
        }
    }))
}

/// The partitions of an MBR without a GPT; `None` when there is no such table.
///
/// A file system's boot sector ends with the same two bytes; what tells them apart is that here the records
/// make sense.
pub fn partitions<D: Read + Seek>(
    disk: &mut D,
    geometry: &Geometry,
) -> io::Result<Option<Vec<MbrPartition>>> {
    let Some(records) = records(&read_up_to(disk, 0, SECTOR)?) else {
        return Ok(None);
    };
    let sensible = |record: &Record| {
        matches!(record.status, 0 | 0x80)
            && (!record.is_used() || (record.start != 0 && u64::from(record.start) < geometry.sectors()))
    };
    if !records.iter().all(sensible) || !records.iter().any(Record::is_used) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for (record, number) in records.iter().zip(1..).filter(|(record, _)| record.is_used()) {
        found.push(partition(number, record, 0));
        if record.is_extended() {
            found.extend(logical(disk, geometry, record.start.into())?);
        }
    }
    found.sort_by_key(|partition| partition.number);
    Ok(Some(found))
}

fn partition(number: u32, record: &Record, base: u64) -> MbrPartition {
    let extent = Extent {
        start_lba: base + u64::from(record.start),
        sectors: record.sectors.into(),
    };
    MbrPartition {
        number,
        kind: record.kind,
        extent,
    }
}

/// The chain of boot records in the extended partition that begins at `base`.
fn logical<D: Read + Seek>(disk: &mut D, geometry: &Geometry, base: u64) -> io::Result<Vec<MbrPartition>> {
    let mut found = Vec::new();
    let mut at = base;
    while found.len() < MAX_LOGICAL && at < geometry.sectors() {
        let Some([this, next, ..]) = records(&read_up_to(disk, at * geometry.sector_bytes, SECTOR)?) else {
            break;
        };
        if !this.is_used() {
            break;
        }
        found.push(partition(5 + found.len() as u32, &this, at));
        if !next.is_used() || !next.is_extended() {
            break;
        }
        at = base + u64::from(next.start);
    }
    Ok(found)
}

/// The boot sector of a disk without a GPT, to be added to.
#[derive(Debug)]
pub struct Mbr {
    sector: Vec<u8>,
    records: [Record; 4],
}

impl Mbr {
    /// Reads the boot sector; `None` when it has no partition table.
    pub(in crate::machine::disk) fn read<D: Read + Seek>(
        disk: &mut D,
        geometry: &Geometry,
    ) -> io::Result<Option<Self>> {
        if partitions(disk, geometry)?.is_none() {
            return Ok(None);
        }
        let sector = read_up_to(disk, 0, geometry.sector_bytes as usize)?;
        Ok(records(&sector).map(|records| Self { sector, records }))
    }

    /// The number of the first primary partition that there isn't.
    pub(in crate::machine::disk) fn free_number(&self) -> Option<u32> {
        let free = self.records.iter().zip(1..).find(|(record, _)| !record.is_used());
        free.map(|(_, number)| number)
    }

    /// What the primary partitions take; an extended one with all that is in it.
    pub(in crate::machine::disk) fn primary_extents(&self) -> Vec<Extent> {
        let used = self.records.iter().filter(|record| record.is_used());
        used.map(|record| partition(0, record, 0).extent).collect()
    }

    /// Adds a primary partition in the first free record. Gives its number.
    pub(in crate::machine::disk) fn add(&mut self, extent: Extent) -> io::Result<u32> {
        let full = || io::Error::other("the MBR has no free record");
        let number = self.free_number().ok_or_else(full)?;
        let beyond = |_| io::Error::other("an MBR cannot address sectors that far");
        let start = u32::try_from(extent.start_lba).map_err(beyond)?;
        let sectors = u32::try_from(extent.sectors).map_err(beyond)?;
        let at = TABLE + (number as usize - 1) * ENTRY;
        let record = &mut self.sector[at..at + ENTRY];
        record.fill(0);
        // Cylinder, head and sector: beyond what such numbers can say.
        record[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        record[4] = FAT_LBA;
        record[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        record[8..12].copy_from_slice(&start.to_le_bytes());
        record[12..].copy_from_slice(&sectors.to_le_bytes());
        Ok(number)
    }

    pub(in crate::machine::disk) fn write<D: Write + Seek + Durable>(&self, disk: &mut D) -> io::Result<()> {
        disk.seek(SeekFrom::Start(0))?;
        disk.write_all(&self.sector)?;
        disk.make_durable()
    }
}

/// Whether the first sector has partitions and nothing of a GPT: then a GPT after it is a leftover, ignored
/// by everything, the kernel and the firmware included (UEFI 2.10, 5.2.1).
pub fn rules_out_gpt<D: Read + Seek>(disk: &mut D, geometry: &Geometry) -> io::Result<bool> {
    let found = partitions(disk, geometry)?;
    Ok(found.is_some_and(|found| found.iter().all(|each| each.kind != PROTECTIVE)))
}

/// Whether the first sector protects the whole disk from programs that don't know GPT.
pub fn is_protective<D: Read + Seek>(disk: &mut D, geometry: &Geometry) -> io::Result<bool> {
    let records = records(&read_up_to(disk, 0, SECTOR)?);
    Ok(records.is_some_and(|records| records.iter().any(|record| protects(record, geometry))))
}

fn protects(record: &Record, geometry: &Geometry) -> bool {
    // Some tools write the largest number for every disk; that covers it as well.
    record.kind == PROTECTIVE
        && record.start == 1
        && (record.sectors == u32::MAX || record.sectors == covered(geometry))
}

/// The sectors after the first, as far as 32 bits count.
fn covered(geometry: &Geometry) -> u32 {
    u32::try_from(geometry.sectors().saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Makes the first sector protective, if it isn't. The boot code before the table stays: GRUB lives there.
pub fn make_protective<D: Read + Write + Seek>(disk: &mut D, geometry: &Geometry) -> io::Result<()> {
    if is_protective(disk, geometry)? {
        return Ok(());
    }
    let mut sector = read_up_to(disk, 0, geometry.sector_bytes as usize)?;
    let mut record = [0; ENTRY];
    // Cylinder, head and sector: from the second sector to beyond what such numbers can say.
    record[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    record[4] = PROTECTIVE;
    record[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    record[8..12].copy_from_slice(&1_u32.to_le_bytes());
    record[12..].copy_from_slice(&covered(geometry).to_le_bytes());
    sector[TABLE..510].fill(0);
    sector[TABLE..TABLE + ENTRY].copy_from_slice(&record);
    sector[510..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    disk.seek(SeekFrom::Start(0))?;
    disk.write_all(&sector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SECTORS: u64 = 1000;

    fn disk_with(records: &[(u64, usize, u8, u32, u32)]) -> Cursor<Vec<u8>> {
        let mut disk = vec![0; SECTORS as usize * SECTOR];
        for (lba, index, kind, start, sectors) in records {
            let base = *lba as usize * SECTOR;
            let at = base + TABLE + index * ENTRY;
            disk[at + 4] = *kind;
            disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
            disk[base + 510..base + 512].copy_from_slice(&[0x55, 0xaa]);
        }
        Cursor::new(disk)
    }

    fn found(records: &[(u64, usize, u8, u32, u32)]) -> Option<Vec<(u32, u64, u64)>> {
        let geometry = Geometry::plain(SECTORS * SECTOR as u64, SECTOR as u64);
        let partitions = partitions(&mut disk_with(records), &geometry).unwrap()?;
        Some(
            partitions
                .iter()
                .map(|each| (each.number, each.extent.start_lba, each.extent.sectors))
                .collect(),
        )
    }

    #[test]
    fn primary_and_logical_partitions() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(0, 0, 0x83, 0, 10)]), None, "begins at the table itself");
        assert_eq!(found(&[(0, 0, 0x83, 1000, 10)]), None, "begins after the disk");
        assert_eq!(found(&[(0, 3, 0x83, 8, 10)]), Some(vec![(4, 8, 10)]));
        let extended = [
            (0, 0, 0x83, 8, 10),
            (0, 1, 0x05, 100, 100),
            (100, 0, 0x83, 1, 9),
            (100, 1, 0x05, 50, 50),
            (150, 0, 0x83, 2, 9),
        ];
        assert_eq!(
            found(&extended),
            Some(vec![(1, 8, 10), (2, 100, 100), (5, 101, 9), (6, 152, 9)])
        );
    }

    #[test]
    fn a_chain_that_loops_ends() {
        let looping = [
            (0, 0, 0x05, 100, 100),
            (100, 0, 0x83, 1, 9),
            (100, 1, 0x05, 0, 50),
        ];
        assert!(found(&looping).unwrap().len() <= 1 + MAX_LOGICAL);
        let next_is_itself = [(0, 0, 0x05, 100, 100), (100, 0, 0x83, 1, 9), (100, 1, 0x0f, 0, 1)];
        assert!(found(&next_is_itself).unwrap().len() <= 1 + MAX_LOGICAL);
    }

    #[test]
    fn protection_keeps_the_boot_code_and_covers_the_disk() {
        let geometry = Geometry::plain(SECTORS * SECTOR as u64, SECTOR as u64);
        let mut disk = disk_with(&[(0, 0, PROTECTIVE, 1, 500)]);
        disk.get_mut()[..TABLE].fill(0x90);
        assert!(!is_protective(&mut disk, &geometry).unwrap());
        make_protective(&mut disk, &geometry).unwrap();
        assert!(is_protective(&mut disk, &geometry).unwrap());
        assert!(disk.get_ref()[..TABLE].iter().all(|byte| *byte == 0x90));
        assert_eq!(records(disk.get_ref()).unwrap()[0].sectors, 999);
        // A disk of more sectors than 32 bits count, and one sector less.
        assert_eq!(covered(&Geometry::plain((1 << 32) * 512 + 512, 512)), u32::MAX);
        assert_eq!(
            covered(&Geometry::plain((1 << 32) * 512 - 512, 512)),
            u32::MAX - 1
        );
    }
}
