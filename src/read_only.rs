//! Other people's file systems, mounted so that nothing at all is written to them, where nobody else sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::kernel::modules;
use crate::sys::namespace::private_directory;

/// A file system, mounted in this process's own mount namespace. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct ReadOnlyMount(PathBuf);

impl ReadOnlyMount {
    /// Mounts the file system `kind` (by `blkid`'s name) on `device`.
    pub fn new(device: &Path, kind: &'static str) -> Result<Self> {
        let at = new_directory()?;
        // From here on it is cleaned up.
        let mount = Self(at);
        mount_at(device, kind, &mount.0)
            .with_context(|| format!("mounting {} ({kind})", device.display()))?;
        Ok(mount)
    }

    /// The root of the file system.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ReadOnlyMount {
    fn drop(&mut self) {
        // Nothing was mounted if mounting failed; the namespace goes away with the process anyway.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

fn new_directory() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = private_directory()?.join(format!("read-only-{number}"));
    fs::create_dir(&path).with_context(|| format!("mkdir({path:?})"))?;
    Ok(path)
}

fn mount_at(device: &Path, kind: &'static str, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // A journal is not replayed.
    let (kind, options) = match kind {
        "ext2" | "ext3" | "ext4" => ("ext4", Some("noload")),
        "xfs" => ("xfs", Some("norecovery")),
        "btrfs" => ("btrfs", Some("rescue=nologreplay")),
        "ntfs" => ("ntfs3", None),
        other => (other, None),
    };
    let attempt = || mount(Some(device), to, Some(kind), flags, options);
    match attempt() {
        Err(Errno::ENODEV) => {
            modules::load(&[kind])
                .with_context(|| format!("this kernel doesn't know {kind}: add its module to the ramdisk"))?;
            Ok(attempt()?)
        }
        Err(Errno::EPERM | Errno::EACCES) => bail!("this needs root: start it as the superuser"),
        other => Ok(other?),
    }
}
