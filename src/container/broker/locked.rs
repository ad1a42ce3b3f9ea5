//! What covers parts of the kernel's interfaces, fixed there by the kernel itself.
//!
//! When a mount namespace of another user is made, the kernel locks what is mounted in it: whoever gets such
//! a tree can't unmount or move what covers something, nor make it writable, and can't copy what is beneath
//! without it. That goes for root as well, and where no broker looks: it holds when a tree is detached while
//! somebody has it open, and when a namespace ends. So a copy of each tree goes through such a namespace.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{pause, pipe, read, write};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};

use super::caller::{copy_tree, open_path};

use crate::sys::fork::fork;

const TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Locks what is mounted below `/proc`, `/sys` and `/dev`, for this mount namespace and all that are made of
/// it. False where the kernel has no user namespaces. The process must be single-threaded.
pub(super) fn lock_covers() -> Result<bool> {
    let Some(trees) = locked_copies()? else {
        return Ok(false);
    };
    for (tree, path) in trees.iter().zip(TREES) {
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("umount -l {path}"))?;
        move_mount(tree, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("move_mount({path})"))?;
    }
    Ok(true)
}

/// Copies of the trees, locked by a namespace that a child makes, and keeps until they are made.
fn locked_copies() -> Result<Option<Vec<OwnedFd>>> {
    let (made, tell) = pipe().context("pipe")?;
    let child = fork(|| {
        let _ = set_pdeathsig(Signal::SIGKILL);
        let entered = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
        // Its parent, which may not look into other processes, opens its namespace.
        let entered = entered.and_then(|()| set_dumpable(true));
        let _ = write(&tell, &[u8::from(entered.is_ok())]);
        loop {
            pause();
        }
    })
    .context("fork")?;
    drop(tell);
    let mut answer = [0];
    let heard = read(&made, &mut answer).context("read");
    let copies = match (heard, answer) {
        (Ok(1), [1]) => copies_in_namespace_of(child).map(Some),
        (Ok(1), _) => Ok(None),
        (heard, _) => heard.and(Err(anyhow!("the process that makes a namespace has died"))),
    };
    kill(child, Signal::SIGKILL).context("kill")?;
    waitpid(child, None).context("waitpid")?;
    copies
}

fn copies_in_namespace_of(process: nix::unistd::Pid) -> Result<Vec<OwnedFd>> {
    let namespace = |of: &str| {
        let path = format!("/proc/{of}/ns/mnt");
        open(path.as_str(), OFlag::O_CLOEXEC, Mode::empty()).with_context(|| format!("open({path})"))
    };
    let (theirs, ours) = (namespace(&process.to_string())?, namespace("self")?);
    setns(&theirs, CloneFlags::CLONE_NEWNS).context("setns")?;
    let copy = |path| copy_tree(open_path(AT_FDCWD, path, OFlag::O_DIRECTORY)?, true);
    let copies = TREES.into_iter().map(copy).collect::<nix::Result<Vec<_>>>();
    setns(&ours, CloneFlags::CLONE_NEWNS).context("setns")?;
    copies.context("open_tree")
}
