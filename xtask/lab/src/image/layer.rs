//! Layers: entries → tar → compressed bytes.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::digest::Digest;

/// How a layer's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    None,
    /// Gzip, what nearly everybody uses.
    #[default]
    Gzip,
    /// Zstandard.
    Zstd,
    /// The same with a window of 64 MiB: `zstd --long=26`.
    ZstdLong,
}

/// What podman, buildah and docker write unless they are told otherwise.
const GZIP_LEVEL: u32 = 6;
/// The same for Zstandard.
const ZSTD_LEVEL: i32 = 3;
const LONG_WINDOW_LOG: u32 = 26;

/// One entry of a layer: an inode, a name for one, or a whiteout.
#[derive(Debug, Clone)]
pub struct Entry {
    path: PathBuf,
    kind: EntryType,
    link: Option<PathBuf>,
    content: Vec<u8>,
    device: (u32, u32),
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
}

impl Entry {
    fn new(path: impl AsRef<OsStr>, kind: EntryType, mode: u32) -> Self {
        Self {
            path: PathBuf::from(path.as_ref()),
            kind,
            link: None,
            content: Vec::new(),
            device: (0, 0),
            mode,
            owner: (0, 0),
            mtime: 1_700_000_000,
        }
    }

    /// A directory, 0755.
    pub fn directory(path: impl AsRef<OsStr>) -> Self {
        Self::new(path, EntryType::Directory, 0o755)
    }

    /// A file, 0644.
    pub fn file(path: impl AsRef<OsStr>, content: impl Into<Vec<u8>>) -> Self {
        Self {
            content: content.into(),
            ..Self::new(path, EntryType::Regular, 0o644)
        }
    }

    /// A file to be run, 0755.
    pub fn program(path: impl AsRef<OsStr>, content: impl Into<Vec<u8>>) -> Self {
        Self::file(path, content).mode(0o755)
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> Self {
        Self {
            link: Some(target.as_ref().into()),
            ..Self::new(path, EntryType::Symlink, 0o777)
        }
    }

    /// One more name of a file that this layer has already.
    pub fn hardlink(path: impl AsRef<OsStr>, target: impl AsRef<OsStr>) -> Self {
        Self {
            link: Some(target.as_ref().into()),
            ..Self::new(path, EntryType::Link, 0o644)
        }
    }

    /// A block device of this number, major and minor.
    pub fn block_device(path: impl AsRef<OsStr>, device: (u32, u32)) -> Self {
        Self {
            device,
            ..Self::new(path, EntryType::Block, 0o600)
        }
    }

    /// A character device of this number, major and minor.
    pub fn character_device(path: impl AsRef<OsStr>, device: (u32, u32)) -> Self {
        Self {
            device,
            ..Self::new(path, EntryType::Char, 0o600)
        }
    }

    /// A named pipe.
    pub fn fifo(path: impl AsRef<OsStr>) -> Self {
        Self::new(path, EntryType::Fifo, 0o600)
    }

    /// Removes what lower layers have under this name.
    pub fn whiteout(path: impl AsRef<OsStr>) -> Self {
        let path = Path::new(path.as_ref());
        let mut name = std::ffi::OsString::from(".wh.");
        name.push(path.file_name().expect("a whiteout needs a name"));
        Self::file(path.with_file_name(name), "")
    }

    /// Hides all that lower layers have in this directory.
    pub fn opaque(directory: impl AsRef<OsStr>) -> Self {
        Self::file(Path::new(directory.as_ref()).join(".wh..wh..opq"), "")
    }

    /// Sets the permission bits.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Sets user and group.
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self {
            owner: (uid, gid),
            ..self
        }
    }

