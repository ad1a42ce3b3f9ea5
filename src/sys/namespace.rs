//! A mount namespace of one's own. Nothing unsafe: it is here because siblings need it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

use super::mount::root_is_initramfs;

/// Takes this thread, and those that it starts, into a mount namespace of their own. What is mounted there is
/// seen by nobody else, and is gone when the last process in it is, however that ends.
pub fn enter_private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mount --make-rprivate /")
}

/// Where the root is the one that the kernel started with, takes this process, in a mount namespace of its
/// own, to another on top of it that shows the same: the first root of all can't be left behind by
/// `pivot_root(2)`.
pub fn leave_initramfs() -> Result<()> {
    if root_is_initramfs()? {
        cover_root()
    } else {
        Ok(())
    }
}

fn cover_root() -> Result<()> {
    let none = None::<&str>;
    mount(Some("/"), COVERED, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("mount --rbind / {COVERED}"))?;
    chdir(COVERED).with_context(|| format!("chdir {COVERED}"))?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("mount --move . /")?;
    chroot(".").context("chroot")?;
    chdir("/").context("chdir /")
}

/// A directory that every kernel has and nobody here needs. It is covered, so that nothing has to be made in
/// any file system of the machine's, where it would stay when this process is killed.
const COVERED: &str = "/proc/driver";

/// Directories to mount things on fit into this, with room.
const OPTIONS: &str = "mode=0700,size=1m";

/// A directory in memory that no other process sees, for all that is mounted. The process must be in a mount
/// namespace of its own.
pub fn private_directory() -> Result<&'static Path> {
    static MOUNTED: Mutex<Option<&Path>> = Mutex::new(None);
    let mut mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = *mounted {
        return Ok(path);
    }
    let path = Path::new(COVERED);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("landfall"), path, Some("tmpfs"), flags, Some(OPTIONS))
        .with_context(|| format!("mounting a tmpfs on {}", path.display()))?;
    *mounted = Some(path);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pivot_root;
    use std::{fs, thread};

    #[test]
    fn a_root_on_top_of_the_root_shows_the_same_and_can_be_left() {
        // A process has one root; a thread may have its own.
        let covered = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS).unwrap();
            enter_private_mounts().unwrap();
            let here = std::env::current_dir().unwrap();
            let names = || fs::read_dir(&here).unwrap().count();
            let before = names();
            cover_root().unwrap();
            assert_eq!(names(), before);
            assert!(Path::new("/proc/self/status").exists());
            let none = None::<&str>;
            mount(Some("new"), "/tmp", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            chdir("/tmp").unwrap();
            pivot_root(".", ".").unwrap();
            assert_eq!(fs::read_dir("/").unwrap().count(), 0);
        });
        covered.join().unwrap();
    }
}
