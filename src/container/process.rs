//! Processes that end with the one that made them.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// A running process. What it says does not depend on numbers, which namespaces have of their own.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    pub fn own() -> Result<Self> {
        let process = pidfd_open(getpid(), PidfdFlags::empty()).context("pidfd_open")?;
        Ok(Self(process))
    }

    /// Asks the kernel to kill the calling process when this one, its parent, ends. An error if it has ended
    /// already.
    pub fn take_along(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        let mut ended = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let count = poll(&mut ended, PollTimeout::ZERO).context("poll(pidfd)")?;
        ensure!(count == 0, "the process that this one works for has ended");
        Ok(())
    }
}
