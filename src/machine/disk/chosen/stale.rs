//! Config drives on other disks, left over from earlier installations: readers take the first that they find on any disk.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::device::Disk;
use super::in_use::Use;
use crate::machine::disk::find::discover::{disks, units};
use crate::machine::disk::layout::CONFIG_DRIVE_MIB;
use crate::machine::disk::table::geometry::MIB;
use crate::machine::filesystem::{Signature, identify};
use crate::sys::block::{self, Durable, Region};

/// A filesystem labelled `config-2` on a disk that isn't the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StaleConfigDrive {
    /// The disk.
    pub disk: PathBuf,
    /// The partition; `None` when it is the whole disk.
    pub partition: Option<u32>,
    /// Why it can't be removed from here.
    pub fixed: Option<String>,
    start_bytes: u64,
    size_bytes: u64,
}

/// The config drives on all disks but `target`. Disks that can't be read are left out.
pub fn stale_config_drives(target: &Disk) -> Result<Vec<StaleConfigDrive>> {
    let own = target.found();
    let found = units(disks()?).into_iter();
    let others = found.filter(|each| each.disk.name != own.disk.name && !each.is_same_unit(&own));
    let others = others.filter_map(|each| Disk::probe(Path::new(&each.disk.name)).ok());
    Ok(others
        .flat_map(|disk| disk.config_drives().unwrap_or_default())
        .collect())
}

impl Disk {
    /// The config drives on this disk.
    pub fn config_drives(&self) -> Result<Vec<StaleConfigDrive>> {
        let contents = self.contents()?;
        let uses = self.uses()?;
        let drive = |partition, (start_bytes, size_bytes)| StaleConfigDrive {
            disk: self.node.clone(),
            partition,
            fixed: self.why_fixed(partition, &uses),
            start_bytes,
            size_bytes,
        };
        if contents.signatures.iter().any(Signature::is_config_drive) {
            return Ok(vec![drive(None, (0, self.geometry.size_bytes))]);
        }
        let labelled = contents.partitions.iter().filter(|each| each.is_config_drive());
        Ok(labelled
            .map(|each| drive(Some(each.number), each.extent.bytes(&self.geometry)))
            .collect())
    }

    /// Why what is on this partition (or the whole disk) must stay. Other partitions may be in use: an image comes from
    /// one perhaps.
    fn why_fixed(&self, partition: Option<u32>, uses: &[Use]) -> Option<String> {
        if self.read_only {
            return Some("the disk is read-only".into());
        }
        let node = partition.map(|number| self.partition_node(number));
        let name = node.as_deref().and_then(Path::file_name);
        let concerned = |each: &&Use| {
            let device = each.device().map(OsStr::new);
            device.is_none() || name.is_none() || device == name || device == Some(self.name.as_ref())
        };
        uses.iter().find(concerned).map(ToString::to_string)
    }
}

impl std::fmt::Display for StaleConfigDrive {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            Some(number) => write!(out, "partition {number} of {}", self.disk.display()),
            None => write!(out, "{}", self.disk.display()),
        }
    }
}

impl StaleConfigDrive {
    /// An error when it can't be removed.
    pub fn refuse_if_fixed(&self) -> Result<()> {
        match &self.fixed {
            None => Ok(()),
            Some(why) => bail!("the old config drive on {self} can't be removed: {why}"),
        }
    }

    /// Overwrites it with zeros: label, files, secrets. The partition stays.
    pub fn clear(&self) -> Result<()> {
        self.overwrite()
            .with_context(|| format!("removing the old config drive on {self}"))
    }

    fn overwrite(&self) -> Result<()> {
        let disk = Disk::probe(&self.disk)?;
        let same = disk.config_drives()?.into_iter().any(|each| each == *self);
        if !same {
            bail!("it is no longer there, or in use");
        }
        let _alone = self
            .partition
            .map(|number| alone(&disk.partition_node(number)))
            .transpose()?;
        let file = disk.open_for_writing().context("open")?;
        // No config drive is larger; what is behind it on a whole disk is somebody else's.
        let length = self.size_bytes.min(CONFIG_DRIVE_MIB * MIB);
        let mut region = Region::new(&file, self.start_bytes, length);
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut region)?;
        region.make_durable()?;
        region.forget_cache()?;
        if identify(&mut region, length)?
            .iter()
            .any(Signature::is_config_drive)
        {
            bail!("the disk still gives the old bytes");
        }
        if let Some(number) = self.partition
            && let Ok(partition) = File::open(disk.partition_node(number))
        {
            // What was read through the partition's own node is older.
            let _ = block::flush_buffers(&partition);
        }
        Ok(())
    }
}

/// Opens a partition as its only user. There is no node where the kernel doesn't see the partition: then nobody uses it.
fn alone(node: &Path) -> Result<Option<File>> {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(node);
    match open {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).with_context(|| format!("open({node:?}, O_EXCL)")),
    }
}
