//! Directories by handle: every name is resolved below one open directory, and no symbolic link is followed
//! by the kernel.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, major, minor};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::path::Path;

use super::error::{Context as _, LayerError, Result};
use super::path::RelativePath;

/// The longest path that the kernel takes in one call, without the NUL at its end.
const MAX_CALL_BYTES: usize = 4095;

/// The error of a system call as strace shows it: `mkdirat("usr/bin"): ENOSPC: No space left on device`.
pub fn failed(call: &str, path: &RelativePath, errno: Errno) -> LayerError {
    LayerError::Refused(
        errno,
        anyhow::Error::from(errno).context(format!("{call}(\"{path}\") failed")),
    )
}

/// Opens a directory by a path of the program's own, not of an archive's.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    nix::fcntl::openat(AT_FDCWD, path, flags, Mode::empty())
        .with_context(|| format!("open({:?}, O_DIRECTORY) failed", path))
}

/// Opens the file or directory `path` below `root`, wherever no link is on the way; otherwise ELOOP or
/// ENOTDIR.
pub fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, if path.is_empty() { b".".as_slice() } else { path }, how)
}

/// As [`open_beneath`], of a directory, for paths of any length.
pub fn open_directory(root: impl AsFd, path: &RelativePath) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut rest = path.as_bytes();
    let mut opened: Option<OwnedFd> = None;
    while rest.len() > MAX_CALL_BYTES {
        let slash = rest[..MAX_CALL_BYTES].iter().rposition(|byte| *byte == b'/');
        let slash = slash.ok_or(Errno::ENAMETOOLONG)?;
        let here = opened.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        opened = Some(open_beneath(here, &rest[..slash], flags, Mode::empty())?);
        rest = &rest[slash + 1..];
    }
    let here = opened.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    open_beneath(here, rest, flags, Mode::empty())
}

/// What `name` in `dir` is, itself; `None` if there is none.
pub fn look(dir: impl AsFd, name: &[u8]) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type bits of `stat`.
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

pub fn is_directory(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFDIR
}

/// Whether `stat` is an overlayfs whiteout's: a character device 0:0.
pub fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && major(stat.st_rdev) == 0 && minor(stat.st_rdev) == 0
}

/// The names in a directory, in no order, without `.` and `..`.
pub fn names(dir: impl AsFd) -> nix::Result<Vec<Vec<u8>>> {
    let own = open_beneath(dir, b"", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes `name` from `dir`, and all that is in it. Its depth is bounded by [`super::path::MAX_DEPTH`].
pub fn remove(dir: impl AsFd, name: &[u8]) -> nix::Result<()> {
    match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        other => return other,
    }
    let inner = open_beneath(&dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    clear(&inner)?;
    unlinkat(&dir, name, UnlinkatFlags::RemoveDir)
}

/// Removes all that is in `dir`.
pub fn clear(dir: impl AsFd) -> nix::Result<()> {
    for name in names(&dir)? {
        remove(&dir, &name)?;
    }
    Ok(())
}

/// Removes the directory `path`, a path of the program's own, and all that is in it.
pub fn remove_all(path: &Path) -> Result<()> {
    clear(open_root(path)?).with_context(|| format!("clearing {path:?}"))?;
    std::fs::remove_dir(path).with_context(|| format!("rmdir({path:?}) failed"))
}
