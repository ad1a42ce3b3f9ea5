//! Children that go on where this process is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::unistd::{ForkResult, Pid, fork as system_fork};

/// What a child exits with that panicked.
const PANICKED: i32 = 101;

/// Starts a copy of this process, which does `work` and ends with the exit status that this gives. The
/// process must be single-threaded: a copy has no other threads, and what they held is held for ever.
pub fn fork(work: impl FnOnce() -> i32) -> nix::Result<Pid> {
    // SAFETY: the child is as good as its parent, which has one thread.
    match unsafe { system_fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
            // SAFETY: it ends the process, and no handler of the parent's is called.
            unsafe { libc::_exit(status) }
        }
    }
}
