//! Which disk it is: facts from sysfs and ioctls, without udev.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::stat::{major, minor};
use serde::Serialize;

use crate::machine::disk::find::discover::resolve;
use crate::machine::disk::find::identity::Identity;
use crate::machine::disk::find::sysfs::{
    KernelPartition, attribute, base_name, flag, is_multipath, kernel_partitions,
};
use crate::machine::disk::table::geometry::Geometry;
use crate::sys::block;

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// As it was named, e.g. `/dev/disk/by-id/nvme-…`.
    pub path: PathBuf,
    /// The node that this leads to, e.g. `/dev/nvme0n1`.
    pub node: PathBuf,
    /// The kernel's name, e.g. `nvme0n1`.
    pub name: String,
    /// The device number: major and minor.
    pub number: (u64, u64),
    /// Its size and sectors.
    pub geometry: Geometry,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether it can be taken out, as far as the kernel knows.
    pub removable: bool,
    /// Whether it is a spinning disk, as far as the kernel knows.
    pub rotational: bool,
    /// What the manufacturer calls it.
    pub identity: Identity,
    /// The partitions that the kernel knows. It may know none of those that are in the table.
    pub partitions: Vec<KernelPartition>,
    /// The kernel's number for this very appearance of the disk.
    pub(in crate::machine::disk) sequence: Option<u64>,
}

impl Disk {
    /// Whether the kernel has found a disk of this name by now, or one that udev would give it.
    pub fn is_there(path: &Path) -> bool {
        path.exists() || resolve(path).is_ok_and(|found| !found.is_empty())
    }

    /// Finds out about the whole disk that `path` names, directly or through links; those of udev need not be
    /// there.
    pub fn probe(path: &Path) -> Result<Self> {
        let shown = path.display();
        let call = |call: &str| format!("{call}(\"{shown}\")");
        let node = fs::canonicalize(path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => only_disk(path),
            _ => Err(error).with_context(|| call("realpath")),
        })?;
        let metadata = fs::metadata(&node).with_context(|| call("stat"))?;
        if !metadata.file_type().is_block_device() {
            bail!("{shown} is not a block device");
        }
        let number = (major(metadata.rdev()), minor(metadata.rdev()));
        let link = format!("/sys/dev/block/{}:{}", number.0, number.1);
        let directory = fs::canonicalize(&link).with_context(|| format!("realpath(\"{link}\")"))?;
        refuse_parts(path, &directory)?;
        let empty = || anyhow!("{shown} is empty: its size is 0 bytes");
        let file = File::open(&node).map_err(|error| match error.raw_os_error() {
            // It has no medium in it.
            Some(nix::libc::ENOMEDIUM | nix::libc::ENXIO) => empty(),
            _ => anyhow::Error::new(error).context(call("open")),
        })?;
        let name = base_name(&directory);
        let disk = Self {
            path: path.into(),
            node: kernels_node(&name, metadata.rdev()).unwrap_or(node),
            name,
            number,
            geometry: block::limits(&file).with_context(|| shown.to_string())?.into(),
            read_only: block::is_read_only(&file).with_context(|| shown.to_string())?,
            removable: flag(&directory.join("removable")),
            rotational: flag(&directory.join("queue/rotational")),
            identity: Identity::read(&directory),
            partitions: kernel_partitions(&directory).with_context(|| call("readdir"))?,
            sequence: block::disk_sequence(&file),
        };
        ensure!(disk.geometry.size_bytes > 0, empty());
        Ok(disk)
    }

    pub(in crate::machine::disk) fn refuse_read_only(&self) -> Result<()> {
        ensure!(!self.read_only, "{} is read-only", self.path.display());
        Ok(())
    }

    /// An error for a disk that device-mapper makes of several paths. It can be read and written, but not
    /// partitioned.
    pub(in crate::machine::disk) fn refuse_multipath(&self) -> Result<()> {
        ensure!(
            !is_multipath(&self.sysfs()),
            "{} is a multipath device, on which this kernel makes no partitions, so no bootc installs onto \
             it: stop multipathd, remove the device (`multipath -f`), and name one of its paths",
            self.path.display()
        );
        Ok(())
    }

    /// The node of one of its partitions, whether or not it exists: `/dev/sda3`, `/dev/nvme0n1p3`.
    pub fn partition_node(&self, number: u32) -> PathBuf {
        let ends_with_digit = self.name.ends_with(|last: char| last.is_ascii_digit());
        let separator = if ends_with_digit { "p" } else { "" };
        PathBuf::from(format!("/dev/{}{separator}{number}", self.name))
    }

    pub(in crate::machine::disk) fn sysfs(&self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{}:{}", self.number.0, self.number.1))
    }

    pub(in crate::machine::disk) fn open(&self) -> io::Result<File> {
        File::open(&self.node)
    }

    pub(in crate::machine::disk) fn open_for_writing(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(&self.node)
    }

    /// Opens the disk as its only user: fails with EBUSY when it or a partition is mounted or held.
    pub(in crate::machine::disk) fn open_exclusively(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_EXCL)
            .open(&self.node)
    }
}

