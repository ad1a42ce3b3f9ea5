//! What a layout is made for: the machine, the image's backend, its bootc.

use std::num::ParseIntError;
use std::str::FromStr;

use serde::Serialize;
use uuid::{Uuid, uuid};

use crate::machine::disk::table::geometry::Geometry;

/// The machine that will boot the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86: the layout begins with a BIOS boot partition.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// The architecture that an image's platform names (`amd64`, `arm64`).
    pub fn from_oci(name: &str) -> Option<Self> {
        match name {
            "amd64" => Some(Self::X86_64),
            "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The type GUID of a root partition (Discoverable Partitions Specification).
    pub(in crate::machine::disk) fn root_type(self) -> Uuid {
        match self {
            Self::X86_64 => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            Self::Aarch64 => uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
        }
    }

    /// The machine whose systems have root partitions of this type.
    pub(in crate::machine::disk) fn of_root_type(type_guid: Uuid) -> Option<Self> {
        let mut all = [Self::X86_64, Self::Aarch64].into_iter();
        all.find(|arch| arch.root_type() == type_guid)
    }

    /// What firmware starts when it has no boot entry, relative to the ESP.
    pub fn fallback_loader(self) -> &'static str {
        match self {
            Self::X86_64 => "EFI/BOOT/BOOTX64.EFI",
            Self::Aarch64 => "EFI/BOOT/BOOTAA64.EFI",
        }
    }

    /// What ends the names of EFI programs for this machine.
    pub(in crate::machine::disk) fn efi_suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "x64",
            Self::Aarch64 => "aa64",
        }
    }
}

/// What keeps the system's files on the root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// An ostree repository.
    Ostree,
    /// composefs, as for images with a UKI: its ESP is larger.
    Composefs,
}

/// What is between the root partition and its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum BlockSetup {
    /// Nothing
    #[default]
    #[serde(rename = "direct")]
    Direct,
    /// LUKS, unlocked by the machine's TPM 2.0
    // It needs a `boot` partition.
    #[serde(rename = "tpm2-luks")]
    Tpm2Luks,
}

impl BlockSetup {
    /// bootc's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tpm2Luks => "tpm2-luks",
        }
    }
}

/// A version of bootc: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BootcVersion(pub u32, pub u32);

impl BootcVersion {
    /// Since this one, composefs has a larger ESP and the root partition its discoverable type.
    pub(super) const DISCOVERABLE: Self = Self(1, 11);
}

impl FromStr for BootcVersion {
    type Err = ParseIntError;

    /// Reads the first two numbers of e.g. `1.16.9`.
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut numbers = text.split('.');
        let mut next = || numbers.next().unwrap_or("0").parse();
        Ok(Self(next()?, next()?))
    }
}

impl Default for BootcVersion {
    /// A current one; also the one whose layout takes the most room.
    fn default() -> Self {
        Self(1, 16)
    }
}

/// What a layout is for.
#[derive(Clone, Copy, Debug)]
pub struct LayoutRequest {
    /// The disk.
    pub geometry: Geometry,
    /// The machine.
    pub arch: Arch,
    /// bootc's backend.
    pub backend: Backend,
    /// bootc's block setup.
    pub block_setup: BlockSetup,
    /// bootc's version, once it is known.
    pub bootc: BootcVersion,
    /// Whether a config drive's partition ends the disk.
    pub config_drive: bool,
    /// The least size of the root partition in MiB.
    pub root_at_least_mib: u64,
    /// The size of the root partition in MiB, when it is not to take all there is.
    pub root_exactly_mib: Option<u64>,
}
