//! Where a config drive goes on a disk, by Ironic's rules (ironic-python-agent,
//! `create_config_drive_partition`): an existing `config-2` is reused; else a partition of 64 MiB at the end,
//! with GPT and with MBR.
//!
//! Pure. Where less than 64 MiB is free, that is enough if the config drive fits.

use std::io::{self, Read, Seek};

use crate::machine::disk::chosen::contents::{Contents, OldPartition, TableKind};
use crate::machine::disk::layout::{CONFIG_DRIVE_MIB, config_drive_extent};
use crate::machine::disk::table::geometry::{Extent, Geometry};
use crate::machine::disk::table::gpt::{GptError, Table};
use crate::machine::disk::table::mbr::{self, Mbr};

/// The name of a config drive's partition in a GPT. Readers look for the file system's label; this one is for
/// people.
pub const CONFIG_DRIVE_NAME: &str = "config-2";
/// Partitions of an MBR end below 2 TiB, whatever the sector size: not every firmware counts further.
const MBR_LIMIT_BYTES: u64 = 2 << 40;

#[derive(Debug)]
pub enum Place {
    Existing { number: u32, extent: Extent },
    Gpt { table: Box<Table>, extent: Extent },
    Mbr { mbr: Mbr, extent: Extent },
}

#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    #[error("it has no partition table: install a system first")]
    NoTable,
    #[error(transparent)]
    Damaged(GptError),
    #[error("partitions {0} and {1} are both labelled config-2: clear one of them first")]
    Several(u32, u32),
    #[error(
        "partition {number} is labelled config-2, but has {has} bytes, and the config drive has {needed}: \
         delete that partition first"
    )]
    TooSmall { number: u32, has: u64, needed: u64 },
    #[error("its MBR has four primary partitions already: delete one of them first")]
    NoRecord,
    #[error("it has no {needed} contiguous free bytes{}: make a partition smaller first", if *.mbr { " below 2 TiB" } else { "" })]
    Full { needed: u64, mbr: bool },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Place {
    pub(in crate::machine::disk) fn extent(&self) -> Extent {
        match self {
            Self::Existing { extent, .. } | Self::Gpt { extent, .. } | Self::Mbr { extent, .. } => *extent,
        }
    }

    /// Finds the place for a config drive of `needed` bytes on a disk.
    pub(in crate::machine::disk) fn find<D: Read + Seek>(
        disk: &mut D,
        geometry: Geometry,
        needed: u64,
    ) -> Result<Self, NoRoom> {
        let contents = Contents::read(disk, geometry)?;
        if let Some((number, extent)) = existing(&contents, needed)? {
            return Ok(Self::Existing { number, extent });
        }
        match contents.table {
            Some(TableKind::Mbr) => Self::in_mbr(disk, geometry, needed),
            Some(_) => Self::in_gpt(disk, geometry, needed),
            None => Err(NoRoom::NoTable),
        }
    }

    fn in_gpt<D: Read + Seek>(disk: &mut D, geometry: Geometry, needed: u64) -> Result<Self, NoRoom> {
        let table = Table::read(disk, geometry).map_err(NoRoom::Damaged)?;
        let mut table = Box::new(table.ok_or(NoRoom::NoTable)?);
        table.relocate_backup();
        let taken: Vec<Extent> = table.partitions().map(|each| each.extent).collect();
        let usable = Extent {
            start_lba: table.first_usable_lba(),
            sectors: table.last_usable_lba() + 1 - table.first_usable_lba(),
        };
        let extent = place(&geometry, usable, &taken, needed);
        let extent = extent.ok_or(NoRoom::Full { needed, mbr: false })?;
        Ok(Self::Gpt { table, extent })
    }

    fn in_mbr<D: Read + Seek>(disk: &mut D, geometry: Geometry, needed: u64) -> Result<Self, NoRoom> {
        let mbr = mbr::Mbr::read(disk, &geometry)?.ok_or(NoRoom::NoTable)?;
        if mbr.free_number().is_none() {
            return Err(NoRoom::NoRecord);
        }
        let end = geometry
            .sectors()
            .min(MBR_LIMIT_BYTES / geometry.sector_bytes)
            .min(u32::MAX.into());
        let usable = Extent {
            start_lba: 1,
            sectors: end.saturating_sub(1),
        };
        let extent = place(&geometry, usable, &mbr.primary_extents(), needed);
        let extent = extent.ok_or(NoRoom::Full { needed, mbr: true })?;
        Ok(Self::Mbr { mbr, extent })
    }
}

/// The partition that is a config drive, or was meant for one when writing it was interrupted.
fn existing(contents: &Contents, needed: u64) -> Result<Option<(u32, Extent)>, NoRoom> {
    let is_meant =
        |each: &&OldPartition| each.signatures.is_empty() && each.name.as_deref() == Some(CONFIG_DRIVE_NAME);
    let mut labelled = contents.partitions.iter().filter(|each| each.is_config_drive());
    let found = match (labelled.next(), labelled.next()) {
        (Some(one), Some(other)) => return Err(NoRoom::Several(one.number, other.number)),
        (Some(one), None) => one,
        (None, _) => match contents.partitions.iter().find(is_meant) {
            Some(meant) if meant.size_bytes >= needed => meant,
            _ => return Ok(None),
        },
    };
    if found.size_bytes < needed {
        return Err(NoRoom::TooSmall {
            number: found.number,
            has: found.size_bytes,
            needed,
        });
    }
    Ok(Some((found.number, found.extent)))
}

