//! The partitions of a disk that has a system, by what they are for. Read only.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::verify::{self, BootLoader, Unverified, VerifyError};
use crate::machine::disk::chosen::device::Disk;
use crate::machine::disk::find::sysfs::{attribute, kernel_partitions};
use crate::machine::disk::installed::{KernelView, show_to_kernel};
use crate::machine::disk::layout::{Arch, BlockSetup, Role};
use crate::machine::disk::table::gpt::{Partition, Table};
use crate::machine::filesystem::{Signature, identify};
use crate::sys::block::Region;

/// A disk with a GUID Partition Table, open for reading.
#[derive(Debug)]
pub struct Parts {
    /// The disk.
    pub disk: Disk,
    /// Its table.
    pub table: Table,
    file: File,
}

impl Parts {
    /// Reads the table of `disk`.
    pub fn read(disk: Disk) -> Result<Self> {
        let describe = || format!("reading {}", disk.path.display());
        let mut file = disk.open().with_context(describe)?;
        let table = Table::read(&mut file, disk.geometry).with_context(describe)?;
        let table = table.ok_or(VerifyError::NoTable).with_context(describe)?;
        Ok(Self { disk, table, file })
    }

    /// The partition for `role`, told by its type or, where types say nothing, by bootc's name for it.
    pub fn partition(&self, role: Role) -> Option<Partition> {
        self.table.partitions().find(|each| role_of(each) == Some(role))
    }

    /// The machine that the disk is for, if the type of its root partition says so.
    pub fn arch(&self) -> Option<Arch> {
        let root = self.partition(Role::Root)?;
        [Arch::X86_64, Arch::Aarch64]
            .into_iter()
            .find(|arch| arch.root_type() == root.type_guid)
    }

    /// The bytes of a partition.
    pub fn region(&self, partition: &Partition) -> Region<'_> {
        let (start, length) = partition.extent.bytes(&self.disk.geometry);
        Region::new(&self.file, start, length)
    }

    /// What is on a partition.
    pub fn signatures(&self, partition: &Partition) -> Result<Vec<Signature>> {
        let mut region = self.region(partition);
        let length = region.length_bytes();
        identify(&mut region, length).with_context(|| format!("reading partition {}", partition.number))
    }

    /// The node of a partition. A kernel that doesn't know the partition, or has another place for it, is told of it; it
    /// refuses that while what it knows there is in use.
    pub fn node(&self, partition: &Partition) -> Result<PathBuf> {
        if let Some(node) = self.known_node(partition)? {
            return Ok(node);
        }
        let Partition { number, extent, .. } = partition;
        let why = match show_to_kernel(&self.file, *number, extent, &self.disk.geometry) {
            KernelView::Unaware(why) => format!(" ({why})"),
            KernelView::Added | KernelView::Reread => String::new(),
        };
        self.known_node(partition)?.with_context(|| {
            let disk = self.disk.node.display();
            format!("the kernel does not see the partition{why}: run `partx -u {disk}`, then `landfall verify {disk}`")
        })
    }

    /// The node of a partition, if the kernel knows the partition and agrees about its place.
    fn known_node(&self, partition: &Partition) -> Result<Option<PathBuf>> {
        let known = kernel_partitions(&self.disk.sysfs())?;
        let Some(known) = known.iter().find(|known| known.partition == partition.number) else {
            return Ok(None);
        };
        let sysfs = self.disk.sysfs().join(&known.name);
        // sysfs counts in sectors of 512 bytes, whatever the disk has.
        let number = |name: &str| Some(attribute(&sysfs.join(name))?.parse::<u64>().ok()? * 512);
        let (start, length) = partition.extent.bytes(&self.disk.geometry);
        let same = (number("start"), number("size")) == (Some(start), Some(length));
        let node = self.disk.partition_node(partition.number);
        Ok((same && fs::exists(&node)?).then_some(node))
    }
}

/// What a partition is for.
fn role_of(partition: &Partition) -> Option<Role> {
    Role::of_type(&partition.type_guid).or(match partition.name.as_str() {
        "root" => Some(Role::Root),
        "boot" => Some(Role::Boot),
        _ => None,
    })
}

/// Finds what starts a system on its EFI system partition.
pub fn find_boot_loader<D: Read + Seek>(mut esp: D, arch: Option<Arch>) -> Result<BootLoader, Unverified> {
    match verify::find_boot_loader(&mut esp, arch.unwrap_or(Arch::X86_64)) {
        Err(Unverified::Wrong(VerifyError::NoBootLoader { .. })) if arch.is_none() => {
            verify::find_boot_loader(esp, Arch::Aarch64)
        }
        found => found,
    }
}

/// Checks that a root partition holds a filesystem that Linux boots from, or LUKS, and says which.
pub fn check_root<D: Read + Seek>(root: &mut D, size_bytes: u64) -> Result<Signature, Unverified> {
    match verify::check_root(root, size_bytes, BlockSetup::Tpm2Luks) {
        Err(Unverified::Wrong(_)) => verify::check_root(root, size_bytes, BlockSetup::Direct),
        found => found,
    }
}
