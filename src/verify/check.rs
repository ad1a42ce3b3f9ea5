//! What was checked, and how that went: it holds, it does not, or it could not be checked.

use std::fmt;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::console::progress::Progress;
use crate::console::text::printable;
use crate::machine::disk::installed::Unverified;
use crate::machine::filesystem::FilesystemError;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    Passed(String),
    Failed(String),
    NotChecked(String),
}

use Outcome::{Failed, NotChecked, Passed};

impl From<&Unverified> for Outcome {
    fn from(error: &Unverified) -> Self {
        match error {
            Unverified::Wrong(error) => Failed(error.to_string()),
            Unverified::NotChecked(error) => NotChecked(format!("{error:#}")),
        }
    }
}

impl From<FilesystemError> for Outcome {
    fn from(error: FilesystemError) -> Self {
        match error {
            FilesystemError::Unsound { .. } => Failed(error.to_string()),
            FilesystemError::Io(error) => NotChecked(error.to_string()),
        }
    }
}

/// All checks of a disk.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// In their order.
    pub checks: Vec<Check>,
}

impl Verdict {
    pub(super) fn add(&mut self, what: &'static str, outcome: Outcome) {
        self.checks.push(Check { what, outcome });
    }

    /// Tells what was found and what could not be checked.
    pub fn tell(&self, progress: &Progress) {
        for Check { what, outcome } in &self.checks {
            match outcome {
                Passed(found) => progress.note(format!("{what}: {found}")),
                NotChecked(why) => progress.note(format!("{what}: not checked: {why}")),
                // It becomes the error.
                Failed(_) => {}
            }
        }
    }

    /// An error when a check failed.
    pub fn refuse_failures(&self) -> Result<()> {
        let failed = self.checks.iter().filter_map(|check| match &check.outcome {
            Failed(problem) => Some(format!("{}: {problem}", check.what)),
            _ => None,
        });
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("the disk failed verification: {}", failed.join("; "))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { what, outcome } in &self.checks {
            match outcome {
                Passed(found) => writeln!(out, "ok           {what}: {}", printable(found))?,
                Failed(found) => writeln!(out, "FAILED       {what}: {}", printable(found))?,
                NotChecked(why) => writeln!(out, "not checked  {what}: {}", printable(why))?,
            }
        }
        Ok(())
    }
}