    /// Sets the modification time, in seconds.
    pub fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    /// Puts it, and the file that it is one more name of, somewhere else.
    pub fn moved(self, to: impl Fn(&Path) -> PathBuf) -> Self {
        let link = match self.link {
            Some(target) if self.kind == EntryType::Link => Some(to(&target)),
            other => other,
        };
        Self {
            path: to(&self.path),
            link,
            ..self
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's content; empty for all else.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Where a symbolic or hard link points to.
    pub fn target(&self) -> Option<&Path> {
        self.link.as_deref()
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == EntryType::Directory
    }

    /// Whether it is one more name of a file.
    pub fn is_hardlink(&self) -> bool {
        self.kind == EntryType::Link
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == EntryType::Symlink
    }

    /// The permission bits.
    pub fn permissions(&self) -> u32 {
        self.mode
    }

    /// Reads an entry from an archive; `./` before its path is dropped.
    pub fn read(entry: &mut tar::Entry<'_, impl Read>) -> Result<Self> {
        let plain = |path: &Path| path.strip_prefix(".").unwrap_or(path).to_path_buf();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let header = entry.header();
        let link = entry.link_name()?.map(|target| match header.entry_type() {
            EntryType::Link => plain(&target),
            _ => target.into_owned(),
        });
        Ok(Self {
            path: plain(&entry.path()?),
            kind: header.entry_type(),
            link,
            content,
            device: match header.entry_type() {
                EntryType::Char | EntryType::Block => (
                    header.device_major()?.unwrap_or(0),
                    header.device_minor()?.unwrap_or(0),
                ),
                _ => (0, 0),
            },
            mode: header.mode()?,
            owner: (header.uid()?, header.gid()?),
            mtime: header.mtime()?,
        })
    }

    fn header(&self) -> Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.mtime);
        header.set_size(self.content.len() as u64);
        header.set_device_major(self.device.0)?;
        header.set_device_minor(self.device.1)?;
        Ok(header)
    }

    fn append_to(&self, archive: &mut tar::Builder<Vec<u8>>) -> Result<()> {
        let mut header = self.header()?;
        match &self.link {
            Some(target) => archive.append_link(&mut header, &self.path, target)?,
            // With the slash that everybody's archives have.
            None if self.is_directory() => archive.append_data(&mut header, self.path.join(""), &[][..])?,
            None => archive.append_data(&mut header, &self.path, self.content.as_slice())?,
        }
        Ok(())
    }
}

/// A layer: a tar archive, and how it is compressed.
#[derive(Debug, Clone)]
pub struct Layer {
    tar: Vec<u8>,
    compression: Compression,
}

impl Layer {
    /// A gzip layer of these entries, in this order.
    ///
    /// # Panics
    ///
    /// If a path can't be an archive's (absolute, or with `..`): hostile archives are for [`Layer::of_tar`].
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for entry in entries {
            let done = entry.append_to(&mut archive);
            done.with_context(|| format!("{:?} in a layer", entry.path))
                .expect("a plain archive path");
        }
        Self::of_tar(archive.into_inner().expect("writing to memory"))
    }

    /// A gzip layer of a tar archive, or of any bytes.
    pub fn of_tar(tar: Vec<u8>) -> Self {
        Self {
            tar,
            compression: Compression::Gzip,
        }
    }

    /// The same layer, stored in another way.
    pub fn compressed(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// How it is stored.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The uncompressed archive.
    pub fn tar(&self) -> &[u8] {
        &self.tar
    }

    /// The digest of the uncompressed archive.
    pub fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    /// The layer's blob: the same bytes each time.
    pub fn blob(&self) -> Result<Vec<u8>> {
        match self.compression {
            Compression::None => Ok(self.tar.clone()),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(&self.tar)?;
                Ok(encoder.finish()?)
            }
            Compression::Zstd | Compression::ZstdLong => {
                let mut encoder = zstd::stream::read::Encoder::new(self.tar.as_slice(), ZSTD_LEVEL)?;
                if self.compression == Compression::ZstdLong {
                    encoder.long_distance_matching(true)?;
                    encoder.window_log(LONG_WINDOW_LOG)?;
                }
                let mut blob = Vec::new();
                encoder.read_to_end(&mut blob)?;
                Ok(blob)
            }
        }
    }
}
