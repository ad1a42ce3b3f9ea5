//! The move out of the root that the kernel made, into a tmpfs, as `switch_root` does.
//!
//! The kernel's own root can neither be unmounted nor be exchanged for another by `pivot_root(2)`, and lies
//! at the bottom of every mount namespace: a program in a container that gets rid of all that is mounted
//! stands in it. So nothing is left there, and nothing can be written to it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, DirEntry, File, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{chroot, execv, fchdir};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

use crate::console::output::say;
use crate::console::text::size;
use crate::machine::memory::available_memory_bytes;
use crate::sys::mount::root_is_initramfs;

/// What must be left of the machine's memory while the largest file is there twice.
const SPARE_BYTES: u64 = 16 << 20;

/// Moves into a tmpfs and starts this program again from there, unless that was done before or the root is
/// another than the kernel's. Where memory does not suffice, everything stays where it is.
pub(super) fn move_in() -> Result<()> {
    if !root_is_initramfs()? {
        return Ok(());
    }
    let largest_bytes = largest_file(Path::new("/"))?;
    let available_bytes = available_memory_bytes().context("reading MemAvailable in /proc/meminfo")?;
    if largest_bytes + SPARE_BYTES > available_bytes {
        say(&format!(
            "landfall: the ramdisk stays in the kernel's own root: its largest file is of {}, and {} of memory are left",
            size(largest_bytes),
            size(available_bytes)
        ));
        return Ok(());
    }
    // In the new root it is at the same place.
    let program = fs::read_link("/proc/self/exe").context("readlink(/proc/self/exe)")?;
    let (old, since) = (File::open("/").context("open(/)")?, Instant::now());
    enter_tmpfs().context("mounting a tmpfs on /")?;
    let mut moving = Moving::default();
    moving.all(Path::new("/"), Path::new("."))?;
    say(&format!(
        "landfall: the ramdisk ({}) moved to a file system of its own in {:.1} s",
        size(moving.moved_bytes),
        since.elapsed().as_secs_f32()
    ));
    chroot(".").context("chroot(.)")?;
    std::env::set_current_dir("/").context("chdir(/)")?;
    forbid_writing(&old)?;
    start_again(&program).map(|never| match never {})
}

/// The size of the largest file below `directory`, on its own file system.
fn largest_file(directory: &Path) -> Result<u64> {
    let device = fs::symlink_metadata(directory)?.dev();
    let mut largest_bytes = 0;
    for (entry, metadata) in entries(directory)? {
        let bytes = match metadata.is_dir() {
            _ if metadata.dev() != device => 0,
            true => largest_file(&entry.path())?,
            false => metadata.len(),
        };
        largest_bytes = largest_bytes.max(bytes);
    }
    Ok(largest_bytes)
}

/// What is in `directory`. All at once: it will have changed by the time that the second one is looked at.
fn entries(directory: &Path) -> Result<Vec<(DirEntry, Metadata)>> {
    let read = || -> std::io::Result<_> {
        let entries = fs::read_dir(directory)?;
        entries
            .map(|entry| entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata))))
            .collect()
    };
    read().with_context(|| format!("reading {}", directory.display()))
}

/// Makes a tmpfs, mounts it over the root and makes it the current directory. Paths from the root still lead
/// to what is below.
fn enter_tmpfs() -> Result<()> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(tmpfs)")?;
    // The one that it replaces was not bounded either, or by half of the memory.
    for (key, value) in [("source", "landfall"), ("mode", "0755"), ("size", "100%")] {
        fsconfig_set_string(&tmpfs, key, value).with_context(|| format!("fsconfig({key}={value})"))?;
    }
    fsconfig_create(&tmpfs).context("fsconfig(FSCONFIG_CMD_CREATE)")?;
    let attributes = MountAttrFlags::empty();
    let mounted: OwnedFd =
        fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context("fsmount(tmpfs)")?;
    move_mount(&mounted, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).context("move_mount(/)")?;
    fchdir(&mounted).context("fchdir")
}

/// Moves files to another file system, one by one: memory has to hold the largest of them twice, no more.
#[derive(Default)]
struct Moving {
    /// Where the first name went of files that have several, by inode.
    first_names: HashMap<u64, PathBuf>,
    moved_bytes: u64,
}

impl Moving {
    /// Moves what is in the directory `from` to the directory `to`, with what is mounted there.
    fn all(&mut self, from: &Path, to: &Path) -> Result<()> {
        let directory = fs::symlink_metadata(from).with_context(|| format!("stat({})", from.display()))?;
        for (entry, metadata) in entries(from)? {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let moved = if metadata.dev() == directory.dev() {
                self.one(&from, &metadata, &to)
            } else {
                move_mounted(&from, &metadata, &to)
            };
            moved.with_context(|| format!("moving {} to a tmpfs", from.display()))?;
        }
        own(to, &directory).with_context(|| format!("making {}", to.display()))
    }

    fn one(&mut self, from: &Path, metadata: &Metadata, to: &Path) -> Result<()> {
        if metadata.is_dir() {
            fs::create_dir(to)?;
            self.all(from, to)?;
            return Ok(fs::remove_dir(from)?);
        }
        match self.first_names.get(&metadata.ino()) {
            Some(first) => fs::hard_link(first, to)?,
            None => {
                copy(from, metadata, to)?;
                self.moved_bytes += metadata.len();
            }
        }
        if metadata.nlink() > 1 {
            self.first_names.insert(metadata.ino(), to.to_owned());
        }
        Ok(fs::remove_file(from)?)
    }
}

