//! What is on a disk, from its bytes: so that a person can be told what `--wipe` would destroy.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Serialize;
use uuid::Uuid;

use super::device::Disk;
use crate::machine::disk::find::discover::disks;
use crate::machine::disk::table::geometry::{Extent, Geometry, MIB};
use crate::machine::disk::table::gpt::{GptError, Table};
use crate::machine::disk::table::mbr;
use crate::machine::filesystem::{Signature, identify, read_up_to};
use crate::sys::block::Region;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    pub(in crate::machine::disk) table: Option<TableKind>,
    pub(in crate::machine::disk) partitions: Vec<OldPartition>,
    /// What is on the whole disk, beside a table.
    pub(in crate::machine::disk) signatures: Vec<Signature>,
    /// Whether there is something else: neither a table nor a signature is known, but its ends are not blank.
    /// It may be a database, an encrypted volume without a header, or the rest of what was deleted.
    pub(super) unrecognised: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    Gpt,
    Mbr,
    /// A GUID Partition Table that can't be read, and why.
    DamagedGpt(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OldPartition {
    pub number: u32,
    pub name: Option<String>,
    pub extent: Extent,
    pub size_bytes: u64,
    pub signatures: Vec<Signature>,
}

/// A disk whose contents may be destroyed: it has none, or the user agreed.
#[derive(Debug)]
pub struct Expendable {
    pub(super) disk: Disk,
    contents: Contents,
}

impl Expendable {
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn contents(&self) -> &Contents {
        &self.contents
    }
}

impl Disk {
    /// Lets the disk be wiped, when it is empty or `wipe` allows it.
    pub fn give_up(self, wipe: bool) -> anyhow::Result<Expendable> {
        self.refuse_multipath()?;
        self.refuse_read_only()?;
        self.refuse_if_in_use()?;
        let contents = self.contents()?;
        ensure!(
            wipe || contents.is_empty(),
            "{} is not empty; --wipe destroys what it holds: {contents}",
            self.path.display()
        );
        Ok(Expendable { disk: self, contents })
    }

    /// Looks at what the disk holds.
    pub fn contents(&self) -> anyhow::Result<Contents> {
        let file = self
            .open()
            .with_context(|| format!("open(\"{}\")", self.node.display()))?;
        let mut region = Region::new(&file, 0, self.geometry.size_bytes);
        Contents::read(&mut region, self.geometry)
            .with_context(|| format!("looking at what {} holds", self.path.display()))
    }

    /// The GUIDs of its partitions, by which boot entries name them; none where there is no GPT that is
    /// sound.
    pub fn partition_guids(&self) -> anyhow::Result<Vec<Uuid>> {
        let table = match Table::read(&mut self.open()?, self.geometry) {
            Err(GptError::Damaged { .. }) => None,
            table => table?,
        };
        let partitions = table.iter().flat_map(Table::partitions);
        Ok(partitions.map(|each| each.uuid).collect())
    }

    /// The same of all other disks of this machine.
    pub fn partition_guids_of_others(&self) -> anyhow::Result<Vec<Uuid>> {
        let mut guids = Vec::new();
        // A drive without a medium has no size.
        for other in disks()?.iter().filter(|other| other.disk.size_bytes > 0) {
            let other = Self::probe(Path::new(&other.disk.name))?;
            if other.number != self.number {
                guids.extend(other.partition_guids()?);
            }
        }
        Ok(guids)
    }
}

impl Contents {
    /// Looks at what a disk of this geometry holds, or a file like one.
    pub fn read<D: Read + Seek>(disk: &mut D, geometry: Geometry) -> io::Result<Self> {
        let signatures = identify(disk, geometry.size_bytes)?;
        let (table, partitions) = match Table::read(disk, geometry) {
            Ok(Some(table)) => {
                let partitions = table.partitions();
                let partitions = partitions.map(|each| (each.number, Some(each.name), each.extent));
                (Some(TableKind::Gpt), partitions.collect())
            }
            // What looks like records in a file system's boot sector is boot code.
            Ok(None) => match mbr::partitions(disk, &geometry)?.filter(|_| signatures.is_empty()) {
                Some(partitions) => {
                    let partitions = partitions.iter().map(|each| (each.number, None, each.extent));
                    (Some(TableKind::Mbr), partitions.collect())
                }
                None => (None, Vec::new()),
            },
            Err(GptError::Io(error)) => return Err(error),
            Err(error) => (Some(TableKind::DamagedGpt(error.to_string())), Vec::new()),
        };
        let partitions = partitions
            .into_iter()
            .map(|(number, name, extent)| old_partition(disk, &geometry, number, name, extent))
            .collect::<io::Result<_>>()?;
        let is_known = table.is_some() || !signatures.is_empty();
        Ok(Self {
            table,
            partitions,
            signatures,
            unrecognised: !is_known && holds_anything(disk, geometry.size_bytes)?,
        })
    }

    /// The number, start and length in bytes of the partition that is a config drive.
    pub fn config_drive(&self, geometry: &Geometry) -> Option<(u32, u64, u64)> {
        let found = self.partitions.iter().find(|each| each.is_config_drive())?;
        let (start_bytes, size_bytes) = found.extent.bytes(geometry);
        Some((found.number, start_bytes, size_bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_none() && self.signatures.is_empty() && !self.unrecognised
    }
}

impl OldPartition {
    /// Whether readers of config drives would take it for one.
    pub fn is_config_drive(&self) -> bool {
        self.signatures.iter().any(Signature::is_config_drive)
    }
}

/// Whether the first or the last mebibyte has anything but what erased disks give: zeros, or ones.
fn holds_anything<D: Read + Seek>(disk: &mut D, size_bytes: u64) -> io::Result<bool> {
    for start in [0, size_bytes.saturating_sub(MIB)] {
        let bytes = read_up_to(disk, start, MIB as usize)?;
        let is_all = |fill: u8| bytes.iter().all(|byte| *byte == fill);
        if !is_all(0) && !is_all(0xff) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn old_partition<D: Read + Seek>(
    disk: &mut D,
    geometry: &Geometry,
    number: u32,
    name: Option<String>,
    extent: Extent,
) -> io::Result<OldPartition> {
    let disk_bytes = geometry.sectors() * geometry.sector_bytes;
    let start = extent
        .start_lba
        .saturating_mul(geometry.sector_bytes)
        .min(disk_bytes);
    let size_bytes = extent.sectors.saturating_mul(geometry.sector_bytes);
    let length = size_bytes.min(disk_bytes - start);
    let signatures = identify(
        &mut Window {
            inner: disk,
            start,
            length,
            position: 0,
        },
        length,
    )?;
    let name = name.filter(|name| !name.is_empty());
    Ok(OldPartition {
        number,
        name,
        extent,
        size_bytes,
        signatures,
    })
}

struct Window<'inner, D> {
    inner: &'inner mut D,
    start: u64,
    length: u64,
    position: u64,
}

impl<D: Read + Seek> Read for Window<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        self.inner
            .seek(SeekFrom::Start(self.start + self.position.min(self.length)))?;
        let read = self.inner.by_ref().take(left).read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl<D> Seek for Window<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.signatures.iter().map(Signature::to_string).collect();
        match &self.table {
            Some(TableKind::Gpt) => parts.push(format!("a GPT with {}", count(self.partitions.len()))),
            Some(TableKind::Mbr) => parts.push(format!("an MBR with {}", count(self.partitions.len()))),
            Some(TableKind::DamagedGpt(_)) => parts.push("a GPT that cannot be read".into()),
            None => {}
        }
        if self.unrecognised {
            parts.push("unrecognised data, or remains of deleted data".into());
        }
        parts.extend(self.partitions.iter().map(OldPartition::to_string));
        if parts.is_empty() {
            return out.write_str("nothing");
        }
        out.write_str(&parts.join("; "))
    }
}

fn count(partitions: usize) -> String {
    if partitions == 1 {
        "1 partition".into()
    } else {
        format!("{partitions} partitions")
    }
}

impl fmt::Display for OldPartition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.number)?;
        if let Some(name) = &self.name {
            write!(out, " \"{}\"", name.escape_debug())?;
        }
        write!(out, " {} MiB", self.size_bytes / MIB)?;
        self.signatures
            .iter()
            .try_for_each(|signature| write!(out, ", {signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SIZE: u64 = 8 * MIB;

    fn contents(disk: Vec<u8>) -> Contents {
        Contents::read(&mut Cursor::new(disk), Geometry::plain(SIZE, 512)).unwrap()
    }

    #[test]
    fn an_empty_disk_is_empty() {
        let contents = contents(vec![0; SIZE as usize]);
        assert!(contents.is_empty());
        assert_eq!(contents.to_string(), "nothing");
    }

    #[test]
    fn what_nobody_recognises_is_something_all_the_same() {
        for at in [0, 1023 * 1024, SIZE - MIB, SIZE - 1] {
            let mut disk = vec![0; SIZE as usize];
            disk[at as usize] = 1;
            let contents = contents(disk);
            assert!(!contents.is_empty(), "byte {at}");
            assert_eq!(
                contents.to_string(),
                "unrecognised data, or remains of deleted data"
            );
        }
        assert!(contents(vec![0xff; SIZE as usize]).is_empty());
    }

    #[test]
    fn an_mbr_with_a_filesystem_in_it() {
        let mut disk = vec![0; SIZE as usize];
        disk[450] = 0x83;
        disk[454..458].copy_from_slice(&2048_u32.to_le_bytes());
        disk[458..462].copy_from_slice(&8192_u32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[2048 * 512..2048 * 512 + 4].copy_from_slice(b"XFSB");
        disk[2048 * 512 + 108..2048 * 512 + 112].copy_from_slice(b"data");
        let contents = contents(disk);
        assert_eq!(contents.table, Some(TableKind::Mbr));
        assert_eq!(
            contents.to_string(),
            "an MBR with 1 partition; 1: 4 MiB, xfs \"data\""
        );
    }

    #[test]
    fn a_partition_that_leaves_the_disk_is_looked_at_as_far_as_it_goes() {
        let mut disk = vec![0; SIZE as usize];
        disk[450] = 0x83;
        disk[454..458].copy_from_slice(&16_383_u32.to_le_bytes());
        disk[458..462].copy_from_slice(&u32::MAX.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(contents(disk).partitions.len(), 1);
    }

    #[test]
    fn a_damaged_gpt_counts_as_contents() {
        let mut disk = vec![0; SIZE as usize];
        disk[512..520].copy_from_slice(b"EFI PART");
        let contents = contents(disk);
        assert!(!contents.is_empty());
        assert_eq!(contents.to_string(), "a GPT that cannot be read");
    }
}
