//! Looking into an unpacked root that nobody vouches for: every path is resolved within it, as a program that runs
//! there would see it. No symbolic link leads outside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Where programs are looked for, as in the sandbox's `PATH`.
const PROGRAM_DIRS: [&str; 6] = [
    "usr/local/sbin",
    "usr/local/bin",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
];

/// A root directory.
pub struct Rootfs(OwnedFd);

impl Rootfs {
    /// The root at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(root))
    }

    /// Whether there is anything at `path`.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path, OFlag::O_PATH).is_ok()
    }

    /// Whether the sandbox would find a program of this name.
    pub fn has_program(&self, name: &str) -> bool {
        PROGRAM_DIRS
            .iter()
            .any(|directory| self.is_program(&format!("{directory}/{name}")))
    }

    /// The names in the directory at `path`, sorted; none if there is no such directory.
    pub fn list(&self, path: &str) -> Result<Vec<OsString>> {
        let directory = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).with_context(|| format!("open /{path} of the image")),
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
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = self
            .resolve(path, flags)
            .with_context(|| format!("open /{path} of the image"))?;
        if !is_regular(&file)? {
            bail!("/{path} of the image is not a file");
        }
        Ok(File::from(file))
    }

    /// The content of the file at `path`, which may have at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut file = self.open_file(path)?.take(limit + 1);
        file.read_to_end(&mut content)
            .with_context(|| format!("read /{path} of the image"))?;
        if content.len() as u64 > limit {
            bail!("/{path} of the image is larger than {limit} bytes");
        }
        Ok(content)
    }

    fn is_program(&self, path: &str) -> bool {
        let mode = self
            .resolve(path, OFlag::O_PATH)
            .and_then(fstat)
            .map(|status| status.st_mode);
        mode.is_ok_and(|mode| mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0)
    }

    fn resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.0, path, how)
    }
}

fn is_regular(file: &OwnedFd) -> Result<bool> {
    let mode = fstat(file).context("fstat")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & libc::S_IFMT) == SFlag::S_IFREG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        assert!(!root.exists("escape"));
        assert_eq!(root.read("absolute", 4).unwrap(), b"text");
        assert!(
            root.read("absolute", 3)
                .unwrap_err()
                .to_string()
                .contains("larger than 3 bytes")
        );
        assert!(root.read("usr/bin", 3).is_err());
    }

    #[test]
    fn programs_are_executable_files() {
        let (directory, root) = root();
        assert!(!root.has_program("tool"));
        fs::set_permissions(
            directory.path().join("usr/bin/tool"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        assert!(root.has_program("tool"));
        assert!(!root.has_program("other"));
        assert_eq!(root.list("usr/bin").unwrap(), ["tool"]);
        assert!(root.list("nowhere").unwrap().is_empty());
    }
}
