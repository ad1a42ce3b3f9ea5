//! What can be wrong with a config drive, in words that repeat nothing of its content: that may be secret.

use std::io;
use std::path::PathBuf;

use hadris_fs::PathError;

use super::form::{Kind, LABEL, MAX_DEPTH, MAX_FILES};
use crate::machine::filesystem::FilesystemError;

/// Why something is no config drive.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDriveError {
    /// It can't be read.
    #[error("reading the config drive: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the config drive is empty")]
    Empty,
    /// It is too large.
    #[error("the config drive is larger than 64 MiB, the size of its partition")]
    TooLarge,
    /// gzip or base64 that breaks off or is wrong.
    #[error("the config drive is damaged {encoding}: {problem}")]
    Damaged {
        /// `gzip` or `base64`.
        encoding: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// It is not a file system that readers of config drives know.
    #[error(
        "the config drive holds {found}; it must be an ISO 9660 or FAT image, plain or as gzip or base64"
    )]
    Unknown {
        /// What was found.
        found: String,
    },
    /// It has another label.
    #[error("the config drive is labelled {found}; readers look for \"{LABEL}\"")]
    Label {
        /// Its label.
        found: String,
    },
    /// It can't be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The disk's sectors are larger than the file system's.
    #[error("{kind} with sectors of {drive} bytes cannot be read on a disk with sectors of {disk} bytes")]
    Sectors {
        /// The file system.
        kind: Kind,
        /// The sector size of the file system.
        drive: u64,
        /// The sector size of the disk.
        disk: u64,
    },
}

/// Why a config drive can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file can't be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A name can't be written.
    #[error(
        "the name \"{}\" cannot be written: it is too long, not text, or has characters that the file system \
         does not allow",
        name.escape_debug()
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Directories are nested deeper than ISO 9660 has it (ECMA-119, 6.8.2.1).
    #[error("{path}: config drives have at most {MAX_DEPTH} levels of directories")]
    TooDeep {
        /// The directory that is one too many.
        path: PathBuf,
    },
    /// Two files have one path.
    #[error("two of the files have the same path, or differ only in case, which FAT ignores")]
    Clash,
    /// The files are larger than a config drive may be.
    #[error("the files are larger than 64 MiB, the size of the config drive's partition")]
    TooLarge,
    /// It has nothing that a reader looks for.
    #[error(
        "there is no file in openstack/, where readers look (e.g. openstack/latest/meta_data.json): give the \
         directory that contains openstack"
    )]
    NoOpenStack,
    /// There are too many files.
    #[error("more than {MAX_FILES} files, which no config drive needs")]
    TooMany,
    /// The file system can't be made.
    #[error("building the config drive: {0}")]
    Form(PathError),
    /// The JSON makes no sense. The text is not repeated: it may hold secrets.
    #[error("the config drive's JSON: {0}")]
    Json(String),
    /// The other config drive's files can't be read.
    #[error("reading the files of the config drive: {0}")]
    Filesystem(#[from] FilesystemError),
}
