//! The calls, done for who made them: arguments copied, paths looked up where it stands, decided, and done to
//! what was decided about.

use std::cmp::Ordering;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, mount};
use rustix::fs::CWD;
use rustix::mount::{FsOpenFlags, FsPickFlags, MoveMountFlags, fsopen, fspick, move_mount};

use super::caller::{Caller, OPTIONS_BYTES, PATH_BYTES, copy_tree};
use super::container::Container;
use super::found::{Found, View};
use super::rules::{self, Change, Source};
use crate::sys::errno::errno;
use crate::sys::mount::{Attributes, set_attributes};
use crate::sys::notify::Call;

/// Why a call is not done.
#[derive(Debug)]
pub enum Failure {
    Errno(Errno),
    /// The rules say no, and this goes after "the image tried to".
    Refused(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What a call gives.
pub enum Reply {
    Done,
    File {
        file: OwnedFd,
        close_on_exec: bool,
    },
    /// The caller is to do it itself: nothing was decided by its arguments.
    Unseen,
}

type Done = Result<Reply, Failure>;

/// Makes a mount namespace of the copy (`linux/mount.h` of Linux 7.0).
const OPEN_TREE_NAMESPACE: u64 = 2;

/// The upper half of the flags of old programs.
const MAGIC: u64 = 0xc0ed_0000;
const MAGIC_MASK: u64 = 0xffff_0000;
/// The longest type of a file system, as for the kernel.
const TYPE_BYTES: usize = 256;

/// One call of `caller`.
pub struct Asked<'a> {
    pub call: &'a Call,
    pub caller: &'a Caller,
    pub container: &'a Container,
    pub view: &'a View,
    /// Whether the caller is still there, and all that was read of it therefore its.
    pub still_waits: &'a dyn Fn() -> bool,
}

impl Asked<'_> {
    pub fn answer(&self) -> Done {
        match self.call.number {
            libc::SYS_mount => self.mount(),
            libc::SYS_umount2 => self.unmount(),
            libc::SYS_fsopen => self.open_file_system(),
            libc::SYS_fspick => self.pick_file_system(),
            libc::SYS_open_tree => self.open_tree(),
            libc::SYS_move_mount => self.move_mount(),
            libc::SYS_mount_setattr => self.set_attributes(),
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    /// Goes where the caller is; from here on paths are its paths.
    fn enter(&self) -> nix::Result<()> {
        if !(self.still_waits)() {
            return Err(Errno::ESRCH);
        }
        self.caller.enter()
    }

    fn mount(&self) -> Done {
        let [source, target, kind, flags, options, _] = self.call.arguments;
        let asked = Mount {
            source: self.caller.optional_path(source)?,
            target: self.caller.path(target)?,
            kind: self.caller.optional_string(kind, PATH_BYTES)?,
            flags: mount_flags(flags),
            options: self.caller.optional_string(options, OPTIONS_BYTES)?,
        };
        let changes = MsFlags::MS_SHARED | MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE | MsFlags::MS_UNBINDABLE;
        if asked.flags.contains(MsFlags::MS_REMOUNT) {
            self.remount(&asked)
        } else if asked.flags.contains(MsFlags::MS_BIND) {
            self.bind(&asked)
        } else if asked.flags.intersects(changes) {
            self.change_propagation(&asked)
        } else if asked.flags.contains(MsFlags::MS_MOVE) {
            self.move_to(&asked)
        } else {
            self.mount_new(&asked)
        }
    }

    fn remount(&self, asked: &Mount) -> Done {
        self.enter()?;
        let found = self.view.find(AT_FDCWD, &asked.target, true)?;
        let Some(flags) = rules::remount(&found.facts()?, asked.flags) else {
            return Err(refused("make {} writable", &[&asked.target]));
        };
        let name = self.view.stand_at(&found.file)?;
        done(mount(
            asked.source.as_deref(),
            &name,
            None::<&CStr>,
            flags,
            asked.options.as_deref(),
        ))
    }

    fn bind(&self, asked: &Mount) -> Done {
        self.enter()?;
        let source = asked.source.as_deref().ok_or(Errno::EINVAL)?;
        let found = self.view.find(AT_FDCWD, source, true)?;
        let tree = copy(&found, asked.flags.contains(MsFlags::MS_REC))?;
        attach(&tree, &asked.target)
    }

    fn change_propagation(&self, asked: &Mount) -> Done {
        // A copy would leave it out, and show what it covers.
        if asked.flags.contains(MsFlags::MS_UNBINDABLE) {
            return Err(refused("make {} unbindable", &[&asked.target]));
        }
        self.enter()?;
        let none = None::<&CStr>;
        done(mount(none, asked.target.as_c_str(), none, asked.flags, none))
    }

    fn move_to(&self, asked: &Mount) -> Done {
        self.enter()?;
        let source = asked.source.as_deref().ok_or(Errno::EINVAL)?;
        let found = self.view.find(AT_FDCWD, source, true)?;
        if !rules::may_go(&found.facts()?) {
            return Err(refused("move the mount {}", &[source]));
        }
        attach(&found.file, &asked.target)
    }

    fn mount_new(&self, asked: &Mount) -> Done {
        let kind = asked.kind.as_deref().ok_or(Errno::EINVAL)?;
        let name = kind.to_str().unwrap_or_default();
        match rules::source(name) {
            None => Err(refused("mount {} on {}", &[kind, &asked.target])),
            Some(Source::Own(interface)) => {
                let own = self.container.copy_of(interface)?;
                let tree = own.ok_or_else(|| refused("mount {} on {}", &[kind, &asked.target]))?;
                self.enter()?;
                attach(&tree, &asked.target)
            }
            Some(Source::None) => {
                self.enter()?;
                let flags = rules::new_mount(name, asked.flags);
                let (source, options) = (asked.source.as_deref(), asked.options.as_deref());
                done(mount(source, asked.target.as_c_str(), Some(kind), flags, options))
            }
            Some(Source::Device) => self.mount_device(kind, asked),
        }
    }

    fn mount_device(&self, kind: &CStr, asked: &Mount) -> Done {
        let refused = || {
            refused(
                "mount {} on {}",
                &[asked.source.as_deref().unwrap_or(c"nothing"), &asked.target],
            )
        };
        let options = asked.options.as_deref();
        let text = options.map(CStr::to_string_lossy);
        if text.is_some_and(|text| rules::names_another_device(&text)) {
            return Err(refused());
        }
        self.enter()?;
        let source = asked.source.as_deref().ok_or(Errno::EINVAL)?;
        let found = self.view.find(AT_FDCWD, source, true)?;
        let device = self.container.device(&found)?.ok_or_else(refused)?;
        let flags = rules::new_mount("", asked.flags);
        let tree = self.container.mount_apart(source, device, kind, flags, options)?;
        self.enter()?;
        attach(&tree, &asked.target)
    }

    fn unmount(&self) -> Done {
        let [path, flags, ..] = self.call.arguments;
        let path = self.caller.path(path)?;
        let flags = MntFlags::from_bits(flags as i32).ok_or(Errno::EINVAL)?;
        self.enter()?;
        let follow = !flags.contains(MntFlags::UMOUNT_NOFOLLOW);
        let found = self.view.find(AT_FDCWD, &path, follow)?;
        let facts = found.facts()?;
        if !rules::may_go(&facts) {
            return Err(refused("unmount {}", &[&path]));
        }
        done(found.unmount(rules::unmount(&facts, flags)))
    }

    fn open_file_system(&self) -> Done {
        let [kind, flags, ..] = self.call.arguments;
        let kind = self.caller.string(kind, TYPE_BYTES)?;
        let name = kind.to_str().unwrap_or_default();
        if rules::source(name).is_none() {
            return Err(refused("mount {}", &[&kind]));
        }
        if !rules::may_be_opened(name) {
            return Err(Errno::ENOSYS.into());
        }
        let flags = FsOpenFlags::from_bits(flags as u32).ok_or(Errno::EINVAL)?;
        self.enter()?;
        let file = fsopen(&*kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
        let close_on_exec = flags.contains(FsOpenFlags::FSOPEN_CLOEXEC);
        Ok(Reply::File { file, close_on_exec })
    }

    /// A mounted file system, to be mounted again with other options.
    fn pick_file_system(&self) -> Done {
        let [directory, path, flags, ..] = self.call.arguments;
        let flags = FsPickFlags::from_bits(flags as u32).ok_or(Errno::EINVAL)?;
        let (directory, path) = (self.caller.file(directory)?, self.caller.path(path)?);
        self.enter()?;
        let follow = !flags.contains(FsPickFlags::FSPICK_SYMLINK_NOFOLLOW);
        let itself = flags.contains(FsPickFlags::FSPICK_EMPTY_PATH);
        let found = self.find(directory, &path, follow, itself)?;
        if !rules::may_be_picked(&found.facts()?) {
            return Err(refused("change the file system {}", &[&found.shown()?]));
        }
        let picked = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let file = fspick(&found.file, c"", picked).map_err(errno)?;
        let close_on_exec = flags.contains(FsPickFlags::FSPICK_CLOEXEC);
        Ok(Reply::File { file, close_on_exec })
    }

    /// A copy of a mount, which is a descriptor that can't be given to another process. The kernel itself
    /// sees to it that what covers something is copied as well.
    fn open_tree(&self) -> Done {
        if self.call.arguments[2] & OPEN_TREE_NAMESPACE == 0 && self.container.is_locked() {
            Ok(Reply::Unseen)
        } else {
            Err(Errno::ENOSYS.into())
        }
    }

    fn move_mount(&self) -> Done {
        let [from, from_path, to, to_path, flags, _] = self.call.arguments;
        let flags = MoveMountFlags::from_bits(flags as u32).ok_or(Errno::EINVAL)?;
        if flags.intersects(MoveMountFlags::MOVE_MOUNT_SET_GROUP | MoveMountFlags::MOVE_MOUNT_BENEATH) {
            return Err(Errno::EINVAL.into());
        }
        let (from, from_path) = (self.caller.file(from)?, self.caller.path(from_path)?);
        let (to, to_path) = (self.caller.file(to)?, self.caller.path(to_path)?);
        self.enter()?;
        let follow = flags.contains(MoveMountFlags::MOVE_MOUNT_F_SYMLINKS);
        let itself = flags.contains(MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        let found = self.find(from, &from_path, follow, itself)?;
        if !rules::may_go(&found.facts()?) {
            return Err(refused("move the mount {}", &[&from_path]));
        }
        let source = MoveMountFlags::MOVE_MOUNT_F_SYMLINKS
            | MoveMountFlags::MOVE_MOUNT_F_AUTOMOUNTS
            | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let flags = (flags - source) | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = move_mount(&found.file, c"", &to, &*to_path, flags);
        done(moved.map_err(errno))
    }

    fn set_attributes(&self) -> Done {
        let [directory, path, flags, attributes, size, _] = self.call.arguments;
        match size.cmp(&(Attributes::BYTES as u64)) {
            Ordering::Less => return Err(Errno::EINVAL.into()),
            Ordering::Greater => return Err(Errno::E2BIG.into()),
            Ordering::Equal => {}
        }
        let attributes = Attributes::parse(&self.caller.bytes(attributes, Attributes::BYTES)?);
        let known =
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
        let flags = flags as i32;
        if flags & !known != 0 || attributes.set & libc::MOUNT_ATTR_IDMAP != 0 {
            return Err(Errno::EINVAL.into());
        }
        let (directory, path) = (self.caller.file(directory)?, self.caller.path(path)?);
        if attributes.propagation & libc::MS_UNBINDABLE != 0 {
            return Err(refused("make {} unbindable", &[&path]));
        }
        self.enter()?;
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let found = self.find(directory, &path, follow, flags & libc::AT_EMPTY_PATH != 0)?;
        let change = Change {
            set: attributes.set,
            clear: attributes.clear,
            recursive: flags & libc::AT_RECURSIVE != 0,
        };
        let Some(change) = rules::change(&found.facts()?, change) else {
            return Err(refused("make {} writable", &[&found.shown()?]));
        };
        let attributes = Attributes {
            set: change.set,
            clear: change.clear,
            ..attributes
        };
        done(set_attributes(&found.file, change.recursive, &attributes))
    }

    /// The file of a path, or `directory` itself if that is asked for by an empty path.
    fn find(&self, directory: OwnedFd, path: &CStr, follow: bool, itself: bool) -> nix::Result<Found<'_>> {
        if itself && path.is_empty() {
            return Ok(self.view.found(directory));
        }
        self.view.find(directory, path, follow)
    }
}

/// The arguments of `mount(2)`.
struct Mount {
    source: Option<CString>,
    target: CString,
    kind: Option<CString>,
    flags: MsFlags,
    options: Option<CString>,
}

fn mount_flags(flags: u64) -> MsFlags {
    let magic = flags & MAGIC_MASK == MAGIC;
    let flags = if magic { flags & !MAGIC_MASK } else { flags };
    MsFlags::from_bits_retain(flags)
}

/// A copy of a mount, from this file on, mounted nowhere.
fn copy(found: &Found<'_>, recursive: bool) -> Result<OwnedFd, Failure> {
    let all = rules::copies_all(found.place()?, recursive);
    Ok(copy_tree(&found.file, all)?)
}

/// Mounts what is mounted nowhere yet, or elsewhere.
fn attach(tree: &OwnedFd, target: &CStr) -> Done {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS
        | MoveMountFlags::MOVE_MOUNT_T_AUTOMOUNTS;
    done(move_mount(tree, c"", CWD, target, flags).map_err(errno))
}

fn done(result: nix::Result<()>) -> Done {
    Ok(result.map(|()| Reply::Done)?)
}

/// A refusal that is told: `text` goes after "the image tried to", and its places are for `names`.
fn refused(text: &str, names: &[&CStr]) -> Failure {
    let shown = |name: &CStr| OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned();
    let text = names
        .iter()
        .fold(text.to_owned(), |text, name| text.replacen("{}", &shown(name), 1));
    Failure::Refused(text)
}
