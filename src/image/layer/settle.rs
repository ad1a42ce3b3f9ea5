//! What a layer has to know of those below it, once all of them are there.
//!
//! - A directory that no entry described looks like the one below it: otherwise overlayfs would show a
//!   made-up owner and mode in its place. If there is none below, and it only holds whiteouts, it was not
//!   meant to be there at all.
//! - overlayfs does not ask whether a layer's root is opaque: the layers below one that is are emptied.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::attributes::{copy, mtime_of, set_mtime};
use super::directory::{self, failed, is_directory, is_whiteout, look, open_directory, open_root};
use super::error::{Context as _, LayerError, Result, ensure};
use super::path::RelativePath;
use super::unpack::UnpackedLayer;
use super::whiteout::OPAQUE_XATTR;
use super::xattr;

/// How many names may be looked up in layers below: minutes of work, and far more than images that are no
/// bombs need.
const MAX_LOOKUPS: usize = 1 << 27;

/// Settles `layers`, which are all layers of one image from the bottom, as long as that is `wanted`. Do it
/// once.
pub fn settle(layers: &[UnpackedLayer], wanted: &dyn Fn() -> bool) -> Result<()> {
    settle_within(layers, MAX_LOOKUPS, wanted)
}

fn settle_within(layers: &[UnpackedLayer], max_lookups: usize, wanted: &dyn Fn() -> bool) -> Result<()> {
    let mut lookups = 0;
    let mut below: Vec<Root> = Vec::new();
    for layer in layers {
        let root = Root {
            fd: open_root(layer.path())?,
            has_marks: layer.has_marks(),
        };
        if is_opaque(&root.fd)? {
            for lower in &below {
                empty(&lower.fd).context("emptying the layers below an opaque root")?;
            }
        }
        let names = layer.implied().iter().map(|path| path.components().count());
        lookups += names.sum::<usize>() * below.len();
        ensure!(
            lookups <= max_lookups,
            "the layers have too many directories without an entry of their own"
        );
        // From the deepest: one that is removed may leave its parent empty.
        for path in layer.implied().iter().rev() {
            if !wanted() {
                return Err(LayerError::Stopped);
            }
            settle_directory(&root, path, &below)
                .with_context(|| format!("settling {path} of layer {}", layer.layer().index + 1))?;
        }
        below.push(root);
    }
    Ok(())
}

/// The directory of a layer.
struct Root {
    fd: OwnedFd,
    /// Whether opaque directories may be in it.
    has_marks: bool,
}

/// Removes what is in a layer, but not what its root looks like.
fn empty(layer: &OwnedFd) -> nix::Result<()> {
    let before = fstat(layer)?;
    directory::clear(layer)?;
    set_mtime(layer, mtime_of(&before))
}

fn settle_directory(root: &Root, path: &RelativePath, below: &[Root]) -> Result<()> {
    let own = open_directory(&root.fd, path).map_err(|errno| failed("openat2", path, errno))?;
    match find_below(root, path, below)? {
        Some(lower) => copy(&lower, &own),
        None if path.is_root() => Ok(()),
        None => remove_if_idle(&root.fd, path, &own),
    }
}

/// Removes a directory that shows nothing. One that is there for a directory of its own is kept by it.
fn remove_if_idle(root: &OwnedFd, path: &RelativePath, own: &OwnedFd) -> Result<()> {
    let names = directory::names(own).map_err(|errno| failed("getdents64", path, errno))?;
    for name in &names {
        let stat = look(own, name).map_err(|errno| failed("fstatat", path, errno))?;
        if stat.is_some_and(|stat| !is_whiteout(&stat)) {
            return Ok(());
        }
    }
    let Some((parent, name)) = path.split() else {
        return Ok(());
    };
    let parent_fd = open_directory(root, &parent).map_err(|errno| failed("openat2", &parent, errno))?;
    let stat = fstat(&parent_fd).map_err(|errno| failed("fstat", &parent, errno))?;
    directory::remove(&parent_fd, name).map_err(|errno| failed("unlinkat", path, errno))?;
    set_mtime(&parent_fd, mtime_of(&stat)).map_err(|errno| failed("futimens", &parent, errno))
}

/// The directory that overlayfs would merge `path` of the layer `root` with, if there is one.
fn find_below(root: &Root, path: &RelativePath, below: &[Root]) -> Result<Option<OwnedFd>> {
    let parent = path.split().map(|(parent, _)| parent).unwrap_or_default();
    // Whether its own mark hides what is in the one below says nothing about the directory itself.
    if let Reach::Hidden | Reach::Opaque(_) = reach(root, &parent)? {
        return Ok(None);
    }
    for lower in below.iter().rev() {
        match reach(lower, path)? {
            Reach::Directory(fd) | Reach::Opaque(Some(fd)) => return Ok(Some(fd)),
            Reach::Hidden | Reach::Opaque(None) => return Ok(None),
            Reach::Nothing => {}
        }
    }
    Ok(None)
}

/// How far a path goes in one layer.
enum Reach {
    /// To its end.
    Directory(OwnedFd),
    /// To its end or not, and an opaque directory is on the way.
    Opaque(Option<OwnedFd>),
    /// The layer says nothing of it.
    Nothing,
    /// The layer has something else in its place.
    Hidden,
}

/// There may be many layers, and many paths: one call for each, where nothing can be opaque.
fn reach(root: &Root, path: &RelativePath) -> Result<Reach> {
    if root.has_marks {
        return reach_marked(&root.fd, path);
    }
    match open_directory(&root.fd, path) {
        Ok(fd) => Ok(Reach::Directory(fd)),
        Err(Errno::ENOENT) => Ok(Reach::Nothing),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(Reach::Hidden),
        Err(errno) => Err(failed("openat2", path, errno)),
    }
}

/// Name by name, for an opaque directory on the way hides what is below.
fn reach_marked(root: &OwnedFd, path: &RelativePath) -> Result<Reach> {
    let mut here = root.try_clone().context("dup failed")?;
    let mut opaque = false;
    for name in path.components() {
        let looked = look(&here, name).map_err(|errno| failed("fstatat", path, errno))?;
        match looked {
            None if opaque => return Ok(Reach::Opaque(None)),
            None => return Ok(Reach::Nothing),
            Some(stat) if !is_directory(&stat) => return Ok(Reach::Hidden),
            Some(_) => {}
        }
        let name = RelativePath::clean(name)?;
        here = open_directory(here.as_fd(), &name).map_err(|errno| failed("openat2", path, errno))?;
        opaque |= is_opaque(&here)?;
    }
    Ok(if opaque {
        Reach::Opaque(Some(here))
    } else {
        Reach::Directory(here)
    })
}

fn is_opaque(fd: &OwnedFd) -> Result<bool> {
    xattr::is(fd, OPAQUE_XATTR, b"y").context("fgetxattr failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::notation::archive;
    use crate::image::layer::tests::{Place, unpack_archive};

    #[test]
    fn many_undescribed_directories_in_many_layers_are_a_bomb() {
        let place = Place::new();
        let layers: Vec<_> = (0..3)
            .map(|index| unpack_archive(archive("file a/b/c"), index, &place).unwrap())
            .collect();
        // The three names in `a` and `a/b`, looked up in one layer for the second and in two for the third.
        let error = settle_within(&layers, 8, &|| true).unwrap_err().to_string();
        assert!(error.contains("too many directories"), "{error}");
        let error = settle_within(&layers, 9, &|| false).unwrap_err().to_string();
        assert!(error.contains("was stopped"), "{error}");
        settle_within(&layers, 9, &|| true).unwrap();
    }
}
