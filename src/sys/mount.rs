//! Unmounting, and what the root is. Nothing unsafe: it is here because siblings need it.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// A process that was forked a moment ago has every open file until it runs its own program. So long a busy
/// mount is tried again.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Unmounts what is mounted at `path`; an error if it's still in use.
pub fn unmount(path: &Path) -> nix::Result<()> {
    let since = Instant::now();
    loop {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) if since.elapsed() < BUSY_LIMIT => sleep(TRY_EVERY),
            done => return done,
        }
    }
}

/// Whether the root is the one that the kernel started with, in memory.
pub fn root_is_initramfs() -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(root_type(&mounts) == Some("rootfs"))
}

fn root_type(mountinfo: &str) -> Option<&str> {
    let on_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let (_, filesystem) = mountinfo.lines().rfind(on_root)?.split_once(" - ")?;
    filesystem.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::root_type;

    #[test]
    fn the_initial_root_is_told_from_others() {
        let initramfs = "1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:5 / /dev rw - devtmpfs devtmpfs rw\n";
        let disk = "1 1 0:2 / / rw - rootfs rootfs rw\n22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\n";
        assert_eq!(root_type(initramfs), Some("rootfs"));
        assert_eq!(root_type(disk), Some("ext4"));
        assert_eq!(root_type(""), None);
    }
}
