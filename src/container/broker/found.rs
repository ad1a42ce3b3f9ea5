//! A path of the caller's, looked up once: what is decided about it is decided about this very file, and done
//! to it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, readlinkat};
use nix::mount::{MntFlags, umount2};
use nix::unistd::fchdir;
use rustix::fs::{AtFlags, Statx, StatxFlags, fstatfs, statx};

use super::caller::open_path;
use super::rules::{Facts, Place};
use crate::sys::errno::errno;

/// `statfs(2)`: what is shown of a mount's flags.
const READ_ONLY: i64 = libc::ST_RDONLY as i64;
const NO_DEVICES: i64 = libc::ST_NODEV as i64;
/// `linux/magic.h`, which the C library's list lacks.
const EFIVARFS_MAGIC: i64 = 0xde5e_81e4;

/// How files and mounts are seen by this process, wherever it stands.
pub struct View {
    /// This process's own `/proc/self/fd`, which is not in the caller's root: names in it are open files.
    descriptors: OwnedFd,
    /// The number of the kernel's devtmpfs.
    devices: u64,
}

impl View {
    /// For this very process, and no child of it.
    pub fn new(devices: u64) -> nix::Result<Self> {
        let descriptors = open_path(AT_FDCWD, "/proc/self/fd", OFlag::O_DIRECTORY)?;
        Ok(Self { descriptors, devices })
    }

    /// The file of this path, below `directory` if it's not absolute.
    pub fn find(&self, directory: impl AsFd, path: &CStr, follow: bool) -> nix::Result<Found<'_>> {
        let flags = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let file = open_path(directory, OsStr::from_bytes(path.to_bytes()), flags)?;
        Ok(self.found(file))
    }

    pub fn found(&self, file: OwnedFd) -> Found<'_> {
        Found { file, view: self }
    }

    /// Whether it is in the kernel's own `/proc`, `/sys` or `/dev`.
    pub fn place(&self, file: impl AsFd) -> nix::Result<Place> {
        let kind = fstatfs(&file).map_err(errno)?.f_type;
        let interfaces = [libc::PROC_SUPER_MAGIC, libc::SYSFS_MAGIC, EFIVARFS_MAGIC];
        let guarded = interfaces.contains(&kind) || nix::sys::stat::fstat(&file)?.st_dev == self.devices;
        Ok(if guarded { Place::Guarded } else { Place::Elsewhere })
    }

    /// Makes this file be called by the name that this gives, which is relative.
    pub fn stand_at(&self, file: impl AsFd) -> nix::Result<PathBuf> {
        fchdir(&self.descriptors)?;
        Ok(name(file.as_fd()).into())
    }

    fn path_of(&self, file: BorrowedFd<'_>) -> nix::Result<PathBuf> {
        Ok(readlinkat(&self.descriptors, name(file).as_str())?.into())
    }
}

/// Whether it is a file of the firmware's variables.
pub fn is_firmware_variables(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.f_type == EFIVARFS_MAGIC)
}

fn name(file: BorrowedFd<'_>) -> String {
    file.as_raw_fd().to_string()
}

/// What a path led to. Holding it keeps a mount busy.
pub struct Found<'view> {
    pub file: OwnedFd,
    view: &'view View,
}

impl Found<'_> {
    pub fn place(&self) -> nix::Result<Place> {
        self.view.place(&self.file)
    }

    fn path(&self) -> nix::Result<PathBuf> {
        self.view.path_of(self.file.as_fd())
    }

    /// Its path, for a text.
    pub fn shown(&self) -> nix::Result<CString> {
        let path = self.path()?.into_os_string().into_encoded_bytes();
        CString::new(path).map_err(|_| Errno::EINVAL)
    }

    /// Whether device nodes are nothing but names there.
    pub fn no_devices(&self) -> nix::Result<bool> {
        Ok(fstatfs(&self.file).map_err(errno)?.f_flags as i64 & NO_DEVICES != 0)
    }

    pub fn facts(&self) -> nix::Result<Facts> {
        let flags = fstatfs(&self.file).map_err(errno)?.f_flags as i64;
        let on = self.mounted_on()?;
        Ok(Facts {
            place: self.place()?,
            on: match &on {
                MountedOn::Directory(directory, _) => self.view.place(directory)?,
                MountedOn::Nothing | MountedOn::Root => Place::Elsewhere,
                MountedOn::RootDirectory => self.view.place(root()?)?,
            },
            root: matches!(on, MountedOn::Root),
            read_only: flags & READ_ONLY != 0,
            no_devices: flags & NO_DEVICES != 0,
        })
    }

    /// Unmounts it, as it must not be done for what [`super::rules`] say.
    pub fn unmount(self, flags: MntFlags) -> nix::Result<()> {
        let on = self.mounted_on()?;
        match on {
            // By its name in the directory that has been looked at, as this file keeps it busy.
            MountedOn::Directory(directory, name) if !flags.contains(MntFlags::MNT_DETACH) => {
                drop(self.file);
                fchdir(&directory)?;
                drop(directory);
                umount2(name.as_path(), flags | MntFlags::UMOUNT_NOFOLLOW)
            }
            _ => {
                let name = self.view.stand_at(&self.file)?;
                umount2(name.as_path(), flags & !MntFlags::UMOUNT_NOFOLLOW)
            }
        }
    }

    /// What it is mounted on. An error if that can't be seen by who asks.
    fn mounted_on(&self) -> nix::Result<MountedOn> {
        let own = look(&self.file)?;
        if !is_mount(&own) {
            return Ok(MountedOn::Nothing);
        }
        let path = self.path()?;
        if path == Path::new("/") {
            let is_root = look(root()?)?.stx_mnt_id == own.stx_mnt_id;
            return Ok(if is_root {
                MountedOn::Root
            } else {
                MountedOn::RootDirectory
            });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EINVAL);
        };
        let directory = open_path(AT_FDCWD, parent, OFlag::O_DIRECTORY)?;
        // The path is another one's if the file is outside the caller's root.
        let there = look(open_path(&directory, name, OFlag::O_NOFOLLOW)?)?;
        if there.stx_mnt_id != own.stx_mnt_id {
            return Err(Errno::EINVAL);
        }
        Ok(MountedOn::Directory(directory, name.into()))
    }
}

enum MountedOn {
    /// It is no mount.
    Nothing,
    /// On the file of this name.
    Directory(OwnedFd, PathBuf),
    /// It is the caller's root.
    Root,
    /// On the caller's root, or on nothing yet.
    RootDirectory,
}

fn root() -> nix::Result<OwnedFd> {
    open_path(AT_FDCWD, "/", OFlag::O_DIRECTORY)
}

fn look(file: impl AsFd) -> nix::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(file, c"", AtFlags::EMPTY_PATH, wanted).map_err(errno)
}

fn is_mount(status: &Statx) -> bool {
    status
        .stx_attributes
        .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
}
