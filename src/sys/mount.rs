//! Unmounting, attributes of mounts, and what the root is.

use std::os::fd::{AsFd, AsRawFd};
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

/// `struct mount_attr` of `linux/mount.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    /// For an ID-mapped mount.
    pub user_namespace: u64,
}

impl Attributes {
    pub const BYTES: usize = size_of::<Self>();

    /// As the structure is in memory.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut numbers = bytes.chunks_exact(8).map(|number| {
            let number = number.try_into().unwrap_or_default();
            u64::from_ne_bytes(number)
        });
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            set: next(),
            clear: next(),
            propagation: next(),
            user_namespace: next(),
        }
    }
}

/// Changes attributes of a mount, by its root, or of all that are mounted below it as well (mount_setattr(2),
/// since Linux 5.12).
pub fn set_attributes(mount: impl AsFd, recursive: bool, attributes: &Attributes) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open for the length of the call, the path is a string with its zero, and the
    // kernel reads `BYTES` of the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            Attributes::BYTES,
        )
    };
    Errno::result(result).map(drop)
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
