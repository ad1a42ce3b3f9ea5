//! Where `sfdisk` puts the partitions of a new GPT: util-linux' `libfdisk`, `alignment.c` and
//! `gpt_add_partition`.
//!
//! bootc tells `sfdisk` sizes and no places; `sfdisk` aligns, rounds and silently clamps. Computing the same
//! before the disk is touched is what makes an exact layout possible. Checked against the real program in
//! `tests/disk.rs`.

use crate::machine::disk::table::geometry::{Extent, Geometry, MIB};

/// What an entry of the array takes, and how many entries there are.
const ARRAY_BYTES: u64 = 128 * 128;
/// What broken controllers report instead of nothing: 32 MiB less one sector.
const BROKEN_OPTIMAL_IO: u64 = 33_553_920;

/// The alignment that `sfdisk` uses on one disk.
#[derive(Clone, Copy, Debug)]
pub struct Sfdisk {
    geometry: Geometry,
    grain_sectors: u64,
    pub(in crate::machine::disk) first_usable_lba: u64,
    pub(in crate::machine::disk) last_usable_lba: u64,
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
    Nearest,
}

impl Sfdisk {
    /// The rules for a disk; `None` when it is too small to hold a table.
    pub(in crate::machine::disk) fn on(geometry: Geometry) -> Option<Self> {
        let array_sectors = ARRAY_BYTES.div_ceil(geometry.sector_bytes);
        let last_usable_lba = geometry.sectors().checked_sub(array_sectors + 2)?;
        let first_usable_lba = first_lba(&geometry).max(2 + array_sectors);
        let grain_sectors = (grain_bytes(&geometry) / geometry.sector_bytes).max(1);
        (first_usable_lba <= last_usable_lba).then_some(Self {
            geometry,
            grain_sectors,
            first_usable_lba,
            last_usable_lba,
        })
    }

    /// The size of the grain in bytes: partitions begin and end at multiples of it.
    pub(in crate::machine::disk) fn grain_bytes(&self) -> u64 {
        self.grain_sectors * self.geometry.sector_bytes
    }

    /// Places partitions of the given sizes (in MiB) one after the other, as `sfdisk` would.
    pub(in crate::machine::disk) fn place(&self, sizes_mib: &[u64]) -> Option<Vec<Extent>> {
        let mut free = self.first_usable_lba;
        let mut placed = Vec::with_capacity(sizes_mib.len());
        for size in sizes_mib {
            let extent = self.next(free, size.checked_mul(self.geometry.sectors_per_mib())?)?;
            free = extent.end_lba();
            placed.push(extent);
        }
        Some(placed)
    }

    /// The next partition of `sectors`, when everything from `free` on is free.
    fn next(&self, free: u64, sectors: u64) -> Option<Extent> {
        let last = self.last_usable_lba;
        if free > last || last - free + 1 < self.grain_sectors {
            return None;
        }
        let start = self.align_in_range(free, free, last);
        let optimal_end = self.align_in_range(last, start, last).checked_sub(1)?;
        // Far beyond the disk is as far as a little beyond: both are clamped.
        let mut end = start
            .checked_add(sectors.checked_sub(1)?)?
            .min(last + 2 * self.grain_sectors);
        if end != optimal_end && end - start > self.grain_sectors {
            end = self.align_in_range(end, start, optimal_end);
            end -= u64::from(end > start);
        }
        (start <= end && end <= last).then_some(Extent {
            start_lba: start,
            sectors: end - start + 1,
        })
    }

    /// `fdisk_align_lba_in_range`.
    fn align_in_range(&self, lba: u64, start: u64, stop: u64) -> u64 {
        let (mut start, mut stop) = (start, stop);
        if start + self.grain_sectors <= stop {
            start = self.align(start, Round::Up);
            stop = self.align(stop, Round::Down);
        }
        if start + self.grain_sectors > stop {
            return lba;
        }
        self.align(lba, Round::Nearest).clamp(start, stop)
    }

