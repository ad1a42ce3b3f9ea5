//! A mount namespace of one's own. Nothing unsafe: it stands here because two siblings need it.

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
