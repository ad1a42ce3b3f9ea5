//! FAT12, FAT16 and FAT32, read only, by hadris.
//!
//! For EFI system partitions and config drives: find a file, list a directory, read a file. What hadris keeps
//! of a file's bytes is on the heap, where it is wiped with the rest.

use std::io::{self, Read, Seek};

use hadris_fat::FatKind;
use hadris_fat::sync::FatFs;
use hadris_fs::sync::FileSystem;
use hadris_fs::{DirCursor, Error, ErrorKind, Metadata, MountOptions, NodeId, Resolve};
use zeroize::Zeroizing;

use super::bytes::text;
use super::device::{Device, explain};
use super::{FilesystemError, NamedFile};

const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;
const LABEL_BYTES: usize = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name: the long one, where there is one.
    pub name: String,
    pub is_directory: bool,
    /// The size in bytes; 0 for a directory.
    pub size_bytes: u64,
    node: NodeId,
}

impl Entry {
    fn new(name: String, node: NodeId, metadata: &Metadata) -> Self {
        Self {
            name,
            is_directory: metadata.file_type().is_dir(),
            size_bytes: metadata.len(),
            node,
        }
    }
}

/// A FAT file system.
pub struct Volume<R> {
    fat: Box<FatFs<Device<R>>>,
}

fn fat_error(error: Error<io::Error>) -> FilesystemError {
    explain("FAT", error)
}

fn unsound(problem: impl Into<String>) -> FilesystemError {
    FilesystemError::Unsound {
        kind: "FAT",
        problem: problem.into(),
    }
}

impl<R: Read + Seek> Volume<R> {
    /// Reads the boot sector of the volume that begins with `device`.
    pub fn open(device: R) -> Result<Self, FilesystemError> {
        let mounted = FatFs::mount(Device(device), MountOptions::new().read_only());
        let fat = Box::new(mounted.map_err(|error| fat_error(error.into_error()))?);
        Ok(Self { fat })
    }

    /// The volume's label: that of the root directory, or else that of the boot sector.
    pub fn label(&mut self) -> io::Result<Option<String>> {
        let mut buffer = [0; 3 * LABEL_BYTES];
        let in_root = self.fat.label(&mut buffer).map_err(fat_error);
        if let Some(label) = if_sound(in_root)?.flatten() {
            return Ok(Some(label.to_string()));
        }
        let offset = match self.fat.info().kind() {
            FatKind::Fat32 => 71,
            _ => 43,
        };
        let mut label = [0; LABEL_BYTES];
        if_sound(self.fat.read_raw(offset, &mut label).map_err(fat_error))?;
        Ok(text(&label, 0, LABEL_BYTES).filter(|label| label != "NO NAME"))
    }

    /// The number that was given to the volume when it was made.
    pub fn serial(&self) -> Option<u32> {
        self.fat.volume_serial()
    }

    /// The size of the sectors that the volume was made for, in bytes: it can't live on a disk with larger
    /// ones.
    pub fn sector_bytes(&self) -> u64 {
        self.fat.info().sector_size().into()
    }

    /// What is called `path` (names with `/` between them), if anything is.
    pub fn find(&mut self, path: &str) -> Result<Option<Entry>, FilesystemError> {
        let node = match self.fat.resolve(path.as_bytes(), Resolve::Lexical) {
            Ok(node) => node,
            Err(error) if is_nothing(error.kind()) => return Ok(None),
            Err(error) => return Err(fat_error(error)),
        };
        let metadata = self.fat.stat(node).map_err(fat_error);
        // It stays valid: nothing is ever changed.
        self.fat.forget(node, 1);
        let name = path.rsplit('/').next().unwrap_or_default();
        Ok(Some(Entry::new(name.into(), node, &metadata?)))
    }

    /// What is in the directory `path`, `/` for the root; nothing when there is no such directory.
    pub fn list(&mut self, path: &str) -> Result<Vec<Entry>, FilesystemError> {
        match self.find(path)? {
            Some(found) if found.is_directory => self.entries(found.node).map_err(fat_error),
            _ => Ok(Vec::new()),
        }
    }

    fn entries(&mut self, directory: NodeId) -> Result<Vec<Entry>, Error<io::Error>> {
        let mut found = Vec::new();
        let mut from = DirCursor::START;
        while let Some(entry) = self.fat.readdir(directory, from)? {
            from = entry.next_cursor();
            let name = String::from_utf8_lossy(entry.name().as_bytes()).into_owned();
            found.push(Entry::new(name, entry.node(), entry.metadata()));
        }
        Ok(found)
    }

