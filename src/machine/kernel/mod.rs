//! The running kernel: what it was booted with, its modules, and the file systems that it knows.

pub mod command_line;
pub mod modules;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use crate::sys::mount::has_filesystem;

/// The kernel's release, such as `6.12.5-amd64`.
pub fn release() -> Result<String> {
    Ok(uname().context("uname")?.release().to_string_lossy().into_owned())
}

/// Whether a kernel of this release is of this version, major and minor, or a newer one.
pub fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(version.0), Some(version.1))
}

/// Loads what the kernel needs for this file system, if it isn't ready.
pub fn need_filesystem(name: &str) -> Result<()> {
    if knows_filesystem(name)? {
        return Ok(());
    }
    let Err(error) = modules::load(&[name]) else {
        return Ok(());
    };
    // In a container the modules aren't to be seen, but the kernel has a program that loads them.
    if has_filesystem(name) == Ok(true) {
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

/// Whether the kernel has this file system ready.
fn knows_filesystem(name: &str) -> Result<bool> {
    let known =
        fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems: mount /proc first")?;
    Ok(known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_older_or_newer_than_a_version() {
        for (release, newer) in [
            ("5.14.0-503.el9.x86_64", false),
            ("6.8.0-31-generic", false),
            ("6.12-rc1", true),
            ("6.18.4", true),
            ("7.0.0", true),
        ] {
            assert_eq!(is_since(release, (6, 12)), newer, "{release}");
        }
    }
}
