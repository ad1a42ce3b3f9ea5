//! A file system that is found by its label, such as a USB stick with images: `LABEL=STICK/path/on/it`.
//!
//! It is mounted read-only, where nobody else sees it, for as long as its image is in use.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::filesystem::identify;
use crate::read_only::ReadOnlyMount;

/// A place on a stick: the label, and the path from the root of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The file system's label.
    pub label: &'a str,
    /// The path on it.
    pub path: &'a Path,
}

impl<'a> Place<'a> {
    /// Reads `LABEL=STICK/path`; `None` if `path` is not of this form.
    pub fn parse(path: &'a Path) -> Option<Self> {
        let (label, path) = path.to_str()?.strip_prefix("LABEL=")?.split_once('/')?;
        (!label.is_empty()).then_some(Self {
            label,
            path: Path::new(path.trim_start_matches('/')),
        })
    }

    /// Whether a file system with the label is there.
    pub fn is_there(&self) -> bool {
        find(self.label).is_ok_and(|found| !found.is_empty())
    }
}

/// A stick, mounted. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Stick(ReadOnlyMount);

/// A file system with the label that is looked for.
struct Candidate {
    device: PathBuf,
    /// The disk that it's on, or is.
    disk: PathBuf,
    kind: &'static str,
}

impl Stick {
    /// Finds the file system with this label and mounts it, in this process's own mount namespace.
    pub fn mount(label: &str) -> Result<Self> {
        let candidates = find(label)?;
        let Some(first) = candidates.first() else {
            bail!("there is no file system with the label {label:?}: is the stick plugged in?");
        };
        if let Some(other) = candidates.iter().find(|other| other.disk != first.disk) {
            bail!(
                "{} and {} both have the label {label:?}: take one out",
                first.device.display(),
                other.device.display()
            );
        }
        Ok(Self(ReadOnlyMount::new(&first.device, first.kind)?))
    }

    /// Where a path on it is now.
    pub fn locate(&self, path: &Path) -> PathBuf {
        self.0.path().join(path)
    }
}

/// The file systems with this label, in the order of their devices' names: a disk comes before its partitions. (Images for
/// sticks often begin with the same ISO 9660 file system that their first partition has.)
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
            ("LABEL=STICK", None),
            ("LABEL=/os", None),
            ("/LABEL=STICK/os", None),
            ("os", None),
        ] {
            assert_eq!(Place::parse(Path::new(text)), expected, "{text}");
        }
    }
}
