//! How a command ended, or why it did not begin.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

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

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(out, "exit status {status}"),
            Self::Signaled(signal) => write!(out, "signal {signal}"),
        }
    }
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