    /// The first bytes of a file, at most `limit` of them.
    pub fn read(&mut self, file: &Entry, limit: u64) -> Result<Vec<u8>, FilesystemError> {
        let mut bytes = vec![0; file.size_bytes.min(limit) as usize];
        let read = self.fat.read(file.node, 0, &mut bytes).map_err(fat_error)?;
        if read < bytes.len() {
            return Err(unsound(format!("\"{}\" ends early", file.name.escape_debug())));
        }
        Ok(bytes)
    }

    /// Reads all files, of together at most `limit` bytes.
    pub fn read_files(&mut self, limit: u64) -> Result<Vec<NamedFile>, FilesystemError> {
        let mut found = Vec::new();
        let mut left = limit;
        let mut directories = vec![(String::new(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            for entry in self.list(&directory)? {
                let path = if directory.is_empty() {
                    entry.name.clone()
                } else {
                    format!("{directory}/{}", entry.name)
                };
                if found.len() + directories.len() > MAX_FILES || depth > MAX_DEPTH {
                    return Err(unsound("too many files or directories"));
                }
                if entry.is_directory {
                    directories.push((path, depth + 1));
                    continue;
                }
                left = left
                    .checked_sub(entry.size_bytes)
                    .ok_or_else(|| unsound("files are larger than the image"))?;
                let content = Zeroizing::new(self.read(&entry, entry.size_bytes)?);
                found.push(NamedFile { path, content });
            }
        }
        Ok(found)
    }
}

/// What was found, if the bytes make sense.
pub(super) fn if_sound<T>(result: Result<T, FilesystemError>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(FilesystemError::Io(error)) => Err(error),
        Err(FilesystemError::Unsound { .. }) => Ok(None),
    }
}

fn is_nothing(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidInput, NameTooLong, NotADirectory, NotFound};
    matches!(kind, NotFound | NotADirectory | InvalidInput | NameTooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn bytes_that_are_no_boot_sector_are_refused() {
        for bytes in [vec![], vec![0; 512], vec![0xff; 512]] {
            assert!(Volume::open(Cursor::new(bytes)).is_err());
        }
    }

    /// A boot sector of FAT16 with 512-byte sectors, one sector in a cluster, 5000 clusters.
    fn boot_sector() -> Vec<u8> {
        let mut boot = vec![0; 512];
        boot[0] = 0xeb;
        boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
        boot[13] = 1;
        boot[14] = 1;
        boot[16] = 1;
        boot[17..19].copy_from_slice(&16_u16.to_le_bytes());
        boot[19..21].copy_from_slice(&(1 + 20 + 1 + 5000_u16).to_le_bytes());
        boot[21] = 0xf8;
        boot[22] = 20;
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    #[test]
    fn a_chain_that_loops_ends_with_an_error() {
        let mut volume = boot_sector();
        volume.resize(512 * (1 + 20 + 1 + 5000), 0);
        let (fat, root) = (512, 512 * 21);
        volume[fat + 4..fat + 6].copy_from_slice(&3_u16.to_le_bytes());
        volume[fat + 6..fat + 8].copy_from_slice(&2_u16.to_le_bytes());
        volume[root..root + 11].copy_from_slice(b"A       TXT");
        volume[root + 26] = 2;
        volume[root + 28..root + 32].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut volume = Volume::open(Cursor::new(volume)).unwrap();
        let file = volume.find("a.txt").unwrap().unwrap();
        assert_eq!(volume.read(&file, 600).unwrap().len(), 600);
        let error = volume.read(&file, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("links back to itself"), "{error}");
    }

    #[test]
    fn what_is_cut_off_is_unsound_and_what_cannot_be_read_is_not() {
        let mut cut = boot_sector();
        cut.resize(512 * 20, 0);
        let mut volume = Volume::open(Cursor::new(cut)).unwrap();
        assert_eq!(volume.label().unwrap(), None);
        let unsound = volume.list("/").unwrap_err();
        assert!(
            matches!(&unsound, FilesystemError::Unsound { problem, .. } if problem.contains("device ends")),
            "{unsound}"
        );
        let directory = std::fs::File::open("/").unwrap();
        let unread = Volume::open(directory).err().unwrap();
        assert!(matches!(unread, FilesystemError::Io(_)), "{unread}");
    }
}