/// Moves what is mounted at `from`. What that covers is empty, as far as anyone can see.
fn move_mounted(from: &Path, metadata: &Metadata, to: &Path) -> Result<()> {
    if metadata.is_dir() {
        fs::create_dir(to)?;
    } else {
        File::create(to)?;
    }
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_MOVE, none).context("mount(MS_MOVE)")?;
    let covered = fs::symlink_metadata(from)?;
    if covered.is_dir() {
        return Ok(fs::remove_dir_all(from)?);
    }
    Ok(fs::remove_file(from)?)
}

/// Makes `to` what `from` is, but for directories.
fn copy(from: &Path, metadata: &Metadata, to: &Path) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return Ok(lchown(to, Some(metadata.uid()), Some(metadata.gid()))?);
    }
    if kind.is_file() {
        fs::copy(from, to)?;
    } else {
        let node = if kind.is_block_device() {
            SFlag::S_IFBLK
        } else if kind.is_char_device() {
            SFlag::S_IFCHR
        } else if kind.is_fifo() {
            SFlag::S_IFIFO
        } else {
            SFlag::S_IFSOCK
        };
        mknod(to, node, Mode::empty(), metadata.rdev()).context("mknod")?;
    }
    own(to, metadata)
}

/// Gives `path` the owner and the mode that are in `metadata`.
fn own(path: &Path, metadata: &Metadata) -> Result<()> {
    lchown(path, Some(metadata.uid()), Some(metadata.gid()))?;
    // After the owner: changing that takes the set-user-ID bit away.
    Ok(fs::set_permissions(path, metadata.permissions())?)
}

/// Lets nobody write to the file system that `root` is the root of, by this mount or copies of it.
fn forbid_writing(root: &File) -> Result<()> {
    let (none, flags) = (
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
    );
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    mount(none, path.as_str(), none, flags, none)
        .context("mount(MS_REMOUNT | MS_RDONLY) of the kernel's root")
}

/// Becomes `program` once more, so that the memory goes too that its text has in the old root.
fn start_again(program: &Path) -> Result<Infallible> {
    let words = std::env::args_os().map(|word| CString::new(word.into_vec()));
    let words: Vec<CString> = words.collect::<Result<_, _>>()?;
    let path = CString::new(program.as_os_str().as_bytes())?;
    execv(&path, &words).map_err(|errno| anyhow!("execve({}): {errno}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::enter_private_mounts;
    use std::os::unix::fs::PermissionsExt;

    fn mount_tmpfs(on: &Path) {
        fs::create_dir_all(on).unwrap();
        mount(Some("test"), on, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }

    /// All that can be in a ramdisk.
    fn fill(root: &Path) {
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/first"), "text").unwrap();
        fs::hard_link(root.join("a/b/first"), root.join("second")).unwrap();
        fs::hard_link(root.join("a/b/first"), root.join("a/third")).unwrap();
        lchown(root.join("second"), Some(1), Some(2)).unwrap();
        fs::set_permissions(root.join("second"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("nowhere", root.join("a/link")).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o1711)).unwrap();
        for (name, kind) in [("null", SFlag::S_IFCHR), ("fifo", SFlag::S_IFIFO)] {
            let number = nix::sys::stat::makedev(1, 3);
            mknod(&root.join(name), kind, Mode::from_bits_truncate(0o600), number).unwrap();
        }
        mount_tmpfs(&root.join("mounted"));
        fs::write(root.join("mounted/inside"), "inside").unwrap();
    }

    /// A line for each file: its path, type and mode, owners, and the number of its names.
    fn listed(root: &Path, below: &Path, lines: &mut Vec<String>) {
        for (entry, metadata) in entries(&root.join(below)).unwrap() {
            let path = below.join(entry.file_name());
            let (mode, links) = (metadata.mode(), metadata.nlink());
            let owners = (metadata.uid(), metadata.gid());
            lines.push(format!("{} {mode:o} {owners:?}", path.display()));
            if metadata.is_dir() {
                listed(root, &path, lines);
            } else {
                lines.push(format!("  {links} {} {}", metadata.len(), metadata.rdev()));
            }
        }
        lines.sort();
    }

    #[test]
    fn everything_moves_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        std::thread::spawn(move || {
            enter_private_mounts().unwrap();
            mount_tmpfs(&from);
            mount_tmpfs(&to);
            fill(&from);
            let [mut before, mut after, mut left] = [vec![], vec![], vec![]];
            listed(&from, Path::new(""), &mut before);
            let mut moving = Moving::default();
            moving.all(&from, &to).unwrap();
            listed(&to, Path::new(""), &mut after);
            assert_eq!(after, before);
            assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("nowhere"));
            let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
            assert_eq!(inode("a/b/first"), inode("second"));
            assert_eq!(fs::read(to.join("a/third")).unwrap(), b"text");
            assert_eq!(fs::read(to.join("mounted/inside")).unwrap(), b"inside");
            assert_eq!(moving.moved_bytes, 4 + "nowhere".len() as u64);
            listed(&from, Path::new(""), &mut left);
            assert_eq!(left, [""; 0]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_largest_file_is_found_at_any_depth() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/large"), [0; 100]).unwrap();
        fs::write(directory.path().join("small"), [0; 10]).unwrap();
        assert_eq!(largest_file(directory.path()).unwrap(), 100);
    }
}