/// The end of the last free piece of `usable` that has 64 MiB, or else the last that has `needed` bytes.
fn place(geometry: &Geometry, usable: Extent, taken: &[Extent], needed: u64) -> Option<Extent> {
    let mib = geometry.sectors_per_mib();
    let needed_sectors = needed.div_ceil(geometry.sector_bytes).max(1);
    let pieces: Vec<Extent> = free_pieces(usable, taken)
        .into_iter()
        .filter_map(|piece| {
            // Every tool begins partitions at a mebibyte.
            let start_lba = piece.start_lba.next_multiple_of(mib);
            let sectors = piece.end_lba().checked_sub(start_lba)?;
            (sectors >= needed_sectors).then_some(Extent { start_lba, sectors })
        })
        .collect();
    let largest = CONFIG_DRIVE_MIB * mib;
    let whole = pieces.iter().rev().find(|piece| piece.sectors >= largest);
    match whole {
        Some(piece) => config_drive_extent(geometry, piece.end_lba() - 1),
        None => pieces.last().copied(),
    }
}

/// What of `usable` is in none of `taken`, in order.
fn free_pieces(usable: Extent, taken: &[Extent]) -> Vec<Extent> {
    let mut taken: Vec<Extent> = taken.to_vec();
    taken.sort_by_key(|extent| extent.start_lba);
    let mut free = Vec::new();
    let mut start_lba = usable.start_lba;
    let behind = Extent {
        start_lba: usable.end_lba(),
        sectors: 0,
    };
    for each in taken.iter().chain([&behind]) {
        let end = each.start_lba.min(usable.end_lba());
        if end > start_lba {
            free.push(Extent {
                start_lba,
                sectors: end - start_lba,
            });
        }
        start_lba = start_lba.max(each.start_lba.saturating_add(each.sectors));
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::table::MIB;

    fn extent(start_lba: u64, sectors: u64) -> Extent {
        Extent { start_lba, sectors }
    }

    #[test]
    fn the_end_is_taken_where_it_is_free_and_else_what_fits() {
        let mib = 2048;
        let geometry = Geometry::plain(1000 * MIB, 512);
        let usable = extent(34, 1000 * mib - 67);
        let cases: [(&[Extent], u64, Option<Extent>); 8] = [
            (&[], MIB, Some(extent(935 * mib, 64 * mib))),
            (&[extent(mib, 900 * mib)], MIB, Some(extent(935 * mib, 64 * mib))),
            // Something at the end: the last piece of 64 MiB that is free.
            (&[extent(990 * mib, mib)], MIB, Some(extent(926 * mib, 64 * mib))),
            (
                &[extent(900 * mib, 99 * mib)],
                MIB,
                Some(extent(836 * mib, 64 * mib)),
            ),
            // Only 10 MiB are left, less the table's tail.
            (
                &[extent(mib, 989 * mib)],
                MIB,
                Some(extent(990 * mib, 10 * mib - 33)),
            ),
            (&[extent(mib, 989 * mib)], 10 * MIB, None),
            // Partitions in any order, and one that reaches beyond the disk.
            (
                &[
                    extent(500 * mib, 9000 * mib),
                    extent(100 * mib, 400 * mib),
                    extent(34, 99),
                ],
                MIB,
                Some(extent(36 * mib, 64 * mib)),
            ),
            (&[extent(0, u64::MAX)], 1, None),
        ];
        for (taken, needed, expected) in cases {
            assert_eq!(place(&geometry, usable, taken, needed), expected, "{taken:?}");
        }
    }

    #[test]
    fn every_place_is_free_and_large_enough() {
        let geometry = Geometry::plain(200 * MIB, 4096);
        let mib = geometry.sectors_per_mib();
        let usable = extent(6, 200 * mib - 12);
        for seed in 0..2000_u64 {
            let number = |salt: u64, below: u64| (seed * 7919 + salt * 104_729) % below;
            let taken: Vec<Extent> = (0..seed % 5)
                .map(|index| extent(number(index, 200 * mib), 1 + number(index + 9, 80 * mib)))
                .collect();
            let needed = 1 + number(3, 64 * MIB);
            let Some(found) = place(&geometry, usable, &taken, needed) else {
                let largest = free_pieces(usable, &taken).iter().map(|free| free.sectors).max();
                assert!(
                    largest.unwrap_or(0) * 4096 < needed + MIB,
                    "{taken:?} has room for {needed}"
                );
                continue;
            };
            assert!(found.sectors * 4096 >= needed && found.sectors <= 64 * mib);
            assert!(found.start_lba >= usable.start_lba && found.end_lba() <= usable.end_lba());
            let overlaps =
                |each: &Extent| found.start_lba < each.end_lba() && each.start_lba < found.end_lba();
            assert!(!taken.iter().any(overlaps), "{found:?} in {taken:?}");
        }
    }
}
