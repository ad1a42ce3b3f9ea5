//! Foreign file systems, mounted privately: for reading, when nothing at all is written to them, or for
//! writing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::syncfs;

use crate::machine::kernel::modules;
use crate::sys::mount::unmount;
use crate::sys::namespace::private_directory;

/// A file system, mounted in this process's own mount namespace. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct PrivateMount(PathBuf);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing at all is written to it, not even its journal.
    Read,
    Write,
}

impl PrivateMount {
    /// Mounts the file system `kind` (by `blkid`'s name) on `device`.
    pub fn new(device: &Path, kind: &'static str, access: Access) -> Result<Self> {
        // From here on it is cleaned up.
        let mount = Self(new_directory()?);
        mount_at(device, kind, &mount.0, access)
            .with_context(|| format!("mounting {} ({kind})", device.display()))?;
        Ok(mount)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes everything out, and unmounts it. What went wrong until now is told here, if not before.
    pub fn close(self) -> Result<()> {
        let root = File::open(&self.0).context("open")?;
        syncfs(&root).context("syncfs")?;
        drop(root);
        unmount(&self.0).context("umount2")
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // Nothing was mounted if mounting failed; the namespace goes away with the process anyway.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

fn new_directory() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = private_directory()?.join(format!("mount-{number}"));
    fs::create_dir(&path).with_context(|| format!("mkdir({path:?})"))?;
    Ok(path)
}

fn mount_at(device: &Path, kind: &'static str, to: &Path, access: Access) -> Result<()> {
    let harmless = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let (kind, unreplayed) = match kind {
        "ext2" | "ext3" | "ext4" => ("ext4", Some("noload")),
        "xfs" => ("xfs", Some("norecovery")),
        "btrfs" => ("btrfs", Some("rescue=nologreplay")),
        "ntfs" => ("ntfs3", None),
        other => (other, None),
    };
    let (flags, options) = match access {
        // A journal is not replayed.
        Access::Read => (harmless | MsFlags::MS_RDONLY, unreplayed),
        // No link on it leads what is written elsewhere. Before Linux 5.10 the flag means nothing.
        Access::Write => (harmless | MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW), None),
    };
    let attempt = || mount(Some(device), to, Some(kind), flags, options);
    let done = match attempt() {
        Err(Errno::ENODEV) => {
            modules::load(&[kind]).with_context(|| {
                format!("this kernel does not know {kind}: add its module to the ramdisk")
            })?;
            attempt()
        }
        done => done,
    };
    match (done, access) {
        (Err(Errno::EBUSY), Access::Read) => Ok(mount_beside(device, kind, to, harmless)?),
        (done, _) => done.map_err(|errno| explain(errno, access)),
    }
}

/// Mounts a file system to be read that someone else has mounted to be written to: the kernel has it once,
/// and that is writable; this mount alone is not.
fn mount_beside(device: &Path, kind: &'static str, to: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(Some(device), to, Some(kind), flags, None::<&str>)?;
    let read_only = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, to, None::<&str>, read_only, None::<&str>)
}

fn explain(errno: Errno, access: Access) -> anyhow::Error {
    let why = match (errno, access) {
        (Errno::EBUSY, Access::Write) => "it is mounted read-only elsewhere: unmount it there",
        (Errno::EROFS | Errno::EACCES, Access::Write) => {
            "it is write-protected: check it for a switch, or use another one"
        }
        (Errno::EPERM | Errno::EACCES, _) => "this needs root privileges: run it as root",
        _ => return errno.into(),
    };
    anyhow!(why)
}
