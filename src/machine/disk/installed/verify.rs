//! Whether a disk is what was planned: the table sector by sector, a boot loader where firmware looks for one, and a
//! root filesystem. Reads the disk's own bytes; mounts nothing.

use std::io::{self, Read, Seek};

use serde::Serialize;

use crate::machine::disk::layout::{Arch, BlockSetup, LINUX_TYPE, Layout, Planned, Role};
use crate::machine::disk::table::geometry::Extent;
use crate::machine::disk::table::gpt::{GptError, Partition, Table};
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::{FilesystemError, Signature, identify};

/// The most directories that are looked at for a boot loader.
const MAX_LOADER_DIRECTORIES: usize = 64;
/// The most files that are looked at for a unified kernel image.
const MAX_UNIFIED_KERNEL_IMAGES: usize = 128;

/// How the disk is meant to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootPath {
    /// By a boot loader that the image installs.
    Loader,
    /// In a way that Landfall doesn't know (`--bootloader none`).
    Foreign,
}

/// The boot loader that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootLoader {
    /// Its path on the EFI system partition.
    pub path: String,
    /// Whether it is where firmware looks without a boot entry.
    pub is_fallback: bool,
}

/// Why an installed disk was not verified. Only one that is wrong has to go.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// It is not what was planned.
    #[error(transparent)]
    Wrong(#[from] VerifyError),
    /// It could not be looked at, which says nothing about it.
    #[error("{0:#}")]
    NotChecked(anyhow::Error),
}

impl From<anyhow::Error> for Unverified {
    fn from(error: anyhow::Error) -> Self {
        Self::NotChecked(error)
    }
}

impl From<io::Error> for Unverified {
    fn from(error: io::Error) -> Self {
        Self::NotChecked(error.into())
    }
}

impl From<GptError> for Unverified {
    fn from(error: GptError) -> Self {
        match error {
            GptError::Io(_) => Self::NotChecked(error.into()),
            _ => Self::Wrong(VerifyError::Table(error)),
        }
    }
}

/// How the disk differs from what was planned.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no table.
    #[error("the disk has no partition table")]
    NoTable,
    /// Its table is damaged.
    #[error(transparent)]
    Table(GptError),
    /// A partition is missing.
    #[error("partition {number} ({name}) is missing")]
    Missing {
        /// The planned number.
        number: u32,
        /// The planned name.
        name: &'static str,
    },
    /// A partition is elsewhere.
    #[error(
        "partition {number} ({name}) has {} sectors from {}; planned were {} from {}",
        found.sectors, found.start_lba, planned.sectors, planned.start_lba
    )]
    Misplaced {
        /// Its number.
        number: u32,
        /// Its planned name.
        name: &'static str,
        /// Where it is.
        found: Extent,
        /// Where it was to be.
        planned: Extent,
    },
    /// A partition is something else.
    #[error(
        "partition {number} is \"{found}\" of type {found_type}; planned was \"{planned}\" of type {planned_type}"
    )]
    WrongKind {
        /// Its number.
        number: u32,
        /// Its name.
        found: String,
        /// Its type GUID.
        found_type: uuid::Uuid,
        /// The planned name.
        planned: &'static str,
        /// The planned type GUID.
        planned_type: uuid::Uuid,
    },
    /// There is a partition that was not planned.
    #[error("partition {number} (\"{name}\") was not planned")]
    Unplanned {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
    },
    /// The ESP is not FAT.
    #[error("the EFI system partition: {0}")]
    Esp(#[source] FilesystemError),
    /// The ESP has no boot loader.
    #[error(
        "the EFI system partition holds no boot loader (neither {fallback} nor shim, GRUB, systemd-boot or a unified kernel \
         image elsewhere): the disk can't boot under UEFI; boot the ramdisk by UEFI, and see that \
         efivarfs is mounted and the image has bootupd or systemd-boot"
    )]
    NoBootLoader {
        /// What firmware looks for.
        fallback: &'static str,
    },
    /// The root partition holds something else.
    #[error("the root partition holds {found}; expected was {expected}")]
    Root {
        /// What is there.
        found: String,
        /// What was to be there.
        expected: &'static str,
    },
}

/// Compares the table with the plan. The planned config drive may be there or not.
pub fn check_table(layout: &Layout, table: &Table) -> Result<(), VerifyError> {
    for planned in &layout.partitions {
        let (number, name) = (planned.number, planned.name);
        let found = table.partitions().find(|partition| partition.number == number);
        let found = found.ok_or(VerifyError::Missing { number, name })?;
        if found.extent != planned.extent {
            return Err(VerifyError::Misplaced {
                number,
                name,
                found: found.extent,
                planned: planned.extent,
            });
        }
        if found.name != name || !is_type_of(planned, layout.arch, &found) {
            return Err(VerifyError::WrongKind {
                number,
                found: found.name.escape_debug().to_string(),
                found_type: found.type_guid,
                planned: name,
                planned_type: planned.type_guid,
            });
        }
    }
    let is_planned = |partition: &Partition| {
        layout
            .partitions
            .iter()
            .any(|planned| planned.number == partition.number)
            || layout.config_drive == Some(partition.extent)
    };
    match table.partitions().find(|partition| !is_planned(partition)) {
        Some(Partition { number, name, .. }) => Err(VerifyError::Unplanned {
            number,
            name: name.escape_debug().to_string(),
        }),
        None => Ok(()),
    }
}

