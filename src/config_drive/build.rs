//! Building a config drive from files: ISO 9660 where the disk's sectors allow, else FAT.

use std::path::Path;

use super::decode::ConfigDrive;
use super::error::{BuildError, ConfigDriveError};
use super::form::{Encoding, Kind, MAX_BYTES};
use super::image;
use super::tree::Tree;
use crate::machine::filesystem::NamedFile;

impl ConfigDrive {
    /// Builds an ISO 9660 config drive of the files in and below `directory`.
    pub fn from_directory(directory: &Path) -> Result<Self, ConfigDriveError> {
        let tree = Tree::from_directory(directory)?;
        if !tree.files.iter().any(|file| file.path.starts_with("openstack/")) {
            return Err(BuildError::NoOpenStack.into());
        }
        Self::from_tree(&tree, Encoding::Directory)
    }

    pub(super) fn from_json(json: &[u8]) -> Result<Self, ConfigDriveError> {
        Self::from_tree(&Tree::from_json(json)?, Encoding::Json)
    }

    /// Its files, by path. They may hold secrets.
    pub fn files(&self) -> Result<Vec<NamedFile>, BuildError> {
        Ok(self.tree()?.files)
    }

    fn tree(&self) -> Result<Tree, BuildError> {
        match self.kind() {
            Kind::Iso9660 => Tree::from_iso(self.content()),
            Kind::Vfat => Tree::from_fat(self.content()),
        }
    }

    fn from_tree(tree: &Tree, encoding: Encoding) -> Result<Self, ConfigDriveError> {
        Self::recognise(image::iso9660(tree, MAX_BYTES)?, encoding)
    }

    /// The same files in a file system that a disk with sectors of `disk` bytes can hold: itself where it
    /// can.
    ///
    /// A disk with 4096-byte sectors can't be read in the 2048-byte blocks of ISO 9660, so there it becomes
    /// FAT, as Ironic does it. Not every reader takes that: see [`Kind`].
    pub fn for_sectors(self, disk: u64) -> Result<Self, ConfigDriveError> {
        if self.check_sector_bytes(disk).is_ok() {
            return Ok(self);
        }
        let tree = self.tree()?;
        Self::recognise(image::fat(&tree, disk, MAX_BYTES)?, self.encoding())
    }
}
