//! A fresh tmpfs for one run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::command;

/// An empty file system in memory, gone when it is dropped.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Mounts one.
    pub fn new() -> Result<Self> {
        let path = lab::tempdir()?.keep();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=100%,mode=0755", "landfall-bench"])
            .arg(&path);
        command::run(&mut mount).context("a tmpfs needs root")?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if command::run(Command::new("umount").arg(&self.path)).is_ok() {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
