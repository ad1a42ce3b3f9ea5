//! The `/bin/sh` of a test's ramdisk: says how Landfall leaves a machine, as its kernel sees it, and switches
//! it off.

use std::fs::{self, File};
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::reboot::{RebootMode, reboot};

const SETTINGS: [&str; 4] = [
    "kernel/core_pattern",
    "fs/suid_dumpable",
    "kernel/dmesg_restrict",
    "kernel/kptr_restrict",
];

fn main() -> Result<()> {
    for name in SETTINGS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name))?;
        println!("look: {name} is {}", value.trim_end());
    }
    for line in fs::read_to_string("/proc/net/route")?.lines().skip(1) {
        println!(
            "look: route: {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    for path in files(Path::new("/"))? {
        println!("look: in the root: {}", path.display());
    }
    stand_at_the_bottom()?;
    for path in files(Path::new("/"))? {
        println!("look: at the bottom: {}", path.display());
    }
    match File::create("/new") {
        Ok(_) => println!("look: the bottom can be written to"),
        Err(error) => println!("look: the bottom cannot be written to: {error}"),
    }
    println!("look: done; powering off");
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

/// What is in the file system that has `directory`, but kernel modules.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let device = fs::metadata(directory)?.dev();
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let path = entry.path();
        if metadata.dev() != device || path == Path::new("/lib/modules") {
            continue;
        }
        if metadata.is_dir() {
            found.extend(files(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

/// Gets rid of the root, as one could in a container, and enters what is then the root of the namespace.
fn stand_at_the_bottom() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let namespace = File::open("/proc/self/ns/mnt")?;
    umount2("/", MntFlags::MNT_DETACH)?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}
