//! ISO 9660, read only, by hadris: with the long names of Rock Ridge, or else Joliet.
//!
//! For config drives: their files. A lie in the bytes can have hadris read the same ones again and again, so
//! what may be read is bounded here, as are directories and links.

use std::convert::Infallible;

use hadris_fs::sync::FileSystem;
use hadris_fs::{DirCursor, DirEntry, Error, ErrorKind, FileType, MountOptions, NodeId, OpenMode};
use hadris_io::ErrorType;
use hadris_iso::Namespace;
use hadris_iso::sync::IsoFs;
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use zeroize::Zeroizing;

use super::{FilesystemError, NamedFile};

pub const SECTOR_BYTES: u64 = 2048;
const MAX_READS: u32 = 1 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;
const MAX_LINKS: usize = 256;
/// How often a link may lead to another.
const MAX_LINK_DEPTH: usize = 8;
const MAX_TARGET_BYTES: usize = 4096;

/// An image in memory. Its blocks are bytes: hadris would copy what does not fill one to where nobody wipes
/// it.
struct Image<'image> {
    bytes: &'image [u8],
    reads_left: u32,
}

impl ErrorType for Image<'_> {
    type Error = Infallible;
}

impl BlockDevice for Image<'_> {
    fn block_size(&self) -> BlockSize {
        const { BlockSize::new(1).expect("not zero") }
    }

    fn block_count(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_blocks(&mut self, first: BlockIndex, buffer: &mut [u8]) -> Result<(), Error<Infallible>> {
        let left = self.reads_left.checked_sub(1);
        self.reads_left = left.ok_or(Error::new(
            ErrorKind::LimitExceeded,
            "what it says leads in circles",
        ))?;
        let rest = usize::try_from(first.get())
            .ok()
            .and_then(|first| self.bytes.get(first..));
        let bytes = rest.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(Error::new(ErrorKind::Corrupt, "it ends early"))?);
        Ok(())
    }
}

fn unsound(problem: impl Into<String>) -> FilesystemError {
    FilesystemError::Unsound {
        kind: "ISO 9660",
        problem: problem.into(),
    }
}

fn explain(error: Error<Infallible>) -> FilesystemError {
    unsound(error.to_string())
}

/// Reads all files, of together at most `limit` bytes. What symbolic links name is read as if it were there;
/// devices are left out.
pub fn read_files(image: &[u8], limit: u64) -> Result<Vec<NamedFile>, FilesystemError> {
    let image = Image {
        bytes: image,
        reads_left: MAX_READS,
    };
    files_of(image, limit)
}

fn files_of(image: Image<'_>, limit: u64) -> Result<Vec<NamedFile>, FilesystemError> {
    let mounted = IsoFs::mount(image, MountOptions::new());
    let mut walk = Walk {
        iso: mounted.map_err(|error| explain(error.into_error()))?,
        found: Vec::new(),
        links: Vec::new(),
        left: limit,
        seen: 0,
    };
    walk.directory("", walk.iso.root(), 0)?;
    walk.follow_links()?;
    Ok(walk.found)
}

struct Walk<'image> {
    iso: IsoFs<Image<'image>>,
    found: Vec<NamedFile>,
    /// Symbolic links: where each is, and what it names.
    links: Vec<(String, String)>,
    left: u64,
    seen: usize,
}

