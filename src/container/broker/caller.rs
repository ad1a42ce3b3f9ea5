//! Who asks: its memory, its directories and namespaces, and how to stand where it stands.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Pid, chroot, fchdir};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::sys::errno::errno;

/// The longest path, its zero included, as for the kernel.
pub const PATH_BYTES: usize = 4096;
/// Never more options than the kernel would read.
pub const OPTIONS_BYTES: usize = 4096;
/// Memory is there by whole pages, of at least this size.
const PAGE_BYTES: u64 = 4096;

/// A thread that has called us, and waits. All of it is opened first, and then it must be seen that it still
/// waits: so none of it is another thread's.
pub struct Caller {
    directory: OwnedFd,
    memory: File,
    root: OwnedFd,
    working_directory: OwnedFd,
    mounts: OwnedFd,
    messages: OwnedFd,
    capabilities: CapabilitySet,
    /// Its number where it lives, in the container.
    number: String,
}

impl Caller {
    /// An error if it may mount nothing.
    pub fn look_at(thread: Pid) -> nix::Result<Self> {
        let directory = open_path(AT_FDCWD, format!("/proc/{thread}"), OFlag::O_DIRECTORY)?;
        let of = |name: &str| open_path(&directory, name, OFlag::empty());
        let namespace = |name: &str| openat(&directory, name, OFlag::O_CLOEXEC, Mode::empty());
        let status = openat(&directory, "status", OFlag::O_CLOEXEC, Mode::empty())?;
        let status = std::io::read_to_string(File::from(status)).map_err(|_| Errno::ESRCH)?;
        let status = Status::parse(&status).ok_or(Errno::ESRCH)?;
        // In a user's namespace of its own it might have all capabilities, and ours are those of the machine.
        let (its, ours) = (
            fstat(of("ns/user")?)?,
            nix::sys::stat::stat("/proc/self/ns/user")?,
        );
        let at_home = its.st_ino == ours.st_ino && its.st_dev == ours.st_dev;
        if !at_home || !status.root || !status.capabilities.contains(CapabilitySet::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        Ok(Self {
            memory: openat(&directory, "mem", OFlag::O_CLOEXEC, Mode::empty())?.into(),
            root: of("root")?,
            working_directory: of("cwd")?,
            mounts: namespace("ns/mnt")?,
            messages: namespace("ns/ipc")?,
            capabilities: status.capabilities,
            number: status.number,
            directory,
        })
    }

    /// The string at this address, of at most `limit` bytes with its zero.
    pub fn string(&self, address: u64, limit: usize) -> nix::Result<CString> {
        let mut text = Vec::new();
        while text.len() < limit {
            let at = address.checked_add(text.len() as u64).ok_or(Errno::EFAULT)?;
            let to_page_end = (PAGE_BYTES - at % PAGE_BYTES) as usize;
            let bytes = self.bytes(at, to_page_end.min(limit - text.len()))?;
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&bytes[..end]);
                return CString::new(text).map_err(|_| Errno::EINVAL);
            }
            text.extend(bytes);
        }
        Err(Errno::EINVAL)
    }

    /// The same, where there may be none.
    pub fn optional_string(&self, address: u64, limit: usize) -> nix::Result<Option<CString>> {
        (address != 0).then(|| self.string(address, limit)).transpose()
    }

    /// A path. What it calls itself is what it is called here.
    pub fn path(&self, address: u64) -> nix::Result<CString> {
        let path = self.string(address, PATH_BYTES).map_err(|errno| match errno {
            Errno::EINVAL => Errno::ENAMETOOLONG,
            errno => errno,
        })?;
        CString::new(with_number(path.as_bytes(), &self.number)).map_err(|_| Errno::EINVAL)
    }

    /// The same, where there may be none.
    pub fn optional_path(&self, address: u64) -> nix::Result<Option<CString>> {
        (address != 0).then(|| self.path(address)).transpose()
    }

    pub fn bytes(&self, address: u64, count: usize) -> nix::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self.memory.read_exact_at(&mut bytes, address) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(Errno::EFAULT),
        }
    }

    /// The file behind a descriptor of its, or its working directory.
    pub fn file(&self, descriptor: u64) -> nix::Result<OwnedFd> {
        let descriptor = descriptor as i32;
        if descriptor == libc::AT_FDCWD {
            return self.working_directory.try_clone().map_err(|_| Errno::EMFILE);
        }
        let opened = open_path(&self.directory, format!("fd/{descriptor}"), OFlag::empty());
        opened.map_err(|errno| {
            if errno == Errno::ENOENT {
                Errno::EBADF
            } else {
                errno
            }
        })
    }

    /// Goes where it is: this process sees what it sees, and from there on has no more power than it, but to
    /// make device nodes and to come back.
    pub fn enter(&self) -> nix::Result<()> {
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        setns(&self.messages, CloneFlags::CLONE_NEWIPC)?;
        fchdir(&self.root)?;
        chroot(".")?;
        fchdir(&self.working_directory)?;
        let power = self.capabilities | CapabilitySet::SYS_CHROOT | CapabilitySet::MKNOD;
        let sets = CapabilitySets {
            effective: power,
            permitted: power,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).map_err(errno)
    }
}

