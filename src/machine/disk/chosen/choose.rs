//! The chosen disk: by its name, by hints, or because it is the obvious one.

use std::path::Path;

use anyhow::{Result, bail};

use super::device::Disk;
use crate::machine::disk::find::{BlockDevice, Hints, choose, disks};

impl Disk {
    /// The disk of this name, which must satisfy the hints; without a name the one that is chosen by them.
    pub fn choose(path: Option<&Path>, hints: &Hints) -> Result<Self> {
        let Some(path) = path else {
            let (chosen, _) = choose(&disks()?, hints)?;
            return Self::probe_or_say_what_uses_it(Path::new(&chosen.disk.name));
        };
        let disk = Self::probe_or_say_what_uses_it(path)?;
        if let Some(mismatch) = hints.mismatch(&disk.found().disk) {
            bail!("{} does not match the hints: {mismatch}", path.display());
        }
        Ok(disk)
    }

    /// Finds out about a disk. One that can't even be opened may be in use, which is the better reason.
    fn probe_or_say_what_uses_it(path: &Path) -> Result<Self> {
        Self::probe(path).or_else(|error| {
            let node = path.canonicalize().unwrap_or_else(|_| path.into());
            let mut all = disks()?.into_iter();
            if let Some(found) = all.find(|each| Path::new(&each.disk.name) == node) {
                found.refuse_if_in_use()?;
            }
            Err(error)
        })
    }

    pub(in crate::machine::disk) fn found(&self) -> BlockDevice {
        BlockDevice::describe(&self.name.replace('!', "/"), &self.sysfs())
    }
}

/// The names of all disks if one could be chosen now, for waiting until disks appear; empty when none can.
pub fn choosable(hints: &Hints) -> Vec<String> {
    let found = disks().unwrap_or_default();
    if choose(&found, hints).is_err() {
        return Vec::new();
    }
    found.into_iter().map(|each| each.disk.name).collect()
}