impl Walk<'_> {
    fn directory(&mut self, path: &str, node: NodeId, depth: usize) -> Result<(), FilesystemError> {
        if depth > MAX_DEPTH {
            return Err(unsound("directories are nested too deeply"));
        }
        let mut from = DirCursor::START;
        while let Some(entry) = self.iso.readdir(node, from).map_err(explain)? {
            from = entry.next_cursor();
            self.seen += 1;
            if self.seen > MAX_FILES {
                return Err(unsound("too many files"));
            }
            let name = self.name(&entry);
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            match entry.file_type() {
                FileType::Dir => self.directory(&path, entry.node(), depth + 1)?,
                FileType::File => self.file(path, &entry)?,
                FileType::Symlink => self.link(path, &entry)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `META_DATA.JSON` is `meta_data.json`, as Linux shows it, where there are no other names.
    fn name(&self, entry: &DirEntry) -> String {
        let name = String::from_utf8_lossy(entry.name().as_bytes());
        match self.iso.namespace() {
            Namespace::Primary => name.to_lowercase().trim_end_matches('.').into(),
            _ => name.into_owned(),
        }
    }

    fn file(&mut self, path: String, entry: &DirEntry) -> Result<(), FilesystemError> {
        // One that is listed may be damaged all the same.
        self.iso.open(entry.node(), OpenMode::Read).map_err(explain)?;
        let size = entry.metadata().len();
        let left = self.left.checked_sub(size);
        self.left = left.ok_or_else(|| unsound("files are larger than the image"))?;
        let mut content = Zeroizing::new(vec![0; size as usize]);
        let mut rest = &mut content[..];
        while !rest.is_empty() {
            let read = self
                .iso
                .read(entry.node(), size - rest.len() as u64, rest)
                .map_err(explain)?;
            if read == 0 {
                return Err(unsound(format!("\"{}\" ends early", path.escape_debug())));
            }
            rest = &mut rest[read..];
        }
        self.found.push(NamedFile { path, content });
        Ok(())
    }

    fn link(&mut self, path: String, entry: &DirEntry) -> Result<(), FilesystemError> {
        let mut target = [0; MAX_TARGET_BYTES];
        let target = self.iso.readlink(entry.node(), &mut target).map_err(explain)?;
        self.links
            .push((path, String::from_utf8_lossy(target).into_owned()));
        Ok(())
    }

    /// Adds what the links name, each once; targets that are missing or outside the image are skipped.
    fn follow_links(&mut self) -> Result<(), FilesystemError> {
        let mut links = std::mem::take(&mut self.links);
        if links.len() > MAX_LINKS {
            return Err(unsound("too many symbolic links"));
        }
        // A link may name what another one adds.
        for _ in 0..MAX_LINK_DEPTH {
            let mut in_vain = Vec::new();
            for (path, target) in links {
                if !self.copy(&resolve(&path, &target), &path)? {
                    in_vain.push((path, target));
                }
            }
            links = in_vain;
        }
        Ok(())
    }

    /// Adds the file `from`, or the files below it, once more as `to`. Says whether there are any.
    fn copy(&mut self, from: &Option<String>, to: &str) -> Result<bool, FilesystemError> {
        let Some(from) = from else { return Ok(false) };
        let below = |path: &str| {
            let rest = path.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        let copies = self.found.iter().filter_map(|file| {
            let content = file.content.clone();
            below(&file.path).map(|path| NamedFile { path, content })
        });
        let copies: Vec<NamedFile> = copies.collect();
        self.seen += copies.len();
        let size: u64 = copies.iter().map(|file| file.content.len() as u64).sum();
        self.left = self
            .left
            .checked_sub(size)
            .filter(|_| self.seen <= MAX_FILES)
            .ok_or_else(|| unsound("links lead to files larger than the image"))?;
        let are_any = !copies.is_empty();
        self.found.extend(copies);
        Ok(are_any)
    }
}

/// What `target`, a symbolic link's text, names when the link is at `path`; `None` when that is not in this
/// file system.
fn resolve(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hadris_fs::{Content, Node, Tree};
    use hadris_iso::{IsoOptions, plan};
    use hadris_storage::MemDevice;

    #[test]
    fn an_image_is_read_so_often_and_no_more() {
        let mut tree = Tree::new();
        tree.insert("a/b", Node::file(Content::bytes("text"))).unwrap();
        let options = IsoOptions::default();
        let size = plan(&tree, &options).unwrap().size() as usize;
        let mut device = MemDevice::new(vec![0; size], BlockSize::new(2048).unwrap());
        hadris_iso::sync::write(&mut device, &tree, &options).unwrap();
        let bytes = &device.into_inner()[..];
        let read = |reads_left| files_of(Image { bytes, reads_left }, 4);
        let enough = (1..).find(|reads| read(*reads).is_ok()).unwrap();
        assert!(enough < 100, "{enough} reads for one file");
        let error = read(enough - 1).err().unwrap();
        assert!(error.to_string().ends_with("leads in circles"), "{error}");
        assert!(
            files_of(
                Image {
                    bytes,
                    reads_left: MAX_READS
                },
                3
            )
            .is_err()
        );
    }
}
