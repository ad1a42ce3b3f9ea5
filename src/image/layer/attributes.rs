//! What an inode has besides its type and its data: owner, mode, extended attributes, times. Set in that
//! order: a new owner clears setuid and capabilities, and everything changes the time.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmod, fchmodat, fstat, futimens, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::directory::open_root;
use super::entry::{Entry, Time};
use super::error::{Context as _, Result, ensure, malformed};
use super::path::shown;
use super::whiteout::{ESCAPED_PREFIX, escaped, unescaped};
use super::xattr;

/// Attributes that belong to the machine that made the layer, not to the image. podman and umoci leave them
/// out, too.
const IGNORED: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];

/// The attributes of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    /// By the names under which they are stored.
    xattrs: BTreeMap<CString, Vec<u8>>,
}

/// For a directory that no entry describes: root's, for all to read, from the beginning of time.
impl Default for Attributes {
    fn default() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: BTreeMap::new(),
        }
    }
}

impl Attributes {
    pub fn of_entry(entry: &Entry) -> Result<Self> {
        let mut xattrs = BTreeMap::new();
        for (name, value) in &entry.xattrs {
            if IGNORED.contains(&name.as_slice()) {
                continue;
            }
            ensure!(
                value.len() <= xattr::MAX_VALUE_BYTES,
                "the extended attribute {} is larger than {} bytes",
                shown(name),
                xattr::MAX_VALUE_BYTES
            );
            xattrs.insert(CString::new(escaped(name)).map_err(malformed)?, value.clone());
        }
        Ok(Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs,
        })
    }

    /// What an open directory has, without overlayfs's own marks.
    pub fn of_directory(fd: impl AsFd) -> nix::Result<Self> {
        let stat = fstat(&fd)?;
        let mut xattrs = BTreeMap::new();
        for name in xattr::list(&fd)? {
            let ignored = IGNORED.contains(&name.to_bytes());
            if !ignored
                && unescaped(name.to_bytes()).is_some()
                && let Some(value) = xattr::get(&fd, &name)?
            {
                xattrs.insert(name, value);
            }
        }
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime_of(&stat),
            xattrs,
        })
    }

    /// Names the attributes as they are outside overlayfs.
    pub fn unescaped(mut self) -> Self {
        let plain = |(name, value): (CString, Vec<u8>)| {
            let name = unescaped(name.to_bytes()).and_then(|name| CString::new(name).ok());
            name.map(|name| (name, value))
        };
        self.xattrs = self.xattrs.into_iter().filter_map(plain).collect();
        self
    }

    /// Gives them to an open file or directory that root has just made, which has no others yet.
    pub fn apply(&self, fd: impl AsFd) -> Result<u64> {
        // A new inode is root's: its directory's set-group-ID bit comes last.
        if (self.uid, self.gid) != (0, 0) {
            self.chown(&fd)?;
        }
        self.apply_to_owned(fd)
    }

    /// Gives them to an open directory of a layer and takes away all others, but not overlayfs's marks.
    pub fn replace(&self, fd: impl AsFd) -> Result<u64> {
        self.replace_all_but(fd, |name| unescaped(name).is_none())
    }

    /// Gives them to an open directory outside overlayfs, where no attribute is a mark, and takes away all
    /// others.
    pub fn replace_plain(&self, fd: impl AsFd) -> Result<u64> {
        self.replace_all_but(fd, |_| false)
    }

    fn replace_all_but(&self, fd: impl AsFd, is_mark: impl Fn(&[u8]) -> bool) -> Result<u64> {
        self.chown(&fd)?;
        for name in xattr::list(&fd).context("flistxattr failed")? {
            let kept = self.xattrs.contains_key(&name) || IGNORED.contains(&name.to_bytes());
            if !kept && !is_mark(name.to_bytes()) {
                xattr::remove(&fd, &name).with_context(|| format!("fremovexattr({name:?}) failed"))?;
            }
        }
        self.apply_to_owned(fd)
    }

    /// Gives them to something in `dir` that cannot be opened: a link, a device, a pipe.
    pub fn apply_at(&self, dir: impl AsFd, name: &[u8], is_link: bool) -> Result<u64> {
        if (self.uid, self.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            fchownat(&dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .context("fchownat failed")?;
        }
        if !is_link {
            // It was made a moment ago and is no link, so there is nothing to follow.
            fchmodat(&dir, name, self.mode(), FchmodatFlags::FollowSymlink).context("fchmodat failed")?;
        }
        let skipped = self.set_xattrs(|key, value| xattr::set_at(&dir, name, key, value))?;
        let time = timespec(self.mtime);
        let name = OsStr::from_bytes(name);
        utimensat(&dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).context("utimensat failed")?;
        Ok(skipped)
    }

    /// Whether any of them is stored under another name than it has.
    pub fn has_escaped(&self) -> bool {
        self.xattrs
            .keys()
            .any(|name| name.to_bytes().starts_with(ESCAPED_PREFIX))
    }

    /// A measure for the memory that this takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let xattrs = self.xattrs.iter();
        xattrs
            .map(|(name, value)| name.count_bytes() + value.len() + 64)
            .sum()
    }

    fn apply_to_owned(&self, fd: impl AsFd) -> Result<u64> {
        fchmod(&fd, self.mode()).context("fchmod failed")?;
        let skipped = self.set_xattrs(|key, value| xattr::set(&fd, key, value))?;
        set_mtime(&fd, self.mtime).context("futimens failed")?;
        Ok(skipped)
    }

    fn chown(&self, fd: impl AsFd) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fchown(fd, Some(uid), Some(gid)).context("fchown failed")
    }

    fn mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode)
    }

    /// Gives the number of attributes that the file system doesn't know.
    fn set_xattrs(&self, set: impl Fn(&CString, &[u8]) -> nix::Result<()>) -> Result<u64> {
        let mut skipped = 0;
        for (name, value) in &self.xattrs {
            match set(name, value) {
                Ok(()) => {}
                Err(Errno::EOPNOTSUPP) => skipped += 1,
                refused => refused.with_context(|| {
                    let (name, bytes) = (shown(name.to_bytes()), value.len());
                    format!("setxattr(\"{name}\", {bytes} bytes) failed")
                })?,
            }
        }
        Ok(skipped)
    }
}

pub fn mtime_of(stat: &FileStat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec,
    }
}

/// Sets the time of an open file's or directory's last change, and of its last access to the same.
pub fn set_mtime(fd: impl AsFd, time: Time) -> nix::Result<()> {
    let time = timespec(time);
    futimens(fd, &time, &time)
}

fn timespec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanoseconds)
}

/// Makes the directory `to` look like `from`, overlayfs's own marks aside.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let attributes = Attributes::of_directory(from).context("reading a directory's attributes")?;
    attributes.replace(to).map(drop)
}

/// Makes the directory `upper` look like the root of `top`, the uppermost of settled layers: overlayfs shows
/// its upper directory's attributes as those of the merged root.
pub fn dress_upper(top: &Path, upper: &Path) -> Result<()> {
    copy(open_root(top)?, open_root(upper)?).with_context(|| format!("preparing {upper:?}"))
}
