//! Layers in overlayfs's form folded into one plain directory, by renaming: no data is copied.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::renameat;
use nix::sys::stat::{FileStat, fstat};

use super::attributes::{Attributes, mtime_of, set_mtime};
use super::directory::{self, failed, is_directory, is_whiteout, look, open_directory, open_root};
use super::error::{Context as _, LayerError, Result, ensure};
use super::path::RelativePath;
use super::unpack::UnpackedLayer;
use super::whiteout::{OPAQUE_XATTR, unescaped};
use super::xattr;

/// Folds `layers`, settled and from the bottom, into `into`, an empty directory on their file system. Their
/// own directories are used up. What overlayfs would show of the layers is what is there afterwards. It ends
/// early when it is no longer `wanted`.
pub fn merge(layers: Vec<UnpackedLayer>, into: &Path, wanted: &dyn Fn() -> bool) -> Result<()> {
    let target = open_root(into)?;
    let here = RelativePath::default();
    let found = directory::names(&target).map_err(|errno| failed("getdents64", &here, errno))?;
    ensure!(found.is_empty(), "{into:?} is not empty");
    for layer in layers {
        let index = layer.layer().index + 1;
        let source = open_root(layer.path())?;
        let mut fold = Fold {
            has_marks: layer.has_marks(),
            cleaned: HashSet::new(),
            wanted,
        };
        fold.directory(&source, &target, &here)
            .with_context(|| format!("merging layer {index}"))?;
        directory::remove_all(layer.path())?;
    }
    Ok(())
}

/// How one layer is folded.
struct Fold<'a> {
    /// Whether whiteouts, opaque directories or escaped attributes may be in it.
    has_marks: bool,
    /// The inodes with several names whose attributes are outside overlayfs's form already.
    cleaned: HashSet<u64>,
    wanted: &'a dyn Fn() -> bool,
}

impl Fold<'_> {
    /// Folds `from` into `to`, both of which are the directory `path`.
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &RelativePath) -> Result<()> {
        if !(self.wanted)() {
            return Err(LayerError::Stopped);
        }
        if self.has_marks && xattr::is(from, OPAQUE_XATTR, b"y")? {
            directory::clear(to).map_err(|errno| failed("unlinkat", path, errno))?;
        }
        // Now: moving things out of it changes its time.
        let attributes = Attributes::of_directory(from).map_err(|errno| failed("fstat", path, errno))?;
        for name in directory::names(from).map_err(|errno| failed("getdents64", path, errno))? {
            self.name(from, to, &path.join(&name), &name)?;
        }
        attributes.unescaped().replace_plain(to).map(drop)
    }

    fn name(&mut self, from: &OwnedFd, to: &OwnedFd, path: &RelativePath, name: &[u8]) -> Result<()> {
        let stat = |dir| look(dir, name).map_err(|errno| failed("fstatat", path, errno));
        let Some(upper) = stat(from)? else {
            return Ok(());
        };
        let lower = stat(to)?;
        let lower_is_directory = lower.as_ref().is_some_and(is_directory);
        if is_directory(&upper) && lower_is_directory {
            return self.directory(&child(from, path, name)?, &child(to, path, name)?, path);
        }
        if lower.is_some() {
            directory::remove(to, name).map_err(|errno| failed("unlinkat", path, errno))?;
        }
        if is_whiteout(&upper) {
            return Ok(());
        }
        renameat(from, name, to, name).map_err(|errno| failed("renameat", path, errno))?;
        if !self.has_marks {
            Ok(())
        } else if is_directory(&upper) {
            self.clean(&child(to, path, name)?, path)
        } else {
            self.clean_attributes(to, name, &upper)
                .with_context(|| format!("the extended attributes of {path}"))
        }
    }

    /// Takes overlayfs's marks from everything in `dir`, which is the directory `path` and hides nothing any
    /// more.
    fn clean(&mut self, dir: &OwnedFd, path: &RelativePath) -> Result<()> {
        let before = fstat(dir).map_err(|errno| failed("fstat", path, errno))?;
        for name in directory::names(dir).map_err(|errno| failed("getdents64", path, errno))? {
            let path = path.join(&name);
            match look(dir, &name).map_err(|errno| failed("fstatat", &path, errno))? {
                Some(stat) if is_directory(&stat) => self.clean(&child(dir, &path, &name)?, &path)?,
                Some(stat) if is_whiteout(&stat) => {
                    directory::remove(dir, &name).map_err(|errno| failed("unlinkat", &path, errno))?;
                }
                Some(stat) => self.clean_attributes(dir, &name, &stat)?,
                None => {}
            }
        }
        let mut shown = Vec::new();
        for (stored, plain) in marked(xattr::list(dir)?) {
            shown.extend(plain.zip(xattr::get(dir, &stored)?));
            xattr::remove(dir, &stored)?;
        }
        // When all are gone: what one is shown as may be what another is stored as.
        for (plain, value) in shown {
            xattr::set(dir, &plain, &value)?;
        }
        set_mtime(dir, mtime_of(&before)).map_err(|errno| failed("futimens", path, errno))
    }

    /// The same of `name` in `dir`, which is no directory; under one of its names if it has several.
    fn clean_attributes(&mut self, dir: &OwnedFd, name: &[u8], stat: &FileStat) -> Result<()> {
        if self.cleaned.contains(&stat.st_ino) {
            return Ok(());
        }
        let mut shown = Vec::new();
        for (stored, plain) in marked(xattr::list_at(dir, name)?) {
            shown.extend(plain.zip(xattr::get_at(dir, name, &stored)?));
            xattr::remove_at(dir, name, &stored)?;
        }
        if stat.st_nlink > 1 && !shown.is_empty() {
            self.cleaned.insert(stat.st_ino);
        }
        for (plain, value) in shown {
            xattr::set_at(dir, name, &plain, &value)?;
        }
        Ok(())
    }
}

/// Of `names`, those that mean something to overlayfs, each with what it is outside.
fn marked(names: Vec<CString>) -> impl Iterator<Item = (CString, Option<CString>)> {
    names.into_iter().filter_map(|name| {
        let plain = unescaped(name.to_bytes());
        let unmarked = plain.as_deref() == Some(name.to_bytes());
        let plain = plain.and_then(|plain| CString::new(plain).ok());
        (!unmarked).then_some((name, plain))
    })
}

fn child(dir: &OwnedFd, path: &RelativePath, name: &[u8]) -> Result<OwnedFd> {
    open_directory(dir, &RelativePath::clean(name)?).map_err(|errno| failed("openat2", path, errno))
}
