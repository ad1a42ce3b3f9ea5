//! From an archive's entries to a directory in overlayfs's form.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Whence, ftruncate, linkat, lseek, symlinkat, write};

use super::attributes::Attributes;
use super::blocks::Archive;
use super::chunks::Chunks;
use super::directory::{failed, is_directory, is_whiteout, look, open_beneath};
use super::entry::{Entry, Extent, Kind};
use super::error::{Context as _, Result, ensure, malformed};
use super::malformed::Malformed;
use super::path::{RelativePath, shown};
use super::tree::{Directory, Known, Purpose, Tree};
use super::whiteout::{Meaning, meaning};

/// The most entries that a layer may have.
pub const MAX_ENTRIES: u64 = 1 << 21;

/// What came of an archive.
#[derive(Debug, Default)]
pub struct Unpacked {
    pub entries: u64,
    /// How many extended attributes the file system does not know.
    pub skipped_xattrs: u64,
    /// Directories that no entry described, and that may have to look like those in the layers below.
    pub implied: Vec<RelativePath>,
    pub has_marks: bool,
}

/// Unpacks `archive` into `root`, an empty directory of root's. Reads to the archive's end, not to the
/// input's.
pub fn untar<C: Chunks>(archive: &mut Archive<C>, root: OwnedFd) -> Result<Unpacked> {
    let mut untar = Untar {
        tree: Tree::new(root),
        unpacked: Unpacked::default(),
    };
    while let Some(entry) = archive.next_entry().context("reading the layer's archive")? {
        untar.unpacked.entries += 1;
        ensure!(
            untar.unpacked.entries <= MAX_ENTRIES,
            "the layer has more than {MAX_ENTRIES} entries"
        );
        untar
            .add(&entry, archive)
            .with_context(|| format!("unpacking \"{}\"", shown(&entry.path)))?;
    }
    let mut unpacked = untar.unpacked;
    unpacked.has_marks = untar.tree.has_marks;
    let (implied, skipped) = untar.tree.finish()?;
    unpacked.implied = implied;
    unpacked.skipped_xattrs += skipped;
    Ok(unpacked)
}

struct Untar {
    tree: Tree,
    unpacked: Unpacked,
}

impl Untar {
    fn add<C: Chunks>(&mut self, entry: &Entry, archive: &mut Archive<C>) -> Result<()> {
        let path = RelativePath::clean(&entry.path)?;
        let Some((parent, name)) = path.split() else {
            ensure!(
                entry.kind == Kind::Directory,
                "the root of a layer must be a directory"
            );
            let attributes = Attributes::of_entry(entry)?;
            self.tree.has_marks |= attributes.has_escaped();
            return self.tree.describe(path, Known::Described(attributes));
        };
        match meaning(name) {
            Meaning::Name => self.create(&parent, name, entry, archive),
            Meaning::Removes(name) => match self.tree.parent(&parent, Purpose::Whiteout)? {
                Some(dir) => self.tree.whiteout(&dir, name),
                None => Ok(()),
            },
            Meaning::Opaque => match self.tree.parent(&parent, Purpose::Whiteout)? {
                Some(dir) => self.tree.mark_opaque(&dir),
                None => Ok(()),
            },
            Meaning::Ignored => Ok(()),
            Meaning::Malformed => Err(malformed("this whiteout names nothing to remove")),
        }
    }

    fn create<C: Chunks>(
        &mut self,
        parent: &RelativePath,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<C>,
    ) -> Result<()> {
        let dir = self.tree.parent(parent, Purpose::Entry)?;
        let dir = dir.expect("parents of entries are made");
        // overlayfs takes this device for a whiteout wherever it comes from, so that is what it is.
        if entry.kind == Kind::Character(0, 0) {
            return self.tree.whiteout(&dir, name);
        }
        if let Kind::Hardlink(target) = &entry.kind {
            return self.link(&dir, name, target);
        }
        let attributes = Attributes::of_entry(entry)?;
        self.tree.has_marks |= attributes.has_escaped();
        match &entry.kind {
            Kind::Directory => self.tree.make_directory(&dir, name, Known::Described(attributes)),
            Kind::File { size, extents } => {
                let file = self.file(&dir, name)?;
                let data = match extents {
                    None => write_data(&file, archive),
                    Some(extents) => write_sparse(&file, *size, extents, archive),
                };
                data.with_context(|| format!("writing {}", dir.path.join(name)))?;
                self.unpacked.skipped_xattrs += attributes.apply(&file)?;
                Ok(())
            }
            other => {
                self.node(&dir, name, other, entry.mode)?;
                let is_link = matches!(other, Kind::Symlink(_));
                self.unpacked.skipped_xattrs += attributes.apply_at(&dir.fd, name, is_link)?;
                Ok(())
            }
        }
    }

