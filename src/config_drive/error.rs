//! What can be wrong with a config drive, in words that repeat nothing of its content: that may be secret.

use std::io;
use std::path::PathBuf;

use hadris_fs::PathError;

use super::form::{Kind, LABEL, MAX_DEPTH, MAX_FILES};
use crate::machine::filesystem::FilesystemError;

/// Why something is no config drive.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDriveError {
    #[error("reading the config drive: {0}")]
    Io(#[from] io::Error),
    #[error("the config drive is empty")]
    Empty,
    #[error("the config drive is larger than 64 MiB, the size of its partition")]
    TooLarge,
    #[error("the config drive is damaged {encoding}: {problem}")]
    Damaged { encoding: &'static str, problem: String },
    #[error(
        "the config drive holds {found}; it must be an ISO 9660 or FAT image, plain or as gzip or base64"
    )]
    Unknown { found: String },
    #[error("the config drive is labelled {found}; readers look for \"{LABEL}\"")]
    Label { found: String },
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{kind} with sectors of {drive} bytes cannot be read on a disk with sectors of {disk} bytes")]
    Sectors { kind: Kind, drive: u64, disk: u64 },
}

/// Why a config drive can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "the name \"{}\" cannot be written: it is too long, not text, or has characters that the file system \
         does not allow",
        name.escape_debug()
    )]
    Name { name: String },
    #[error("{path}: config drives have at most {MAX_DEPTH} levels of directories")]
    TooDeep { path: PathBuf },
    #[error("two of the files have the same path, or differ only in case, which FAT ignores")]
    Clash,
    #[error("the files are larger than 64 MiB, the size of the config drive's partition")]
    TooLarge,
    #[error(
        "there is no file in openstack/, where readers look (e.g. openstack/latest/meta_data.json): give the \
         directory that contains openstack"
    )]
    NoOpenStack,
    #[error("more than {MAX_FILES} files, which no config drive needs")]
    TooMany,
    #[error("building the config drive: {0}")]
    Form(PathError),
    #[error("the config drive's JSON: {0}")]
    Json(String),
    #[error("reading the files of the config drive: {0}")]
    Filesystem(#[from] FilesystemError),
}
