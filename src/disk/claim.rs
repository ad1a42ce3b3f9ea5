//! The right to change a disk: given once its contents are given up and nothing uses it.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;

use super::contents::Expendable;
use super::device::Disk;
use super::geometry::{Geometry, MIB};
use crate::sys::block::{self, Region};
use crate::sys::device_mapper;

/// Why a disk can't be changed after all.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another disk answers by this name now.
    #[error("{path} is not the disk that was looked at: it was taken out or has changed its size since")]
    Changed {
        /// The disk.
        path: PathBuf,
    },
}

/// A disk that may be changed. Whoever holds it must end in a verified installation or call [`Claim::clear`].
#[derive(Debug)]
#[must_use]
pub struct Claim {
    disk: Disk,
}

impl Disk {
    /// Claims the disk whose contents are given up. It is looked at again: a pull may lie between plan and claim.
    pub fn claim(expendable: Expendable) -> anyhow::Result<Claim> {
        let claim = Claim {
            disk: expendable.disk,
        };
        claim.same_disk()?;
        claim.disk.refuse_read_only()?;
        claim.disk.refuse_if_in_use()?;
        Ok(claim)
    }
}

impl Claim {
    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Probes the disk again and makes sure that it is the one that was looked at.
    pub(super) fn same_disk(&self) -> anyhow::Result<Disk> {
        let now = Disk::probe(&self.disk.node)?;
        let same = now.number == self.disk.number
            && now.sequence == self.disk.sequence
            && now.geometry.size_bytes == self.disk.geometry.size_bytes
            && now.geometry.sector_bytes == self.disk.geometry.sector_bytes;
        if same {
            Ok(now)
        } else {
            Err(ClaimError::Changed {
                path: self.disk.path.clone(),
            }
            .into())
        }
    }

    /// Closes the device-mapper volumes that were made from the disk since it was claimed, say an encrypted root: an
    /// installer that fails may leave them. Returns the names of those that are closed. A volume that is still mounted
    /// somewhere goes when it is unmounted.
    pub fn release(&self) -> Vec<String> {
        let Ok(control) = File::open("/dev/mapper/control") else {
            return Vec::new();
        };
        let mut names = self.disk.mapped_volumes().unwrap_or_default();
        names.retain(|name| device_mapper::remove(&control, name).is_ok());
        names
    }

    /// Destroys the partition table and the boot sector, so that what is on the disk can't boot.
    ///
    /// For installations that failed: half a system that boots is worse than none.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.clear_tables()
            .with_context(|| format!("clearing the partition table of {}", self.disk.path.display()))
    }

    fn clear_tables(&self) -> anyhow::Result<()> {
        self.same_disk()?;
        let file = self.disk.open_for_writing()?;
        let geometry = self.disk.geometry;
        for (start, length) in table_ranges(&geometry) {
            zero(&mut Region::new(&file, start, length))?;
        }
        file.sync_all()?;
        // A partition that is still mounted keeps the kernel's view; the disk is cleared all the same.
        let _ = block::reread_partitions(&file);
        Ok(())
    }
}

/// The first and the last mebibyte: boot sector, both copies of a GPT, and whatever superblock is beside them.
fn table_ranges(geometry: &Geometry) -> [(u64, u64); 2] {
    let length = MIB.min(geometry.size_bytes);
    [(0, length), (geometry.size_bytes - length, length)]
}

fn zero(region: &mut Region<'_>) -> io::Result<()> {
    let zeros = vec![0; region.length_bytes() as usize];
    region.write_all(&zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_to_clear_stay_on_the_disk() {
        assert_eq!(
            table_ranges(&Geometry::plain(10 * MIB + 5, 512)),
            [(0, MIB), (9 * MIB + 5, MIB)]
        );
        assert_eq!(table_ranges(&Geometry::plain(1024, 512)), [(0, 1024), (0, 1024)]);
    }
}