/// Before its version is known, bootc may give root either of two types.
fn is_type_of(planned: &Planned, arch: Arch, found: &Partition) -> bool {
    found.type_guid == planned.type_guid
        || (planned.role == Role::Root && [LINUX_TYPE, arch.root_type()].contains(&found.type_guid))
}

/// Finds what starts the system on the EFI system partition.
pub fn find_boot_loader<D: Read + Seek>(esp: D, arch: Arch) -> Result<BootLoader, Unverified> {
    let found = Volume::open(esp).and_then(|mut esp| find_loader(&mut esp, arch));
    let found = found.map_err(|error| match error {
        FilesystemError::Io(error) => error.into(),
        unsound @ FilesystemError::Unsound { .. } => Unverified::Wrong(VerifyError::Esp(unsound)),
    })?;
    let none = VerifyError::NoBootLoader {
        fallback: arch.fallback_loader(),
    };
    Ok(found.ok_or(none)?)
}

fn find_loader<D: Read + Seek>(
    esp: &mut Volume<D>,
    arch: Arch,
) -> Result<Option<BootLoader>, FilesystemError> {
    let fallback = arch.fallback_loader();
    if is_program(esp, fallback)? {
        return Ok(Some(BootLoader {
            path: fallback.into(),
            is_fallback: true,
        }));
    }
    // Only a boot entry can start these.
    let path = match vendors_loader(esp, arch)? {
        None => unified_kernel_image(esp)?,
        found => found,
    };
    Ok(path.map(|path| BootLoader {
        path,
        is_fallback: false,
    }))
}

/// A boot loader in a directory of its own, like `EFI/fedora/shimx64.efi`. Anything else may be a tool.
fn vendors_loader<D: Read + Seek>(
    esp: &mut Volume<D>,
    arch: Arch,
) -> Result<Option<String>, FilesystemError> {
    for directory in esp.list("EFI")?.iter().take(MAX_LOADER_DIRECTORIES) {
        // shim comes first: it starts the others where firmware trusts nothing but it.
        for loader in ["shim", "systemd-boot", "grub"] {
            for suffix in [arch.efi_suffix(), ""] {
                let path = format!("EFI/{}/{loader}{suffix}.efi", directory.name);
                if is_program(esp, &path)? {
                    return Ok(Some(path));
                }
            }
        }
    }
    Ok(None)
}

/// The first unified kernel image where the Boot Loader Specification has them.
fn unified_kernel_image<D: Read + Seek>(esp: &mut Volume<D>) -> Result<Option<String>, FilesystemError> {
    const DIRECTORY: &str = "EFI/Linux";
    for entry in esp.list(DIRECTORY)?.iter().take(MAX_UNIFIED_KERNEL_IMAGES) {
        let path = format!("{DIRECTORY}/{}", entry.name);
        if entry.name.to_lowercase().ends_with(".efi") && is_program(esp, &path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether there is an EFI program at `path`. Every one begins like one for DOS.
fn is_program<D: Read + Seek>(esp: &mut Volume<D>, path: &str) -> Result<bool, FilesystemError> {
    match esp.find(path)? {
        Some(entry) if !entry.is_directory => Ok(esp.read(&entry, 2)? == b"MZ"),
        _ => Ok(false),
    }
}

/// Checks that the root partition holds a filesystem that Linux boots from, or LUKS where that was asked for.
pub fn check_root<D: Read + Seek>(
    root: &mut D,
    size_bytes: u64,
    block_setup: BlockSetup,
) -> Result<Signature, Unverified> {
    let (expected, kinds): (_, &[&str]) = match block_setup {
        BlockSetup::Direct => ("a filesystem (ext4, xfs or btrfs)", &["ext4", "xfs", "btrfs"]),
        BlockSetup::Tpm2Luks => ("LUKS", &["crypto_LUKS"]),
    };
    let found = identify(root, size_bytes)?;
    if let Some(signature) = found.iter().find(|signature| kinds.contains(&signature.kind)) {
        return Ok(signature.clone());
    }
    let found: Vec<String> = found.iter().map(Signature::to_string).collect();
    let found = if found.is_empty() {
        "nothing that is known".into()
    } else {
        found.join(", ")
    };
    Err(VerifyError::Root { found, expected }.into())
}
