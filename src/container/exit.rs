//! How a command ended, or why it did not begin.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::console::progress::Progress;

/// How a command in the sandbox ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Exited(i32),
    Signaled(i32),
}

impl ExitStatus {
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The status as a shell has it: 128 and the signal's number where a signal ended it.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

impl Ended {
    /// Tells what was refused.
    pub fn tell(&self, progress: &Progress) {
        for what in &self.refused {
            progress.warn(format!("the image tried to {what}: refused"));
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(out, "exit status {status}"),
            Self::Signaled(signal) => write!(out, "signal {signal}"),
        }
    }
}

/// A command in the sandbox that ran to its end.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub status: ExitStatus,
    /// What the image's programs tried and were not allowed to do, in words that go after "the image tried
    /// to".
    pub refused: Vec<String>,
}

/// A command that could not be started in its container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct NotStarted {
    /// What other container tools and shells exit with then.
    pub exit_status: u8,
    reason: String,
}

impl NotStarted {
    /// The container could not be run.
    pub const NOT_RUN: u8 = 125;
    const NOT_EXECUTABLE: u8 = 126;
    const NOT_FOUND: u8 = 127;

    /// The container could not be run, for this reason.
    pub fn not_run(reason: String) -> Self {
        let exit_status = Self::NOT_RUN;
        Self { exit_status, reason }
    }

    /// `program` was executed, and the kernel said `errno`.
    pub fn because(program: &str, errno: Errno) -> Self {
        let (exit_status, reason) = match errno {
            Errno::ENOENT | Errno::ENOTDIR => (
                Self::NOT_FOUND,
                format!("the image has no program {program:?}, or not its interpreter"),
            ),
            Errno::EACCES => (
                Self::NOT_EXECUTABLE,
                format!("{program:?} in the image is not executable"),
            ),
            _ => (
                Self::NOT_EXECUTABLE,
                format!("{program:?} in the image cannot be started: {}", errno.desc()),
            ),
        };
        Self { exit_status, reason }
    }
}
