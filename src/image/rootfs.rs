//! Looking into an unpacked root that nobody vouches for, and putting files there: every path is resolved
//! within it, as a program that runs there would see it. No symbolic link leads outside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::regular::{is_regular, reopen_regular};

/// Where programs are looked for, as in the sandbox's `PATH`.
const PROGRAM_DIRS: [&str; 6] = [
    "usr/local/sbin",
    "usr/local/bin",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
];

/// How often a path is resolved before giving up. Where others rename and mount all the time, one time in a
/// few succeeds.
const ATTEMPTS: u32 = 10_000;
/// This many are made at once; there is a pause before each of the others.
const ATTEMPTS_AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

pub struct Rootfs(OwnedFd);

impl Rootfs {
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(root))
    }

    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.find(path, OFlag::O_PATH)?.is_some())
    }

    /// Whether the sandbox would find a program of this name.
    pub fn has_program(&self, name: &str) -> Result<bool> {
        for directory in PROGRAM_DIRS {
            if self.is_program(&format!("{directory}/{name}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names in the directory at `path`, sorted; none if there is no such directory.
    pub fn list(&self, path: &str) -> Result<Vec<OsString>> {
        let Some(directory) = self.find(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)? else {
            return Ok(Vec::new());
        };
        let entries = Dir::from_fd(directory).with_context(|| format!("opendir /{path} of the image"))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("readdir /{path} of the image"))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The file at `path`, opened for reading. Anything but a regular file is an error.
    pub fn open_file(&self, path: &str) -> Result<File> {
        let file = self.find_file(path)?;
        file.ok_or(Errno::ENOENT)
            .with_context(|| format!("open /{path} of the image"))
    }

    /// The content of the file at `path`, which may have at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        read(self.open_file(path)?, path, limit)
    }

    /// The same; `None` if there is no such file.
    pub fn read_if_there(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = self.find_file(path)?;
        file.map(|file| read(file, path, limit)).transpose()
    }

    /// Where the symbolic link at `path` leads, as it is written; `None` if there is nothing there.
    pub fn read_link(&self, path: &str) -> Result<Option<OsString>> {
        let Some(link) = self.find(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)? else {
            return Ok(None);
        };
        let target = readlinkat(&link, "").map(Some);
        target.with_context(|| format!("readlink /{path} of the image"))
    }

    fn find_file(&self, path: &str) -> Result<Option<File>> {
        let Some(found) = self.find(path, OFlag::O_PATH)? else {
            return Ok(None);
        };
        if !is_regular(&found).context("fstat")? {
            bail!("/{path} of the image is not a file");
        }
        let file = reopen_regular(found).with_context(|| format!("open /{path} of the image"))?;
        Ok(Some(file))
    }

    /// Makes the file at `path`, in the place of one that is there, and the directories that it is to be in.
    /// A directory that was there keeps its times, too.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        self.try_put(path, content)
            .with_context(|| format!("putting /{path} into the image"))
    }

    fn try_put(&self, path: &str, content: &[u8]) -> Result<()> {
        let directory = match path.rsplit_once('/') {
            Some((parent, _)) => self.make_directories(parent)?,
            None => self.directory(".")?,
        };
        let name = path.rsplit('/').next().unwrap_or(path);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let file = unseen(&directory, || {
            match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => openat(&directory, name, flags, mode),
                Err(errno) => Err(errno),
            }
        })?;
        Ok(File::from(file).write_all(content)?)
    }

    fn make_directories(&self, path: &str) -> nix::Result<OwnedFd> {
        match self.directory(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let directory = self.make_directories(parent)?;
        unseen(&directory, || {
            mkdirat(&directory, name, Mode::from_bits_truncate(0o755))
        })?;
        self.directory(path)
    }

    fn directory(&self, path: &str) -> nix::Result<OwnedFd> {
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn is_program(&self, path: &str) -> Result<bool> {
        let Some(file) = self.find(path, OFlag::O_PATH)? else {
            return Ok(false);
        };
        let mode = fstat(&file).context("fstat")?.st_mode;
        Ok(mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0)
    }

    /// What is at `path`. Only ENOENT and ENOTDIR mean that nothing is: any other error says nothing of it.
    fn find(&self, path: &str, flags: OFlag) -> Result<Option<OwnedFd>> {
        match self.resolve(path, flags) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(Errno::EAGAIN) => bail!(
                "open /{path} of the image: other programs keep renaming or mounting, so the kernel cannot \
                 resolve it ({}): stop them, and try again",
                Errno::EAGAIN
            ),
            Err(errno) => Err(errno).with_context(|| format!("open /{path} of the image")),
        }
    }

    /// Resolves `path` as often as it takes: with `..` in it, the kernel gives up (EAGAIN) when anything on
    /// the machine is renamed or mounted meanwhile, and wants to be asked again (openat2(2)).
    fn resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        for attempt in 1..ATTEMPTS {
            match self.try_resolve(path, flags) {
                Err(Errno::EAGAIN) if attempt > ATTEMPTS_AT_ONCE => thread::sleep(PAUSE),
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
        self.try_resolve(path, flags)
    }

    fn try_resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }
}

/// Changes what is in `directory`, but not the times that it shows.
fn unseen<T>(directory: &OwnedFd, change: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let before = fstat(directory)?;
    let changed = change()?;
    let accessed = TimeSpec::new(before.st_atime, before.st_atime_nsec);
    let modified = TimeSpec::new(before.st_mtime, before.st_mtime_nsec);
    futimens(directory, &accessed, &modified)?;
    Ok(changed)
}

fn read(file: File, path: &str, limit: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut content)
        .with_context(|| format!("read /{path} of the image"))?;
    if content.len() as u64 > limit {
        bail!("/{path} of the image is larger than {limit} bytes");
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::stat::{SFlag, makedev, mknod};
    use nix::unistd::mkfifo;

    fn root() -> (tempfile::TempDir, Rootfs) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("usr/bin")).unwrap();
        symlink("usr/bin", path.join("bin")).unwrap();
        fs::write(path.join("usr/bin/tool"), "text").unwrap();
        let rootfs = Rootfs::open(path).unwrap();
        (directory, rootfs)
    }

    #[test]
    fn links_stay_inside() {
        let (directory, root) = root();
        symlink("/../../../../etc/passwd", directory.path().join("escape")).unwrap();
        symlink("/usr/bin/tool", directory.path().join("absolute")).unwrap();
        assert!(Path::new("/etc/passwd").exists());
        assert!(!root.exists("escape").unwrap());
        assert_eq!(root.read("absolute", 4).unwrap(), b"text");
        assert!(
            root.read("absolute", 3)
                .unwrap_err()
                .to_string()
                .contains("larger than 3 bytes")
        );
        assert!(root.read("usr/bin", 3).is_err());
    }

    /// No driver has the device's number: who opened it would be told ENXIO.
    #[test]
    fn what_is_no_file_is_not_opened() {
        let (directory, root) = root();
        let path = directory.path().join("node");
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(4000, 4000)).unwrap();
        mkfifo(&directory.path().join("pipe"), Mode::S_IRWXU).unwrap();
        for name in ["node", "pipe", "usr"] {
            let error = format!("{:#}", root.read_if_there(name, 9).unwrap_err());
            assert_eq!(error, format!("/{name} of the image is not a file"));
            assert!(root.exists(name).unwrap() && root.list("pipe").unwrap().is_empty());
        }
    }

    #[test]
    fn files_are_put_inside_and_directories_keep_their_times() {
        let (directory, root) = root();
        let path = directory.path();
        symlink("/usr/lib", path.join("etc")).unwrap();
        fs::create_dir(path.join("usr/lib")).unwrap();
        symlink("/outside", path.join("usr/lib/policy.json")).unwrap();
        symlink("../../../../../tmp", path.join("out")).unwrap();
        let touch = |path: &Path| {
            let old = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_000_000_007);
            let times = fs::FileTimes::new().set_accessed(old).set_modified(old);
            File::open(path).unwrap().set_times(times).unwrap();
        };
        touch(&path.join("usr/lib"));
        let before = fs::metadata(path.join("usr/lib")).unwrap().modified().unwrap();
        root.put("etc/policy.json", b"ours").unwrap();
        root.put("etc/new/deep/file", b"ours too").unwrap();
        root.put("out/file", b"").unwrap_err();
        assert_eq!(fs::read(path.join("usr/lib/policy.json")).unwrap(), b"ours");
        assert_eq!(fs::read(path.join("usr/lib/new/deep/file")).unwrap(), b"ours too");
        let after = fs::metadata(path.join("usr/lib")).unwrap().modified().unwrap();
        assert_eq!(before, after);
        assert!(
            root.put("usr/bin/tool/file", b"").is_err(),
            "a file is no directory"
        );
    }

    #[test]
    fn programs_are_executable_files() {
        let (directory, root) = root();
        assert!(!root.has_program("tool").unwrap());
        fs::set_permissions(
            directory.path().join("usr/bin/tool"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        assert!(root.has_program("tool").unwrap());
        assert!(!root.has_program("other").unwrap());
        assert_eq!(root.list("usr/bin").unwrap(), ["tool"]);
        assert!(root.list("nowhere").unwrap().is_empty());
    }

    #[test]
    fn only_what_is_missing_is_not_there() {
        let (directory, root) = root();
        symlink("loop", directory.path().join("loop")).unwrap();
        symlink("/loop", directory.path().join("usr/bin/looping")).unwrap();
        let long = "x".repeat(300);
        for (path, expected) in [
            ("usr/bin/tool", Some(true)),
            ("usr/bin/other", Some(false)),
            // What should be a directory is a file.
            ("usr/bin/tool/other", Some(false)),
            ("loop", None),
            (&long, None),
        ] {
            assert_eq!(root.exists(path).ok(), expected, "{path}");
        }
        assert!(root.has_program("looping").is_err());
        assert!(root.list("loop").is_err() && root.read_if_there("loop", 9).is_err());
        assert_eq!(root.read_if_there("usr/bin/other", 9).unwrap(), None);
        assert_eq!(root.read_link("loop").unwrap().unwrap(), "loop");
        assert_eq!(root.read_link("other").unwrap(), None);
    }

    #[test]
    fn renames_elsewhere_hide_nothing() {
        let (directory, root) = root();
        let path = directory.path();
        fs::create_dir_all(path.join("ostree/boot.1/default/ab")).unwrap();
        fs::create_dir_all(path.join("ostree/deploy/default/deploy/cd.0/usr")).unwrap();
        let link = path.join("ostree/boot.1/default/ab/0");
        symlink("../../../deploy/default/deploy/cd.0", link).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| elsewhere.path().join(name));
        fs::write(&one, "").unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&one, &other).unwrap();
                    fs::rename(&other, &one).unwrap();
                }
            });
            let link = "ostree/boot.1/default/ab/0";
            let (mut disturbed, mut found) = (0, true);
            for _ in 0..1_000_000 {
                disturbed += u32::from(root.try_resolve(link, OFlag::O_PATH).is_err());
                found &= root.exists(link).unwrap_or_default();
                found &= root.list(link).is_ok_and(|names| names == ["usr"]);
                if disturbed == 50 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(disturbed, 50, "nothing was renamed meanwhile");
            assert!(found);
        });
    }
}
