//! The right to change a disk: granted when its contents may be destroyed and nothing uses it.

use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, anyhow, ensure};

use super::contents::Expendable;
use super::device::Disk;
use super::fingerprint::{Fingerprint, ends_of};
use crate::sys::block::{self, Region};
use crate::sys::device_mapper;

/// A disk that may be changed. Its holder must end in a verified installation or call [`Claim::clear`].
#[derive(Debug)]
#[must_use]
pub struct Claim {
    disk: Disk,
    /// When it was claimed.
    before: anyhow::Result<Fingerprint>,
}

impl Disk {
    /// Claims the disk whose contents may be destroyed. It is probed again: a pull may lie between plan and
    /// claim.
    pub fn claim(expendable: Expendable) -> anyhow::Result<Claim> {
        let disk = expendable.disk();
        disk.probe_again()?;
        disk.refuse_read_only()?;
        disk.refuse_if_in_use()?;
        let before = Fingerprint::take(disk, expendable.contents());
        Ok(Claim {
            disk: expendable.disk,
            before,
        })
    }

    /// Probes the disk again and makes sure that it is the one that was looked at.
    pub(in crate::machine::disk) fn probe_again(&self) -> anyhow::Result<Self> {
        let now = Self::probe(&self.node)?;
        let same = now.number == self.number
            && now.sequence == self.sequence
            && now.geometry.size_bytes == self.geometry.size_bytes
            && now.geometry.sector_bytes == self.geometry.sector_bytes;
        ensure!(
            same,
            "{} is not the disk that was checked: it was removed or has changed its size",
            self.path.display()
        );
        Ok(now)
    }
}

impl Claim {
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether nothing was written to the disk since it was claimed. An error means that this can't be told.
    pub fn is_untouched(&self) -> anyhow::Result<bool> {
        let before = self.before.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        before.fits(&self.disk.probe_again()?)
    }

    /// Closes the device-mapper volumes that were made from the disk since it was claimed, say an encrypted
    /// root: an installer that fails may leave them. Returns the names of those that are closed. A volume
    /// that is still mounted somewhere goes when it is unmounted.
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
        self.disk.probe_again()?;
        let file = self.disk.open_for_writing()?;
        for (start, length) in ends_of(0, self.disk.geometry.size_bytes) {
            zero(&mut Region::new(&file, start, length))?;
        }
        file.sync_all()?;
        // A partition that is still mounted keeps the kernel's view; the disk is cleared all the same.
        let _ = block::reread_partitions(&file);
        Ok(())
    }
}

fn zero(region: &mut Region<'_>) -> io::Result<()> {
    let zeros = vec![0; region.length_bytes() as usize];
    region.write_all(&zeros)
}
