//! The running kernel: what it was booted with, its modules, and the file systems that it knows.

pub mod command_line;
pub mod modules;

use std::fs;

use anyhow::{Context, Result};

/// Loads what the kernel needs for this file system, if it isn't ready.
pub fn need_filesystem(name: &str) -> Result<()> {
    if !knows_filesystem(name)? {
        modules::load(&[name])
            .with_context(|| format!("this kernel has no {name}: add the module {name} to the ramdisk"))?;
    }
    Ok(())
}

/// Whether the kernel has this file system ready.
fn knows_filesystem(name: &str) -> Result<bool> {
    let known =
        fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems: mount /proc first")?;
    Ok(known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name)))
}
