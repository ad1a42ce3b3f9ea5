//! What starts an installed system, on its EFI system partition.

use std::io::{Read, Seek};

use serde::Serialize;

use super::error::{Unverified, VerifyError};
use crate::machine::disk::layout::Arch;
use crate::machine::filesystem::FilesystemError;
use crate::machine::filesystem::fat::Volume;

/// The most directories that are looked at for a boot loader.
const MAX_LOADER_DIRECTORIES: usize = 64;
/// The most files that are looked at for a unified kernel image.
const MAX_UNIFIED_KERNEL_IMAGES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootLoader {
    /// Its path on the EFI system partition.
    pub path: String,
    /// Whether it is where firmware looks without a boot entry.
    pub is_fallback: bool,
}

/// Finds what starts a system on its EFI system partition; without `arch`, on either machine.
pub fn find_boot_loader<D: Read + Seek>(mut esp: D, arch: Option<Arch>) -> Result<BootLoader, Unverified> {
    match find_for(&mut esp, arch.unwrap_or(Arch::X86_64)) {
        Err(Unverified::Wrong(VerifyError::NoBootLoader { .. })) if arch.is_none() => {
            find_for(esp, Arch::Aarch64)
        }
        found => found,
    }
}

fn find_for<D: Read + Seek>(esp: D, arch: Arch) -> Result<BootLoader, Unverified> {
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
