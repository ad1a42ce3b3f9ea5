//! The running kernel: what it was booted with, its modules, and the file systems that it knows.

pub mod command_line;
pub mod modules;
mod release;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use rustix::mount::{FsOpenFlags, fsopen};

pub use release::{is_since, release};

/// Loads what the kernel needs for this file system, if it isn't ready.
pub fn need_filesystem(name: &str) -> Result<()> {
    if knows_filesystem(name)? {
        return Ok(());
    }
    let Err(error) = modules::load(&[name]) else {
        return Ok(());
    };
    // In a container the modules aren't to be seen, but the kernel has a program that loads them.
    if fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).is_ok() {
        return Ok(());
    }
    Err(error).with_context(|| format!("this kernel has no {name}: add the module {name} to the ramdisk"))
}

/// Whether the kernel has a function of this name, as far as it tells.
pub fn has_function(name: &str) -> Result<bool> {
    let symbols = File::open("/proc/kallsyms").context("open(/proc/kallsyms)")?;
    for line in BufReader::new(symbols).lines() {
        let line = line.context("read(/proc/kallsyms)")?;
        if line.split_whitespace().nth(2) == Some(name) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn knows_filesystem(name: &str) -> Result<bool> {
    let known =
        fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems: mount /proc first")?;
    let is_it = |line: &str| line.split_whitespace().last() == Some(name);
    Ok(known.lines().any(is_it))
}
