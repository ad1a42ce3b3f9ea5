//! The size of a disk, of its sectors, and ranges of them.

use serde::Serialize;

use crate::sys::block::Limits;

/// A mebibyte in bytes.
pub const MIB: u64 = 1 << 20;

/// How large a disk is and how its sectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Geometry {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The logical sector size in bytes: what an LBA counts.
    pub sector_bytes: u64,
    /// The physical sector size in bytes.
    pub physical_sector_bytes: u64,
    /// The smallest request that costs nothing extra, in bytes.
    pub minimum_io_bytes: u64,
    /// The request size that the device likes best, in bytes; 0 when it does not say.
    pub optimal_io_bytes: u64,
    /// How far the first aligned byte is from the first, in bytes.
    pub alignment_offset_bytes: u64,
}

impl Geometry {
    /// A disk without wishes about alignment.
    pub const fn plain(size_bytes: u64, sector_bytes: u64) -> Self {
        Self {
            size_bytes,
            sector_bytes,
            physical_sector_bytes: sector_bytes,
            minimum_io_bytes: sector_bytes,
            optimal_io_bytes: 0,
            alignment_offset_bytes: 0,
        }
    }

    /// The number of whole sectors.
    pub const fn sectors(&self) -> u64 {
        self.size_bytes / self.sector_bytes
    }

    /// The number of sectors in a mebibyte.
    pub const fn sectors_per_mib(&self) -> u64 {
        MIB / self.sector_bytes
    }
}

impl From<Limits> for Geometry {
    fn from(limits: Limits) -> Self {
        Self {
            size_bytes: limits.size_bytes,
            sector_bytes: limits.sector_bytes.into(),
            physical_sector_bytes: limits.physical_sector_bytes.into(),
            minimum_io_bytes: limits.minimum_io_bytes.into(),
            optimal_io_bytes: limits.optimal_io_bytes.into(),
            alignment_offset_bytes: limits.alignment_offset_bytes.into(),
        }
    }
}

/// A range of a disk, in logical sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The first sector.
    pub start_lba: u64,
    /// How many sectors.
    pub sectors: u64,
}

impl Extent {
    /// The sector after the last.
    pub const fn end_lba(&self) -> u64 {
        self.start_lba + self.sectors
    }

    /// Where it begins and how long it is, in bytes.
    pub const fn bytes(&self, geometry: &Geometry) -> (u64, u64) {
        (
            self.start_lba * geometry.sector_bytes,
            self.sectors * geometry.sector_bytes,
        )
    }
}
