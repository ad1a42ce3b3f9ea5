//! A file system that is found by its label, such as a USB stick with images: `LABEL=STICK/path/on/it`.
//!
//! It is mounted privately for as long as it is in use; read-only, unless an image is written to it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::libc;

use crate::machine::filesystem::identify;
use crate::machine::private_mount::{Access, PrivateMount};
use crate::sys::blocking::apart;

pub const PREFIX: &str = "LABEL=";

/// A place on a stick: the label, and the path from the root of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub label: &'a str,
    pub path: &'a Path,
}

impl<'a> Place<'a> {
    /// Reads `LABEL=STICK/path`, or `LABEL=STICK` for all of it; `None` if `path` is not of this form.
    pub fn parse(path: &'a Path) -> Option<Self> {
        let text = path.to_str()?.strip_prefix(PREFIX)?;
        let (label, path) = text.split_once('/').unwrap_or((text, ""));
        let path = Path::new(path.trim_start_matches('/'));
        let leads_away = path.components().any(|part| part == Component::ParentDir);
        (!label.is_empty() && !leads_away).then_some(Self { label, path })
    }

    pub fn is_there(&self) -> bool {
        find(self.label).is_ok_and(|found| !found.is_empty())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{PREFIX}{}", self.label)?;
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        write!(out, "/{}", self.path.display())
    }
}

/// A stick, mounted. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Stick {
    mount: PrivateMount,
    label: String,
    device: PathBuf,
    disk: PathBuf,
}

/// A file system with the label that is looked for.
struct Candidate {
    device: PathBuf,
    /// The disk that it's on, or is.
    disk: PathBuf,
    kind: &'static str,
}

impl Stick {
    /// Finds the file system with this label and mounts it, in this process's own mount namespace.
    pub async fn mount(label: &str, access: Access) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("finding and mounting {PREFIX}{label} needs root privileges: run it as root");
        }
        let wanted = label.to_owned();
        let candidates = apart(move || find(&wanted)).await?;
        let Some(first) = candidates.first() else {
            bail!("there is no file system with the label {label:?}: is the USB stick plugged in?");
        };
        if let Some(other) = candidates.iter().find(|other| other.disk != first.disk) {
            bail!(
                "{} and {} both have the label {label:?}: unplug one of them",
                first.device.display(),
                other.device.display()
            );
        }
        let mount = PrivateMount::new(&first.device, first.kind, access);
        Ok(Self {
            mount: mount.with_context(|| format!("{PREFIX}{label}"))?,
            label: label.into(),
            device: first.device.clone(),
            disk: first.disk.clone(),
        })
    }

    /// Where a path on it is now.
    pub fn locate(&self, path: &Path) -> PathBuf {
        self.mount.path().join(path)
    }

    /// Whether it is on the disk with this kernel name, or is that disk.
    pub fn is_on(&self, disk: &str) -> bool {
        self.disk.file_name().is_some_and(|name| name == disk)
    }

    /// Writes everything out and unmounts it. Says whether it can be unplugged: nobody else has it mounted.
    pub fn close(self) -> Result<bool> {
        let doing = format!("writing everything out to {self}");
        let Self { mount, device, .. } = self;
        mount.close().context(doing)?;
        let alone = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(&device);
        match alone {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("opening {}", device.display())),
        }
    }
}

impl fmt::Display for Stick {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{PREFIX}{} ({})", self.label, self.device.display())
    }
}

/// The file systems with this label, in the order of their devices' names: a disk comes before its
/// partitions. (Images for sticks often begin with the same ISO 9660 file system that their first partition
/// has.)
fn find(label: &str) -> Result<Vec<Candidate>> {
    let mut names: Vec<_> = fs::read_dir("/sys/class/block")
        .context("reading /sys/class/block: mount /sys first")?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    let candidates = names.iter().filter_map(|name| {
        let device = Path::new("/dev").join(name);
        // A drive without a disc cannot be opened, and an unused loop device is empty.
        let kind = kind_by_label(&device, label)?;
        let sysfs = fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
        let is_partition = sysfs.join("partition").exists();
        let disk = if is_partition {
            sysfs.parent()?.to_owned()
        } else {
            sysfs
        };
        Some(Candidate { device, disk, kind })
    });
    Ok(candidates.collect())
}

fn kind_by_label(device: &Path, label: &str) -> Option<&'static str> {
    let mut device = File::open(device).ok()?;
    let size_bytes = device.seek(SeekFrom::End(0)).ok()?;
    let signatures = identify(&mut device, size_bytes).ok()?;
    let found = signatures
        .iter()
        .find(|signature| signature.label.as_deref() == Some(label))?;
    Some(found.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |label, path| {
            Some(Place {
                label,
                path: Path::new(path),
            })
        };
        for (text, expected) in [
            ("LABEL=STICK/images/os", place("STICK", "images/os")),
            ("LABEL=My stick//os", place("My stick", "os")),
            ("LABEL=STICK/", place("STICK", "")),
            ("LABEL=STICK", place("STICK", "")),
            ("LABEL=STICK/a/../../os", None),
            ("LABEL=/os", None),
            ("LABEL=", None),
            ("/LABEL=STICK/os", None),
            ("os", None),
        ] {
            let place = Place::parse(Path::new(text));
            assert_eq!(place, expected, "{text}");
            if let Some(place) = place {
                assert_eq!(place.to_string(), text.replace("//", "/").trim_end_matches('/'));
            }
        }
    }
}