/// The one disk to which udev would make `path` lead. It may give several the same name, as it does with the
/// paths to one disk.
fn only_disk(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    match &resolve(path).context("readdir(\"/sys/block\")")?[..] {
        [] => bail!("{shown}: no such device; `landfall disks` lists the disks"),
        [node] => Ok(node.into()),
        nodes => bail!(
            "{shown} is the name of several disks: say which one: {}",
            nodes.join(", ")
        ),
    }
}

/// The kernel's own node for a device, which is there in every devtmpfs: those of others need not be.
fn kernels_node(name: &str, number: u64) -> Option<PathBuf> {
    let node = Path::new("/dev").join(name.replace('!', "/"));
    let found = fs::metadata(&node).ok()?;
    (found.file_type().is_block_device() && found.rdev() == number).then_some(node)
}

/// Refuses what is a part of a disk, or made from disks in a way that is no disk.
fn refuse_parts(path: &Path, directory: &Path) -> Result<()> {
    let shown = path.display();
    let partition = directory.join("partition");
    let is_part = partition.try_exists();
    if is_part.with_context(|| format!("stat(\"{}\")", partition.display()))? {
        let disk = directory.parent().map(base_name).unwrap_or_default();
        bail!("{shown} is a partition; the whole disk is /dev/{disk}");
    }
    let Some(uuid) = attribute(&directory.join("dm/uuid")) else {
        return Ok(());
    };
    let kind = match uuid.split('-').next().unwrap_or_default() {
        "mpath" => return Ok(()),
        "LVM" => "a logical volume of LVM",
        "CRYPT" => "an opened encrypted volume",
        part if part.starts_with("part") => "a partition of a mapped device",
        _ => "a mapped device",
    };
    bail!("{shown} is {kind}, not a disk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::sysfs;

    type Files<'a> = &'a [(&'a str, &'a [u8])];

    #[test]
    fn parts_of_disks_are_refused_by_what_they_are() {
        let message = |files: Files<'_>| {
            let directory = sysfs(files);
            refuse_parts(Path::new("/dev/x"), directory.path()).map_err(|error| error.to_string())
        };
        assert_eq!(message(&[]), Ok(()));
        assert_eq!(message(&[("dm/uuid", b"mpath-3600\n")]), Ok(()));
        assert_eq!(
            message(&[("dm/uuid", b"LVM-abc\n")]),
            Err("/dev/x is a logical volume of LVM, not a disk".into())
        );
        assert!(message(&[("dm/uuid", b"part1-mpath-3600\n")]).is_err());
        let parent = sysfs(&[("sda1/partition", b"1\n")]);
        let error = refuse_parts(Path::new("/dev/sda1"), &parent.path().join("sda1")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/dev/sda1 is a partition; the whole disk is /dev/")
        );
    }

    #[test]
    fn kernel_partitions_are_listed_by_number() {
        let directory = sysfs(&[
            ("sda10/partition", "10\n"),
            ("sda10/dev", "8:10\n"),
            ("sda2/partition", "2\n"),
            ("sda2/dev", "8:2\n"),
            ("queue/rotational", "1\n"),
        ]);
        let names: Vec<_> = kernel_partitions(directory.path())
            .unwrap()
            .into_iter()
            .map(|each| each.name)
            .collect();
        assert_eq!(names, ["sda2", "sda10"]);
    }

    #[test]
    fn what_is_no_disk_is_said_plainly() {
        let missing = Disk::probe(Path::new("/dev/no-such-disk")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("/dev/no-such-disk: no such device")
        );
        let null = Disk::probe(Path::new("/dev/null")).unwrap_err();
        assert_eq!(null.to_string(), "/dev/null is not a block device");
    }
}