/// Opens nothing but the path.
pub fn open_path(directory: impl AsFd, path: impl AsRef<OsStr>, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_PATH | OFlag::O_CLOEXEC;
    openat(directory, path.as_ref(), flags, Mode::empty())
}

/// A copy of a mount, from this file on, mounted nowhere; with `all` that is mounted below it as well.
pub fn copy_tree(file: impl AsFd, all: bool) -> nix::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if all {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(file, c"", flags).map_err(errno)
}

/// `/proc/self` is who looks; the path is one of a process with this number.
fn with_number(path: &[u8], number: &str) -> Vec<u8> {
    for own in ["/proc/self/", "/proc/thread-self/"] {
        if let Some(rest) = path.strip_prefix(own.as_bytes()) {
            return [b"/proc/", number.as_bytes(), b"/", rest].concat();
        }
    }
    path.to_vec()
}

/// What `/proc/PID/status` says.
struct Status {
    root: bool,
    capabilities: CapabilitySet,
    number: String,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let mut users = value("Uid")?.split_whitespace();
        let capabilities = u64::from_str_radix(value("CapEff")?.trim(), 16).ok()?;
        // One number for each namespace, from ours on.
        let numbers: Vec<&str> = value("NSpid")?.split_whitespace().collect();
        Some(Self {
            root: users.all(|user| user == "0"),
            capabilities: CapabilitySet::from_bits_truncate(capabilities),
            number: (*numbers.get(1).or(numbers.first())?).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status() {
        let text = "Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t812\t7\t1\nCapEff:\t0000000000200001\n";
        let status = Status::parse(text).unwrap();
        assert!(status.root);
        assert_eq!(status.number, "7");
        assert_eq!(
            status.capabilities,
            CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN
        );
        assert!(
            !Status::parse(&text.replace("0\t0\t0\t0", "0\t0\t0\t5"))
                .unwrap()
                .root
        );
        assert!(Status::parse("Uid: 0").is_none());
    }

    #[test]
    fn own_paths_are_those_of_the_caller() {
        for (path, expected) in [
            ("/proc/self/fd/3", "/proc/7/fd/3"),
            ("/proc/thread-self/root", "/proc/7/root"),
            ("/proc/selfish", "/proc/selfish"),
            ("self/", "self/"),
        ] {
            assert_eq!(with_number(path.as_bytes(), "7"), expected.as_bytes());
        }
    }

    #[test]
    fn strings_of_a_process() {
        let text = CString::new("x".repeat(5000)).unwrap();
        let caller = Caller::look_at(Pid::this()).unwrap();
        let address = text.as_ptr() as u64;
        assert_eq!(caller.string(address, 8192), Ok(text.clone()));
        assert_eq!(caller.string(address, 4096), Err(Errno::EINVAL));
        for nonsense in [0, 1, u64::MAX, u64::MAX - 4096, 1 << 63] {
            assert_eq!(caller.string(nonsense, 4096), Err(Errno::EFAULT), "{nonsense:#x}");
        }
        assert_eq!(caller.file(u64::from(u32::MAX)).unwrap_err(), Errno::EBADF);
    }
}
