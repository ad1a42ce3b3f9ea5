//! One copy of a GUID Partition Table: read, and every field checked before it is used.

use std::fmt;
use std::io::{self, Read, Seek};

use gptman::{GPTHeader, GPTPartitionEntry};

use crate::machine::disk::table::geometry::Geometry;
use crate::machine::filesystem::read_up_to;

pub(super) const ENTRY_BYTES: u32 = 128;
/// Far more than any tool makes; the array then takes 128 KiB.
pub(super) const MAX_ENTRIES: u32 = 1024;
pub(super) const PRIMARY_LBA: u64 = 1;
pub(super) const PRIMARY_ARRAY_LBA: u64 = 2;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) header: GPTHeader,
    pub(super) entries: Vec<GPTPartitionEntry>,
}

pub(super) fn array_sectors(header: &GPTHeader, geometry: &Geometry) -> u64 {
    let bytes = u64::from(header.number_of_partition_entries) * u64::from(header.size_of_partition_entry);
    bytes.div_ceil(geometry.sector_bytes)
}

/// Why a copy of the table is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    Absent,
    Because(String),
}

impl fmt::Display for Unsound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => out.write_str("there is none"),
            Self::Because(problem) => out.write_str(problem),
        }
    }
}

fn demand(holds: bool, problem: impl FnOnce() -> String) -> Result<(), Unsound> {
    if holds {
        Ok(())
    } else {
        Err(Unsound::Because(problem()))
    }
}

impl Copy {
    pub(super) fn read<D: Read + Seek>(
        disk: &mut D,
        geometry: Geometry,
        lba: u64,
    ) -> io::Result<Result<Self, Unsound>> {
        let header = match header_at(disk, &geometry, lba)? {
            Ok(header) => header,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Err(problem) = check_header(&header, &geometry, lba) {
            return Ok(Err(problem));
        }
        let length = array_sectors(&header, &geometry) * geometry.sector_bytes;
        let start = header.partition_entry_lba * geometry.sector_bytes;
        let mut array = read_up_to(disk, start, length as usize)?;
        if (array.len() as u64) < length {
            return Ok(Err(Unsound::Because("the array of entries is cut off".into())));
        }
        // The crate reads more bytes for each entry than an entry has, also for the last.
        array.resize(array.len() + 2 * ENTRY_BYTES as usize, 0);
        let entries = header
            .read_partitions(&mut io::Cursor::new(array), 0)
            .map_err(|error| error.to_string());
        Ok(entries.map_err(Unsound::Because).and_then(|entries| {
            check_entries(&header, &entries)?;
            Ok(Self { header, entries })
        }))
    }

    pub(super) fn agrees_with(&self, primary: &Self) -> bool {
        let described =
            |header: &GPTHeader| (header.disk_guid, header.first_usable_lba, header.last_usable_lba);
        self.header.primary_lba == primary.header.backup_lba
            && described(&self.header) == described(&primary.header)
            && self.entries == primary.entries
    }
}

/// A header with the right signature and checksum.
fn header_at<D: Read + Seek>(
    disk: &mut D,
    geometry: &Geometry,
    lba: u64,
) -> io::Result<Result<GPTHeader, Unsound>> {
    let Some(start) = lba.checked_mul(geometry.sector_bytes) else {
        return Ok(Err(Unsound::Absent));
    };
    let sector = read_up_to(disk, start, geometry.sector_bytes as usize)?;
    if !sector.starts_with(b"EFI PART") {
        return Ok(Err(Unsound::Absent));
    }
    let header = GPTHeader::read_from(&mut io::Cursor::new(sector));
    Ok(header.map_err(|error| Unsound::Because(error.to_string())))
}

fn check_header(header: &GPTHeader, geometry: &Geometry, lba: u64) -> Result<(), Unsound> {
    let (entry_bytes, entries) = (header.size_of_partition_entry, header.number_of_partition_entries);
    demand(header.primary_lba == lba, || {
        format!("it says that it is at sector {}", header.primary_lba)
    })?;
    demand(entry_bytes == ENTRY_BYTES, || {
        format!("entries of {entry_bytes} bytes; only 128 is supported")
    })?;
    demand((1..=MAX_ENTRIES).contains(&entries), || {
        format!("{entries} entries; up to {MAX_ENTRIES} are supported")
    })?;
    let (first, last) = (header.first_usable_lba, header.last_usable_lba);
    let array_sectors = array_sectors(header, geometry);
    // The backup copy, an array and a header, must fit after the last usable sector.
    let usable_ends = first <= last
        && last
            .checked_add(array_sectors + 1)
            .is_some_and(|end| end < geometry.sectors());
    demand(usable_ends, || {
        format!("usable sectors {first} to {last} of {}", geometry.sectors())
    })?;
    demand(first >= PRIMARY_ARRAY_LBA + array_sectors, || {
        format!("first usable sector {first} is in the table")
    })?;
    let array = header.partition_entry_lba;
    if lba == PRIMARY_LBA {
        demand(array == PRIMARY_ARRAY_LBA, || {
            format!("its entries are at sector {array}; only 2 is supported")
        })?;
        demand(header.backup_lba > last, || {
            format!("backup copy at sector {}", header.backup_lba)
        })
    } else {
        let fits = array > last && array.checked_add(array_sectors).is_some_and(|end| end <= lba);
        demand(fits && header.backup_lba == PRIMARY_LBA, || {
            format!("its entries are at sector {array}")
        })
    }
}

fn check_entries(header: &GPTHeader, entries: &[GPTPartitionEntry]) -> Result<(), Unsound> {
    let mut used: Vec<_> = entries
        .iter()
        .zip(1..)
        .filter(|(entry, _)| entry.is_used())
        .collect();
    used.sort_by_key(|(entry, _)| entry.starting_lba);
    let mut free = header.first_usable_lba;
    for (entry, number) in used {
        let (start, end) = (entry.starting_lba, entry.ending_lba);
        let fits = start >= free && start <= end && end <= header.last_usable_lba;
        demand(fits, || {
            format!("partition {number} at sectors {start} to {end} overlaps or leaves the disk")
        })?;
        free = end + 1;
    }
    Ok(())
}