    /// `fdisk_align_lba`.
    fn align(&self, lba: u64, round: Round) -> u64 {
        if self.is_aligned(lba) {
            return lba;
        }
        if lba < self.first_usable_lba {
            return self.first_usable_lba;
        }
        let grain = self.grain_sectors;
        let mut aligned = match round {
            Round::Up => (lba + grain) / grain * grain,
            Round::Down => lba / grain * grain,
            Round::Nearest => (lba + grain / 2) / grain * grain,
        };
        let offset = self.geometry.alignment_offset_bytes;
        if offset != 0 && !self.is_aligned(aligned) && aligned > offset / self.geometry.sector_bytes {
            aligned -= physical_grain(&self.geometry).saturating_sub(offset) / self.geometry.sector_bytes;
            if matches!(round, Round::Up) && aligned < lba {
                aligned += grain;
            }
        }
        aligned
    }

    /// `lba_is_aligned`.
    fn is_aligned(&self, lba: u64) -> bool {
        let granularity = physical_grain(&self.geometry).max(self.grain_bytes());
        let offset = lba * self.geometry.sector_bytes % granularity;
        (granularity + self.geometry.alignment_offset_bytes - offset).is_multiple_of(granularity)
    }
}

fn physical_grain(geometry: &Geometry) -> u64 {
    geometry.physical_sector_bytes.max(geometry.minimum_io_bytes)
}

/// The size of requests that `libfdisk` takes for the device's favourite.
fn io_bytes(geometry: &Geometry) -> u64 {
    let wanted = match geometry.optimal_io_bytes {
        0 => geometry.minimum_io_bytes,
        optimal => optimal,
    };
    let physical = geometry.physical_sector_bytes.max(1);
    if wanted == BROKEN_OPTIMAL_IO || !wanted.is_multiple_of(physical) {
        physical
    } else {
        wanted
    }
}

/// `topology_get_first_lba`.
fn first_lba(geometry: &Geometry) -> u64 {
    let offset = geometry.alignment_offset_bytes;
    let has_topology =
        geometry.optimal_io_bytes != 0 || offset != 0 || !geometry.minimum_io_bytes.is_power_of_two();
    let bytes = match io_bytes(geometry) {
        _ if has_topology && offset != 0 => offset,
        io if has_topology && io > MIB => io,
        _ => MIB,
    };
    let lba = bytes / geometry.sector_bytes;
    if geometry.sectors() <= lba * 4 {
        geometry.physical_sector_bytes / geometry.sector_bytes
    } else {
        lba
    }
}

/// `topology_get_grain`.
fn grain_bytes(geometry: &Geometry) -> u64 {
    let grain = io_bytes(geometry).max(MIB);
    if geometry.sectors() <= grain * 4 / geometry.sector_bytes {
        geometry.physical_sector_bytes
    } else {
        grain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(geometry: Geometry, sizes_mib: &[u64]) -> Vec<(u64, u64)> {
        let placed = Sfdisk::on(geometry).unwrap().place(sizes_mib).unwrap();
        placed
            .iter()
            .map(|extent| (extent.start_lba, extent.sectors))
            .collect()
    }

    #[test]
    fn clamps_silently_as_the_real_one_does() {
        const GIB: u64 = 1 << 30;
        let root = |disk, size| extents(Geometry::plain(disk, 512), &[1, 512, size])[2];
        // All measured with sfdisk 2.38.1 and 2.42.4.
        assert_eq!(root(12 * GIB, 11_520), (1_052_672, 23_592_960));
        assert_eq!(root(12 * GIB, 11_773), (1_052_672, 24_111_104));
        assert_eq!(root(12 * GIB, 11_774), (1_052_672, 24_109_056));
        assert_eq!(root(12 * GIB, 20_000), (1_052_672, 24_109_056));
        assert_eq!(root(12_886_999_039, 11_776), (1_052_672, 24_113_152));
        let large = extents(Geometry::plain(4 * GIB, 4096), &[1, 1024, 510, 9999]);
        assert_eq!(
            large,
            [(256, 256), (512, 262_144), (262_656, 130_560), (393_216, 654_848)]
        );
    }

    #[test]
    fn a_disk_without_room_for_a_table_holds_none() {
        assert!(Sfdisk::on(Geometry::plain(0, 512)).is_none());
        assert!(Sfdisk::on(Geometry::plain(35 * 512, 512)).is_none());
    }
}
