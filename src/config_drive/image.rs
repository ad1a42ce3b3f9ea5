//! Makes the file system of a config drive out of files: ISO 9660 with the names of Rock Ridge and of Joliet,
//! as genisoimage makes it for Ironic, or FAT with long names for disks whose sectors are too large for that.
//!
//! The same files give the same bytes: everything is dated 1 January 1980.

use hadris_fat::{FatOptions, VolumeLabel};
use hadris_fs::{Content, ErrorKind, Node, PathError, Permissions, SetAttr};
use hadris_iso::{IsoId, IsoOptions, Relocation};
use hadris_storage::{BlockSize, MemDevice};

use super::error::BuildError;
use super::form::{LABEL, MAX_FILES};
use super::secret::Secret;
use super::tree::Tree;
use crate::machine::filesystem::iso9660::SECTOR_BYTES;

/// What is in the files is for root alone, where the file system can say so.
const FILE_MODE: u32 = 0o400;
const SMALLEST_FAT_BYTES: u64 = 1 << 20;

/// Makes an ISO 9660 image of `tree`, of at most `limit` bytes.
pub(super) fn iso9660(tree: &Tree, limit: u64) -> Result<Secret, BuildError> {
    let tree = nodes(tree)?;
    let options = IsoOptions::default()
        .with_id(IsoId::Volume, LABEL)
        .with_rock_ridge()
        .with_joliet()
        .with_relocation(Relocation::Refuse);
    let size = hadris_iso::plan(&tree, &options)?.size();
    if size > limit {
        return Err(BuildError::TooLarge);
    }
    let mut device = device(size, SECTOR_BYTES)?;
    hadris_iso::sync::write(&mut device, &tree, &options)?;
    Ok(device.into_inner().into())
}

/// Makes a FAT image of `tree` with sectors of `sector` bytes: the smallest power of two that has room for
/// it, and at most `limit` bytes.
pub(super) fn fat(tree: &Tree, sector: u64, limit: u64) -> Result<Secret, BuildError> {
    let content: usize = tree.files.iter().map(|file| file.content.len()).sum();
    let tree = nodes(tree)?;
    let label = VolumeLabel::new(LABEL)?;
    let options = FatOptions::new().with_label(label);
    let mut size = (content as u64).next_power_of_two().max(SMALLEST_FAT_BYTES);
    while size <= limit {
        let mut device = device(size, sector)?;
        match hadris_fat::sync::write(&mut device, &tree, &options) {
            Ok(_) => {
                let mut image = device.into_inner();
                write_small_letters(&mut image, label);
                return Ok(image.into());
            }
            Err(error) if error.kind() == ErrorKind::NoSpace => size *= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Err(BuildError::TooLarge)
}

/// Nova writes the label in small letters, and `blkid -L config-2` finds no other. FAT's specification and
/// hadris have capital letters: they are replaced in the boot sector and in the first entry of the root
/// directory, which the label is.
fn write_small_letters(image: &mut [u8], label: VolumeLabel) {
    let capital = label.as_bytes();
    for _ in 0..2 {
        let found = image.windows(capital.len()).position(|bytes| bytes == capital);
        if let Some(at) = found {
            image[at..at + capital.len()].make_ascii_lowercase();
        }
    }
}

fn device(size: u64, block: u64) -> Result<MemDevice<Vec<u8>>, BuildError> {
    let block = u32::try_from(block).ok().and_then(BlockSize::new);
    let block = block.ok_or(ErrorKind::Unsupported)?;
    Ok(MemDevice::new(vec![0; size as usize], block))
}

fn nodes(tree: &Tree) -> Result<hadris_fs::Tree, BuildError> {
    if tree.files.len() > MAX_FILES {
        return Err(BuildError::TooMany);
    }
    let attributes = SetAttr::new().with_permissions(Permissions::new(FILE_MODE));
    let mut nodes = hadris_fs::Tree::new();
    for file in &tree.files {
        let content = Content::bytes(&file.content[..]);
        nodes.insert(&file.path, Node::file(content).with_attrs(attributes))?;
    }
    Ok(nodes)
}

impl From<PathError> for BuildError {
    fn from(error: PathError) -> Self {
        let name = error
            .path()
            .map(|path| String::from_utf8_lossy(path).trim_start_matches('/').to_string());
        match (error.kind(), name) {
            (ErrorKind::NoSpace | ErrorKind::LimitExceeded, _) => Self::TooLarge,
            (ErrorKind::AlreadyExists, _) => Self::Clash,
            (ErrorKind::InvalidInput | ErrorKind::NameTooLong, Some(name)) => Self::Name { name },
            _ => Self::Form(error),
        }
    }
}

impl From<ErrorKind> for BuildError {
    fn from(kind: ErrorKind) -> Self {
        PathError::from(kind).into()
    }
}
