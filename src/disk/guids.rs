//! The GUIDs of all GPT partitions that there are: boot entries name partitions so.

use std::path::Path;

use anyhow::{Context, Result};
use uuid::Uuid;

use super::device::{Disk, ProbeError};
use super::discover::disks;
use super::gpt::Table;

/// The GUIDs of the partitions on all disks. A disk that can't be read is an error: what is on it is not gone.
pub fn partition_guids() -> Result<Vec<Uuid>> {
    let mut guids = Vec::new();
    for found in disks()?.into_iter().filter(|each| !each.is_path()) {
        match Disk::probe(Path::new(&found.disk.name)) {
            // A drive without a medium.
            Err(ProbeError::Empty { .. }) => {}
            disk => guids.extend(disk?.partition_guids()?),
        }
    }
    Ok(guids)
}

impl Disk {
    /// The GUIDs of its partitions; none where there is no GPT.
    pub fn partition_guids(&self) -> Result<Vec<Uuid>> {
        let describe = || format!("reading {}", self.path.display());
        let mut file = self.open().with_context(describe)?;
        let table = Table::read(&mut file, self.geometry).with_context(describe)?;
        Ok(table
            .iter()
            .flat_map(Table::partitions)
            .map(|each| each.uuid)
            .collect())
    }
}
