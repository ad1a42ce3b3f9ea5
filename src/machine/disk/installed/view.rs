//! A disk with a system on it: its table, its partitions by what they are for, and what is on them. Nothing
//! is written.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::boot_loader::{BootLoader, find_boot_loader};
use super::error::{Unverified, VerifyError};
use super::kernel_view::{KernelView, show_to_kernel};
use crate::machine::disk::chosen::device::Disk;
use crate::machine::disk::find::sysfs::{attribute, kernel_partitions};
use crate::machine::disk::layout::{Arch, BlockSetup, Layout, Role};
use crate::machine::disk::table::gpt::{Partition, Table};
use crate::machine::filesystem::{Signature, identify};
use crate::sys::block::Region;

#[derive(Debug)]
pub struct InstalledDisk {
    pub(super) disk: Disk,
    pub(super) file: File,
    pub(super) table: Table,
    pub boot_loader: Result<BootLoader, Unverified>,
    pub root: Result<(Partition, Signature), Unverified>,
}

impl InstalledDisk {
    pub fn probe(disk: Disk) -> Result<Self> {
        let describe = || format!("reading {}", disk.path.display());
        let mut file = disk.open().with_context(describe)?;
        let table = Table::read(&mut file, disk.geometry).with_context(describe)?;
        let table = table.ok_or(VerifyError::NoTable).with_context(describe)?;
        Ok(Self::look(disk, file, table, None))
    }

    /// Looks for what was planned, or, if nobody knows that, for what installations leave.
    pub(super) fn look(disk: Disk, file: File, table: Table, planned: Option<&Layout>) -> Self {
        let missing = |what| Unverified::Wrong(VerifyError::NoPartition(what));
        let mut found = Self {
            disk,
            file,
            table,
            boot_loader: Err(missing("EFI system")),
            root: Err(missing("root")),
        };
        let root = found.partition(Role::Root);
        if let Some(esp) = found.partition(Role::Esp) {
            let arch = planned.map(|layout| layout.arch);
            let arch = arch.or_else(|| Arch::of_root_type(root.as_ref()?.type_guid));
            found.boot_loader = find_boot_loader(found.region(&esp), arch);
        }
        if let Some(root) = root {
            let (mut region, setup) = (found.region(&root), planned.map(|layout| layout.block_setup));
            let length = region.length_bytes();
            found.root = check_root(&mut region, length, setup).map(|signature| (root, signature));
        }
        found
    }

    /// Whether both copies of the table and the protective MBR are sound and where they belong.
    pub fn table_is_in_order(&self) -> bool {
        self.table.is_in_order()
    }

    /// The partition for `role`, told by its type or, where types say nothing, by bootc's name for it.
    pub fn partition(&self, role: Role) -> Option<Partition> {
        self.table.partitions().find(|each| role_of(each) == Some(role))
    }

    pub fn region(&self, partition: &Partition) -> Region<'_> {
        let (start, length) = partition.extent.bytes(&self.disk.geometry);
        Region::new(&self.file, start, length)
    }

    pub fn signatures(&self, partition: &Partition) -> Result<Vec<Signature>> {
        let mut region = self.region(partition);
        let length = region.length_bytes();
        identify(&mut region, length).with_context(|| format!("reading partition {}", partition.number))
    }

    /// The node of a partition. A kernel that doesn't know the partition, or has another place for it, is
    /// told of it; it refuses that while what it knows there is in use.
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

fn role_of(partition: &Partition) -> Option<Role> {
    Role::of_type(&partition.type_guid).or(match partition.name.as_str() {
        "root" => Some(Role::Root),
        "boot" => Some(Role::Boot),
        _ => None,
    })
}

/// Checks that a root partition holds a file system that Linux boots from, or LUKS, and says which; with
/// `block_setup` only what was asked for.
pub fn check_root<D: Read + Seek>(
    root: &mut D,
    size_bytes: u64,
    block_setup: Option<BlockSetup>,
) -> Result<Signature, Unverified> {
    let (expected, kinds): (_, &[&str]) = match block_setup {
        Some(BlockSetup::Tpm2Luks) => ("LUKS", &["crypto_LUKS"]),
        Some(BlockSetup::Direct) => ("a file system (ext4, xfs or btrfs)", &["ext4", "xfs", "btrfs"]),
        None => (
            "a file system (ext4, xfs or btrfs)",
            &["crypto_LUKS", "ext4", "xfs", "btrfs"],
        ),
    };
    let found = identify(root, size_bytes)?;
    let of_kind = |kind: &&str| found.iter().find(|signature| signature.kind == *kind);
    if let Some(signature) = kinds.iter().find_map(of_kind) {
        return Ok(signature.clone());
    }
    let found: Vec<String> = found.iter().map(Signature::to_string).collect();
    let found = if found.is_empty() {
        "nothing known".into()
    } else {
        found.join(", ")
    };
    Err(VerifyError::Root { found, expected }.into())
}
