//! Why a disk is not what an installation leaves, or why that can't be told.

use std::io;

use crate::machine::disk::table::geometry::Extent;
use crate::machine::disk::table::gpt::GptError;
use crate::machine::filesystem::FilesystemError;

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
    /// There is no partition that it can't be without.
    #[error("there is no {0} partition")]
    NoPartition(&'static str),
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
