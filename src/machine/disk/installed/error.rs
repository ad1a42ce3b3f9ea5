//! Why a disk is not what an installation leaves, or why that can't be told.

use std::io;

use crate::machine::disk::table::geometry::Extent;
use crate::machine::disk::table::gpt::GptError;
use crate::machine::filesystem::FilesystemError;

/// Why an installed disk was not verified. Only one that is wrong is cleared.
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
    #[error("the disk has no partition table")]
    NoTable,
    #[error(transparent)]
    Table(GptError),
    #[error("there is no {0} partition")]
    NoPartition(&'static str),
    #[error("partition {number} ({name}) is missing")]
    Missing { number: u32, name: &'static str },
    #[error(
        "partition {number} ({name}) has {} sectors from {}; planned {} from {}",
        found.sectors, found.start_lba, planned.sectors, planned.start_lba
    )]
    Misplaced {
        number: u32,
        name: &'static str,
        found: Extent,
        planned: Extent,
    },
    #[error(
        "partition {number} is \"{found}\" of type {found_type}; planned \"{planned}\" of type {planned_type}"
    )]
    WrongKind {
        number: u32,
        found: String,
        found_type: uuid::Uuid,
        planned: &'static str,
        planned_type: uuid::Uuid,
    },
    #[error("partition {number} (\"{name}\") was not planned")]
    Unplanned { number: u32, name: String },
    #[error("the EFI system partition: {0}")]
    Esp(#[source] FilesystemError),
    #[error(
        "the EFI system partition holds no boot loader (neither {fallback} nor shim, GRUB, systemd-boot or a \
         unified kernel image elsewhere): the disk cannot boot under UEFI; boot the ramdisk by UEFI, and \
         check that efivarfs is mounted and the image has bootupd or systemd-boot"
    )]
    NoBootLoader { fallback: &'static str },
    #[error("the root partition holds {found}; expected {expected}")]
    Root { found: String, expected: &'static str },
}
