//! What the container has and libcontainer does not mount: the helper brings it in from outside, before
//! anything of the image runs, so that the container's first process never has the power to.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Pid, mkdir};

use super::power::{Power, Target};
use crate::machine::kernel::command_line;

const COMMAND_LINE: &str = "/proc/cmdline";
/// Of no use to an installer, and not to be read or written by one.
const MASKED: [&str; 4] = ["/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg"];
const NONE: Option<&str> = None;

/// Completes the container whose first process waits to be started.
pub(super) fn furnish(first: Pid, power: &Power) -> Result<()> {
    let words = fs::read_to_string(COMMAND_LINE).context("reading the kernel command line")?;
    let (words, power) = (command_line::cleaned(&words), power.clone());
    within(first, move || {
        cover_command_line(&words)?;
        power.target().map_or(Ok(()), mount_devices)
    })
}

/// Does `work` in the mounts of `process`, by a thread that ends with it.
fn within(process: Pid, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let path = format!("/proc/{process}/ns/mnt");
    let mounts = File::open(&path).with_context(|| format!("open {path}"))?;
    let working = thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
        setns(mounts, CloneFlags::CLONE_NEWNS).context("setns(CLONE_NEWNS)")?;
        work()
    });
    let done = working
        .join()
        .map_err(|_| anyhow!("the mounting thread panicked"))?;
    done.context("completing the container")
}

/// The real one may hold credentials: a proxy's, a config drive's.
fn cover_command_line(words: &str) -> Result<()> {
    // On the tmpfs that libcontainer has mounted.
    let copy = "/dev/cmdline";
    fs::write(copy, words).with_context(|| format!("writing {copy}"))?;
    bind(copy, COMMAND_LINE)?;
    remount(COMMAND_LINE, INERT | MsFlags::MS_RDONLY)?;
    fs::remove_file(copy).with_context(|| format!("removing {copy}"))
}

const INERT: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
/// Devices that can be opened, and no programs.
const NODES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// The kernel's devices in place of the few that libcontainer made: partitions appear among them as the
/// kernel makes them. There is one such file system for all; this view of it cannot be written.
fn mount_devices(target: &Target) -> Result<()> {
    mount_new("devtmpfs", "/dev", NODES, "")?;
    complete()?;
    mount_new("devpts", "/dev/pts", NODES, "newinstance,ptmxmode=0666,mode=0620")?;
    mount_new(
        "tmpfs",
        "/dev/shm",
        INERT.difference(MsFlags::MS_NOEXEC),
        "mode=1777,size=64m",
    )?;
    mount_mapper(target)?;
    for device in MASKED {
        if fs::exists(device).with_context(|| format!("stat({device})"))? {
            bind("/dev/null", device)?;
        }
    }
    remount("/dev", NODES | MsFlags::MS_RDONLY)
}

/// What the kernel leaves to others, and every machine has. udev makes these links; a ramdisk may have none.
fn complete() -> Result<()> {
    for directory in ["/dev/pts", "/dev/shm"] {
        match mkdir(directory, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("mkdir {directory}")),
        }
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        let link = Path::new("/dev").join(name);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(to, &link).with_context(|| format!("symlink {}", link.display()))?;
        }
    }
    Ok(())
}

/// Volumes of the device mapper get their nodes from who makes them, as there is no udev. What the machine
/// itself has mapped is not to be seen.
fn mount_mapper(target: &Target) -> Result<()> {
    let mapper = Path::new("/dev/mapper");
    let control = mapper.join("control");
    let number = fs::metadata(&control).map(|control| control.rdev());
    if !mapper.is_dir() {
        return Ok(());
    }
    mount_new("tmpfs", "/dev/mapper", NODES, "mode=0755,size=64k")?;
    match number {
        Ok(number) if target.luks => mknod(&control, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), number)
            .with_context(|| format!("mknod {}", control.display())),
        _ => Ok(()),
    }
}

fn mount_new(kind: &str, on: &str, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), on, Some(kind), flags, Some(options)).with_context(|| format!("mount -t {kind} {on}"))
}

fn bind(from: &str, on: &str) -> Result<()> {
    mount(Some(from), on, NONE, MsFlags::MS_BIND, NONE).with_context(|| format!("mount --bind {from} {on}"))
}

fn remount(on: &str, flags: MsFlags) -> Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(NONE, on, NONE, flags, NONE).with_context(|| format!("mount -o remount,bind {on}"))
}
