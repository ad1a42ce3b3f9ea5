//! Processes that end with the one that made them.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// A running process. What it says does not depend on numbers, which namespaces have of their own.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// This one.
    pub fn own() -> Result<Self> {
        // SAFETY: takes two numbers; what it gives is a file descriptor of nobody else's, or -1.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_pidfd_open,
                libc::c_long::from(libc::getpid()),
                0 as libc::c_long,
            )
        };
        ensure!(fd >= 0, "pidfd_open: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just made it, and a file descriptor fits into an int.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Asks the kernel to kill the calling process when this one, its parent, ends. An error if it has ended already.
    pub fn take_along(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        let mut ended = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let count = poll(&mut ended, PollTimeout::ZERO).context("poll(pidfd)")?;
        ensure!(count == 0, "the process that this one works for has ended");
        Ok(())
    }
}
