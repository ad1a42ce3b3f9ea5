//! A mount namespace of one's own. Nothing unsafe: it stands here because siblings need it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Takes this thread, and those that it starts, into a mount namespace of their own. What is mounted there is seen by
/// nobody else, and is gone when the last process in it is, however that ends.
pub fn enter_private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mount --make-rprivate /")
}

/// A directory that every kernel has and nobody here needs. It is covered, so that nothing has to be made in any file system of
/// the machine's, where it would stay when this process is killed.
const COVERED: &str = "/proc/driver";

/// Directories to mount things on fit into this, with room.
const OPTIONS: &str = "mode=0700,size=1m";

/// A directory in memory that no other process sees, for all that is mounted. The process must be in a mount namespace of its own.
pub fn private_directory() -> Result<&'static Path> {
    static COVERS: Mutex<bool> = Mutex::new(false);
    let mut covers = COVERS.lock().unwrap_or_else(PoisonError::into_inner);
    if !*covers {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("landfall"), COVERED, Some("tmpfs"), flags, Some(OPTIONS))
            .with_context(|| format!("mounting a tmpfs on {COVERED}"))?;
        *covers = true;
    }
    Ok(Path::new(COVERED))
}
