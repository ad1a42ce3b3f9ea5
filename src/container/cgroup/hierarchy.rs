//! Hierarchies of control groups, and groups in them that are gone when they are dropped.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen,
};

/// What the names of our groups begin with.
const OURS: &str = "landfall-";
/// The group in ours that the container sees.
const INNER: &str = "container";
/// The controllers that limit something.
const CONTROLLERS: [&str; 2] = ["pids", "memory"];

const BUSY_LIMIT: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(5);

/// A hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// Its mount, which is nowhere: nobody finds it in a list of mounts.
    _mount: OwnedFd,
    /// The way there, for our own processes.
    path: PathBuf,
    is_unified: bool,
}

/// A group in it, ours as long as this holds the lock: of one that nobody has locked, the owner is dead.
pub struct Group {
    path: PathBuf,
    directory: File,
    is_unified: bool,
}

/// The hierarchies that have what we need: version 2, and those of version 1 that a controller of ours is
/// bound to.
pub fn hierarchies() -> &'static [Hierarchy] {
    static MOUNTED: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    MOUNTED.get_or_init(|| {
        let bound = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let unified = Hierarchy::mount("cgroup2", "").into_iter();
        let all = unified
            .chain(bound_to_v1(&bound).filter_map(|controllers| Hierarchy::mount("cgroup", controllers)));
        all.inspect(Hierarchy::prepare).collect()
    })
}

/// The controllers of each v1 hierarchy that has one of ours, in the text of `/proc/self/cgroup`. No other is
/// mounted: that would take its controllers from whoever has them.
fn bound_to_v1(text: &str) -> impl Iterator<Item = &str> {
    let controllers = text.lines().filter_map(|line| line.split(':').nth(1));
    let ours = |controllers: &&str| controllers.split(',').any(|each| CONTROLLERS.contains(&each));
    controllers.filter(ours)
}

fn mount(kind: &str, controllers: &str) -> rustix::io::Result<OwnedFd> {
    let filesystem = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for controller in controllers.split(',').filter(|name| !name.is_empty()) {
        fsconfig_set_flag(&filesystem, controller)?;
    }
    fsconfig_create(&filesystem)?;
    let inert = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, inert)
}

/// Whether this is a name that [`Hierarchy::make_group`] gives.
fn is_ours(name: &str) -> bool {
    let numbers = name
        .strip_prefix(OURS)
        .and_then(|numbers| numbers.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(pid, attempt)| is_number(pid) && is_number(attempt))
}

impl Hierarchy {
    /// The one with these `controllers`; `None` if this kernel doesn't have it, or not for us.
    fn mount(kind: &str, controllers: &str) -> Option<Self> {
        let mount = mount(kind, controllers).ok()?;
        Some(Self {
            path: format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd()).into(),
            _mount: mount,
            is_unified: controllers.is_empty(),
        })
    }

    /// Removes what a killed Landfall has left, and asks for the controllers. Where others have them, or not
    /// all is ours, that fails.
    fn prepare(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if is_ours(&entry.file_name().to_string_lossy()) {
                drop(Group::lock(entry.path(), self.is_unified));
            }
        }
        for controller in CONTROLLERS.iter().filter(|_| self.is_unified) {
            let _ = fs::write(self.path.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }

    /// A group that has our number; if somebody else has that, another one.
    pub fn make_group(&self) -> io::Result<Group> {
        let pid = std::process::id();
        for attempt in 0.. {
            let path = self.path.join(format!("{OURS}{pid}-{attempt}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let group =
                Group::lock(path, self.is_unified).and_then(|group| group.map(Group::filled).transpose());
            match group {
                Ok(Some(group)) => return Ok(group),
                // Somebody who starts now has taken it for one that was left.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("one of all numbers is free")
    }
}

impl Group {
    /// Takes over the group at `path`; `None` if it is somebody's.
    fn lock(path: PathBuf, is_unified: bool) -> io::Result<Option<Self>> {
        let directory = File::open(&path)?;
        match directory.try_lock() {
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(Some(Self {
                path,
                directory,
                is_unified,
            })),
        }
    }

    fn filled(self) -> io::Result<Self> {
        // Before Linux 5.11, what is below a group of v1 was not bounded by it unless that was asked for.
        let _ = fs::write(self.file("memory.use_hierarchy"), "1");
        fs::create_dir(self.file(INNER))?;
        Ok(self)
    }

    pub fn is_unified(&self) -> bool {
        self.is_unified
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn entrance(&self) -> PathBuf {
        self.file(INNER).join("cgroup.procs")
    }

    /// How often an event is counted in a file of `KEY NUMBER` lines, here or where the container is: kernels
    /// differ in that.
    pub fn count(&self, file: &str, event: &str) -> u64 {
        let files = [self.file(file), self.file(INNER).join(file)];
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.map(|text| count_in(&text, event)).sum()
    }

    fn remove(&self) {
        // Whatever is in it is not to outlive its container. Since Linux 5.14.
        let _ = fs::write(self.file("cgroup.kill"), "1");
        remove(&self.path);
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

fn count_in(text: &str, event: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(event)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Removes a group and those below it; a process that is ending is in its group for a moment still.
fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let since = Instant::now();
    while rmdir(path) == Err(Errno::EBUSY) && since.elapsed() < BUSY_LIMIT {
        sleep(TRY_EVERY);
    }
}

fn rmdir(path: &Path) -> nix::Result<()> {
    let removed = fs::remove_dir(path);
    removed.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_with_our_controllers_are_mounted() {
        let hybrid = "9:name=systemd:/\n8:pids:/a\n4:cpu,memory:/b:c\n1:cpuset:/\n0::/\n";
        assert_eq!(bound_to_v1(hybrid).collect::<Vec<_>>(), ["pids", "cpu,memory"]);
        assert_eq!(bound_to_v1("0::/user.slice\n").count(), 0);
    }

    #[test]
    fn events_are_counted_by_their_whole_name() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(count_in(events, "oom_kill"), 2);
        assert_eq!(count_in(events, "oom"), 3);
        assert_eq!(count_in(events, "max"), 0);
    }
}
