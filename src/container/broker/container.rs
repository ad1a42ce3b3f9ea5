//! The container that the broker works for: what it has of the kernel's, and which devices are its.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::fs::{create_dir_all, read_dir};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use libc::dev_t;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev, minor, mknod, stat};
use nix::unistd::{chdir, chroot};

use super::caller::{copy_tree, open_path};

use super::found::{Found, is_firmware_variables};
use super::rules::{Device, Interface, Number, may_mount_device};
use crate::sys::namespace::enter_private_mounts;

/// Where the kernel lists block devices by their numbers.
const BLOCK_DEVICES: &str = "/sys/dev/block";
/// `linux/major.h`.
const LOOP_MAJOR: u64 = 7;
/// A directory that everyone has, to mount things on that nobody else sees.
const COVERED: &str = "/proc";

/// The machine's block devices, as they were when the installation began.
pub struct Machine {
    /// The directory above, which is not in the container.
    block_devices: OwnedFd,
    /// Disks with something in them: loop devices without a file don't count.
    old: HashSet<Number>,
    /// The disk that is installed onto.
    target: Number,
    /// Our own mount namespace.
    mounts: OwnedFd,
}

impl Machine {
    pub fn look(target: &Path) -> Result<Self> {
        let target = stat(target).with_context(|| format!("stat({})", target.display()))?;
        let block_devices = open_path(AT_FDCWD, BLOCK_DEVICES, OFlag::O_DIRECTORY)
            .with_context(|| format!("open({BLOCK_DEVICES})"))?;
        let mounts =
            open("/proc/self/ns/mnt", OFlag::O_CLOEXEC, Mode::empty()).context("open(/proc/self/ns/mnt)")?;
        let mut machine = Self {
            block_devices,
            old: HashSet::new(),
            target: number(target.st_rdev),
            mounts,
        };
        for entry in read_dir(BLOCK_DEVICES).context("listing block devices")? {
            let name = entry?.file_name();
            if let Some(number) = name.to_str().and_then(parse_number)
                && !machine.is_empty_loop(number)
            {
                machine.old.insert(number);
            }
        }
        Ok(machine)
    }

    /// Whether the kernel shows this of a device.
    fn has(&self, (major, minor): Number, name: &str) -> bool {
        let name = format!("{major}:{minor}/{name}");
        open_path(&self.block_devices, name, OFlag::empty()).is_ok()
    }

    fn is_loop(&self, number: Number) -> bool {
        number.0 == LOOP_MAJOR && !self.has(number, "partition")
    }

    fn is_empty_loop(&self, number: Number) -> bool {
        self.is_loop(number) && !self.has(number, "loop/backing_file")
    }

    fn device(&self, number: Number) -> Device {
        let disk = self.disk_of(number).unwrap_or(number);
        Device {
            disk,
            old: self.old.contains(&disk),
            made_of_others: self.is_loop(disk) || self.has(disk, "dm"),
        }
    }

    /// The disk that a partition is on.
    fn disk_of(&self, (major, minor): Number) -> Option<Number> {
        if !self.has((major, minor), "partition") {
            return None;
        }
        let name = format!("{major}:{minor}/../dev");
        let file = openat(
            &self.block_devices,
            name.as_str(),
            OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).ok()?;
        parse_number(text.trim_end())
    }
}

fn number(device: dev_t) -> Number {
    (major(device), minor(device))
}

fn parse_number(text: &str) -> Option<Number> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What the container's first process hands over, opened in it when nobody else was there.
pub struct Interfaces {
    pub proc: OwnedFd,
    pub sys: OwnedFd,
    pub dev: OwnedFd,
    pub mounts: OwnedFd,
    /// Whether the kernel keeps covered what is.
    pub locked: bool,
}

pub struct Container {
    interfaces: Interfaces,
    machine: Machine,
}

impl Container {
    pub fn new(interfaces: Interfaces, machine: Machine) -> Self {
        Self { interfaces, machine }
    }

    /// Whether [`super::lock_covers`] could do its work.
    pub fn is_locked(&self) -> bool {
        self.interfaces.locked
    }

    /// The number of its devtmpfs.
    pub fn devices(&self) -> nix::Result<u64> {
        Ok(fstat(&self.interfaces.dev)?.st_dev)
    }

    /// A copy of what the container has been given, with all that covers parts of it; none if it has not been
    /// given that. For a process with all capabilities, which stays in the container.
    pub fn copy_of(&self, interface: Interface) -> nix::Result<Option<OwnedFd>> {
        setns(&self.interfaces.mounts, CloneFlags::CLONE_NEWNS)?;
        match interface {
            Interface::Proc => copy_tree(&self.interfaces.proc, true).map(Some),
            Interface::Sys => copy_tree(&self.interfaces.sys, true).map(Some),
            Interface::FirmwareVariables => {
                let found = open_path(&self.interfaces.sys, "firmware/efi/efivars", OFlag::empty());
                let given = found.ok().filter(|file| is_firmware_variables(file));
                given.map(|file| copy_tree(file, true)).transpose()
            }
        }
    }

    /// The block device that a path led to; none if it isn't the installer's.
    pub fn device(&self, found: &Found<'_>) -> nix::Result<Option<Number>> {
        let status = fstat(&found.file)?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFBLK {
            return Err(Errno::ENOTBLK);
        }
        if found.no_devices()? {
            return Err(Errno::EACCES);
        }
        let number = number(status.st_rdev);
        let device = self.machine.device(number);
        Ok(may_mount_device(&device, self.machine.target).then_some(number))
    }

    /// Mounts a device where nobody looks: the path of its node is one of ours, so that it's this device and
    /// no other one, and is shown as `source` all the same.
    pub fn mount_apart(
        &self,
        source: &CStr,
        device: Number,
        kind: &CStr,
        flags: MsFlags,
        options: Option<&CStr>,
    ) -> nix::Result<OwnedFd> {
        setns(&self.machine.mounts, CloneFlags::CLONE_NEWNS)?;
        enter_private_mounts().map_err(|error| *error.downcast_ref().unwrap_or(&Errno::EPERM))?;
        let nowhere = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("landfall"),
            COVERED,
            Some("tmpfs"),
            nowhere,
            Some("mode=0700,size=1m"),
        )?;
        chroot(COVERED)?;
        chdir("/")?;
        let target = c"/landfall";
        make_directory(Path::new(OsStr::from_bytes(target.to_bytes())))?;
        let node = Path::new("/").join(OsStr::from_bytes(source.to_bytes()));
        make_directory(node.parent().ok_or(Errno::EINVAL)?)?;
        mknod(
            &node,
            SFlag::S_IFBLK,
            Mode::S_IRUSR | Mode::S_IWUSR,
            makedev(device.0, device.1),
        )?;
        mount(Some(source), target, Some(kind), flags, options)?;
        copy_tree(open_path(AT_FDCWD, "/landfall", OFlag::O_DIRECTORY)?, false)
    }
}

fn make_directory(path: &Path) -> nix::Result<()> {
    create_dir_all(path).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices() {
        assert_eq!(parse_number("259:3"), Some((259, 3)));
        for text in ["", "8", "8:", "a:1", "8:1\n"] {
            assert_eq!(parse_number(text), None, "{text:?}");
        }
    }
}
