//! Config drives on other disks, left over from earlier installations: readers take the first one they find
//! on any disk.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::claim::Claim;
use super::device::Disk;
use super::in_use::Use;
use crate::console::progress::{Progress, Wait};
use crate::machine::disk::find::discover::{disks, units};
use crate::machine::disk::layout::CONFIG_DRIVE_MIB;
use crate::machine::disk::table::geometry::MIB;
use crate::machine::filesystem::{Signature, identify};
use crate::sys::block::{self, Durable, Region};
use crate::sys::blocking::apart;

/// A file system labelled `config-2` on a disk that isn't the target.
#[derive(PartialEq, Eq)]
pub struct StaleConfigDrive {
    disk: PathBuf,
    /// The partition; `None` when it is the whole disk.
    partition: Option<u32>,
    /// Why it can't be removed from here.
    fixed: Option<String>,
    start_bytes: u64,
    size_bytes: u64,
}

impl Disk {
    /// Warns of config drives on other disks; where they are to be removed, makes sure that they can be.
    pub async fn look_for_stale_config_drives(&self, clear: bool, progress: &Progress) -> Result<()> {
        let target = self.clone();
        let _looking = progress.waiting(Wait::new("looking for config drives on other disks"));
        for stale in apart(move || target.stale_config_drives()).await? {
            if clear {
                stale.refuse_if_fixed()?;
                continue;
            }
            progress.warn(format!(
                "an old config drive is on {stale}, and readers take the first they find: \
                 --clear-stale-config-drives removes it"
            ));
        }
        Ok(())
    }

    /// The config drives on all other disks. Disks that can't be read are left out.
    fn stale_config_drives(&self) -> Result<Vec<StaleConfigDrive>> {
        let own = self.found();
        let found = units(disks()?).into_iter();
        let others = found.filter(|each| each.disk.name != own.disk.name && !each.is_same_unit(&own));
        let others = others.filter_map(|each| Self::probe(Path::new(&each.disk.name)).ok());
        Ok(others
            .flat_map(|disk| disk.config_drives().unwrap_or_default())
            .collect())
    }

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

    /// Why what is on this partition (or the whole disk) must stay. Other partitions may be in use: an image
    /// comes from one perhaps.
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

/// A disk about which all is decided: it is about to be changed, and other disks may be for its sake.
pub trait Decided {
    fn disk(&self) -> &Disk;

    /// Removes the config drives on other disks.
    fn clear_stale_config_drives(&self, progress: &Progress) -> Result<()> {
        for stale in self.disk().stale_config_drives()? {
            stale.clear(self)?;
            progress.note(format!("removed the old config drive on {stale}"));
        }
        Ok(())
    }
}

impl Decided for Claim {
    fn disk(&self) -> &Disk {
        self.disk()
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
    fn refuse_if_fixed(&self) -> Result<()> {
        match &self.fixed {
            None => Ok(()),
            Some(why) => bail!("the old config drive on {self} cannot be removed: {why}"),
        }
    }

    /// Overwrites it with zeros: label, files, secrets. The partition stays.
    pub fn clear<D: Decided + ?Sized>(&self, _: &D) -> Result<()> {
        self.overwrite()
            .with_context(|| format!("removing the old config drive on {self}"))
    }

    fn overwrite(&self) -> Result<()> {
        let disk = Disk::probe(&self.disk)?;
        ensure!(
            disk.config_drives()?.contains(self),
            "it is no longer there, or in use"
        );
        let _alone = self
            .partition
            .map(|number| alone(&disk.partition_node(number)))
            .transpose()?;
        let file = disk.open_for_writing().context("open")?;
        // No config drive is larger; what follows it on a whole disk belongs to something else.
        let length = self.size_bytes.min(CONFIG_DRIVE_MIB * MIB);
        let mut region = Region::new(&file, self.start_bytes, length);
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut region)?;
        region.make_durable()?;
        region.forget_cache()?;
        let left = identify(&mut region, length)?;
        ensure!(
            !left.iter().any(Signature::is_config_drive),
            "the old bytes are still on the disk"
        );
        if let Some(number) = self.partition
            && let Ok(partition) = File::open(disk.partition_node(number))
        {
            // What was read through the partition's own node is older.
            let _ = block::flush_buffers(&partition);
        }
        Ok(())
    }
}

/// Opens a partition as its only user. There is no node where the kernel doesn't see the partition: then
/// nobody uses it.
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