    fn file(&mut self, dir: &Directory, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        self.replacing(dir, name, "openat2", || {
            open_beneath(&dir.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        })
    }

    fn node(&mut self, dir: &Directory, name: &[u8], kind: &Kind, mode: u32) -> Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        let (kind, device) = match kind {
            Kind::Symlink(target) => {
                return self.replacing(dir, name, "symlinkat", || {
                    symlinkat(target.as_slice(), &dir.fd, name)
                });
            }
            Kind::Character(major, minor) => (SFlag::S_IFCHR, makedev((*major).into(), (*minor).into())),
            Kind::Block(major, minor) => (SFlag::S_IFBLK, makedev((*major).into(), (*minor).into())),
            _ => (SFlag::S_IFIFO, 0),
        };
        self.replacing(dir, name, "mknodat", || {
            mknodat(&dir.fd, name, kind, mode, device)
        })
    }

    fn link(&mut self, dir: &Directory, name: &[u8], target: &[u8]) -> Result<()> {
        let path = RelativePath::clean(target).context("the link's target")?;
        let (parent, target_name) = path
            .split()
            .ok_or_else(|| malformed("the root cannot be linked to"))?;
        let from = self.tree.parent(&parent, Purpose::Target)?;
        let from = from.expect("targets are never whiteouts");
        let stat = look(&from.fd, target_name).map_err(|errno| failed("fstatat", &path, errno))?;
        let Some(stat) = stat.filter(|stat| !is_whiteout(stat)) else {
            return Err(malformed(format!(
                "there is no \"{path}\" in this layer to link to"
            )));
        };
        ensure!(
            !is_directory(&stat),
            "\"{path}\" is a directory, which cannot be hard-linked"
        );
        let existing = look(&dir.fd, name).map_err(|errno| failed("fstatat", &dir.path.join(name), errno))?;
        if existing.is_some_and(|existing| (existing.st_dev, existing.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        // No AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name for that link.
        self.replacing(dir, name, "linkat", || {
            linkat(&from.fd, target_name, &dir.fd, name, AtFlags::empty())
        })
    }

    /// Makes something, in the place of what is there if need be.
    fn replacing<T>(
        &mut self,
        dir: &Directory,
        name: &[u8],
        call: &str,
        make: impl Fn() -> nix::Result<T>,
    ) -> Result<T> {
        let made = match make() {
            Err(Errno::EEXIST) => {
                self.tree.vacate(dir, name)?;
                make()
            }
            other => other,
        };
        made.map_err(|errno| failed(call, &dir.path.join(name), errno))
    }
}

fn write_data<C: Chunks>(file: &OwnedFd, archive: &mut Archive<C>) -> Result<()> {
    loop {
        let piece = archive
            .data_up_to(u64::MAX)
            .context("reading the layer's archive")?;
        if piece.is_empty() {
            return Ok(());
        }
        write_all(file, &piece)?;
    }
}

fn write_sparse<C: Chunks>(
    file: &OwnedFd,
    size: u64,
    extents: &[Extent],
    archive: &mut Archive<C>,
) -> Result<()> {
    // What follows the last extent is a hole, too.
    ftruncate(file, offset(size)?).with_context(|| format!("ftruncate({size}) failed"))?;
    for extent in extents {
        lseek(file, offset(extent.offset)?, Whence::SeekSet).context("lseek failed")?;
        let mut left = extent.length;
        while left > 0 {
            let piece = archive.data_up_to(left).context("reading the layer's archive")?;
            write_all(file, &piece)?;
            left -= piece.len() as u64;
        }
    }
    Ok(())
}

fn offset(bytes: u64) -> Result<i64, Malformed> {
    i64::try_from(bytes).map_err(|_| Malformed::Range)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            refused => return refused.map(drop).context("write failed"),
        }
    }
    Ok(())
}
