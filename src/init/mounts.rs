//! The file systems of the kernel and in memory that a system has mounted.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

struct Mount {
    target: &'static str,
    kind: &'static str,
    options: &'static str,
    flags: MsFlags,
    /// An installation works without it.
    is_optional: bool,
}

const fn needed(target: &'static str, kind: &'static str, options: &'static str, flags: MsFlags) -> Mount {
    Mount {
        target,
        kind,
        options,
        flags,
        is_optional: false,
    }
}

const fn optional(target: &'static str, kind: &'static str) -> Mount {
    Mount {
        is_optional: true,
        ..needed(target, kind, "", QUIET)
    }
}

/// No devices, no set-user-ID programs, nothing to execute.
const QUIET: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
/// No devices, no set-user-ID programs.
const FILES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In their order: `/dev` comes first, as a random number may be wanted at any time.
const MOUNTS: [Mount; 7] = [
    needed("/dev", "devtmpfs", "mode=0755", MsFlags::MS_NOSUID),
    needed(
        "/dev/pts",
        "devpts",
        "mode=0620,gid=5,ptmxmode=0666",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
    ),
    needed("/dev/shm", "tmpfs", "mode=1777", FILES),
    // Nobody but root learns what runs; a number, as kernels before 5.8 know no word for it.
    needed("/proc", "proc", "hidepid=2", QUIET),
    needed("/sys", "sysfs", "", QUIET),
    needed("/run", "tmpfs", "mode=0755", FILES),
    needed("/tmp", "tmpfs", "mode=1777", FILES),
];

/// Links that the kernel does not make in its `/dev`; udev would.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "fd/0"),
    ("/dev/stdout", "fd/1"),
    ("/dev/stderr", "fd/2"),
];

/// Mounts what is not mounted yet, and takes `/dev/console` as standard input, output and error.
pub(super) fn mount_all() -> Result<()> {
    MOUNTS.iter().try_for_each(mount_one)?;
    LINKS.iter().try_for_each(|(path, target)| link(path, target))?;
    take_console().context("opening the console")
}

/// Mounts what may need a kernel module first: the firmware's variables and control groups.
pub(super) fn mount_late() -> Result<()> {
    if Path::new("/sys/firmware/efi/efivars").is_dir() {
        mount_one(&optional("/sys/firmware/efi/efivars", "efivarfs"))?;
    }
    let cgroup = "/sys/fs/cgroup";
    if Path::new(cgroup).is_dir() {
        mount_one(&optional(cgroup, "cgroup2"))?;
        if !is_mounted(cgroup)? {
            // A container manager takes an empty directory that is a mount point for "no control groups
            // here".
            mount_one(&optional(cgroup, "tmpfs"))?;
        }
    }
    Ok(())
}

fn mount_one(wanted: &Mount) -> Result<()> {
    let (target, kind, options) = (wanted.target, wanted.kind, wanted.options);
    // The ramdisk may have been packed that way on purpose; `/proc` itself tells, once it's there.
    if is_mounted(target)? {
        return Ok(());
    }
    if !Path::new(target).is_dir() {
        fs::create_dir_all(target).with_context(|| format!("mkdir({target})"))?;
    }
    match mount(Some(kind), target, Some(kind), wanted.flags, Some(options)) {
        // EBUSY: it is mounted there already.
        Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(_) if wanted.is_optional => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("mount({kind}, {target}, {options:?})")),
    }
}

fn link(path: &str, target: &str) -> Result<()> {
    match symlink(target, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.with_context(|| format!("symlink({target}, {path})")),
    }
}

/// Whether something is mounted at `target`: it is on another device than its parent directory.
fn is_mounted(target: &str) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let path = Path::new(target);
    let parent = path.parent().unwrap_or(path);
    Ok(matches!((device(path), device(parent)), (Some(own), Some(above)) if own != above))
}

fn take_console() -> Result<()> {
    let path = "/dev/console";
    let console = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open({path})"))?;
    dup2_stdin(&console).context("dup2(0)")?;
    dup2_stdout(&console).context("dup2(1)")?;
    dup2_stderr(&console).context("dup2(2)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn a_mount_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target: &'static str = dir.path().join("new").to_str().unwrap().to_owned().leak();
        let work = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                None::<&str>,
            )
            .unwrap();
            assert!(!is_mounted(target).unwrap());
            mount_one(&needed(target, "tmpfs", "mode=0700", QUIET)).unwrap();
            assert!(is_mounted(target).unwrap());
            fs::write(Path::new(target).join("kept"), "").unwrap();
            mount_one(&needed(target, "tmpfs", "", QUIET)).unwrap();
            assert!(Path::new(target).join("kept").exists());
        };
        std::thread::spawn(work).join().unwrap();
        assert!(
            !is_mounted(target).unwrap(),
            "it was made in a namespace of its own"
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_an_error_unless_it_is_optional() {
        let dir = tempfile::tempdir().unwrap();
        let target: &'static str = dir.path().to_str().unwrap().to_owned().leak();
        let work = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let error = mount_one(&needed(target, "nosuchfs", "", QUIET)).unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                format!("mount(nosuchfs, {target}, \"\"): ENODEV: No such device")
            );
            mount_one(&optional(target, "nosuchfs")).unwrap();
        };
        std::thread::spawn(work).join().unwrap();
    }
}
