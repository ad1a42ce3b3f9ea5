//! Settings of the kernel that a machine with nobody's work on it can do without: by each a program of an
//! image could reach out of its container, or learn of what is outside.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, setrlimit};

const SETTINGS: [(&str, &str); 4] = [
    // Root outside of all containers runs what comes after a `|`. There is no file at this path, ever.
    ("kernel/core_pattern", "/dev/null/core"),
    ("fs/suid_dumpable", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
];

/// Sets them, as far as this kernel has them. `kernel.sysrq` stays: it is for those at the keyboard.
pub(super) fn apply() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("setrlimit(RLIMIT_CORE)")?;
    SETTINGS.iter().try_for_each(|(name, value)| set(name, value))
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    match fs::write(&path, value) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written.with_context(|| format!("writing {value} to {path}")),
    }
}
