//! Unmounting. Nothing unsafe: it stands here because siblings need it.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// A process that was forked a moment ago has every open file until it runs its own program. So long a busy mount is tried
/// again.
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
