//! What the kernel says of block devices in sysfs (Documentation/ABI/stable/sysfs-block).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelPartition {
    /// The kernel's name, e.g. `sda1`.
    pub name: String,
    /// The number in the table.
    pub partition: u32,
    /// The device number: major and minor.
    pub number: (u64, u64),
}

/// The partitions that the kernel has made of the disk with this directory, by number.
pub fn kernel_partitions(directory: &Path) -> io::Result<Vec<KernelPartition>> {
    let entries = entries(directory)?.into_iter();
    let mut partitions: Vec<_> = entries
        .filter_map(|entry| {
            let partition = attribute(&entry.join("partition"))?.parse().ok()?;
            let number = attribute(&entry.join("dev"))?;
            Some(KernelPartition {
                name: base_name(&entry),
                partition,
                number: device_number(&number)?,
            })
        })
        .collect();
    partitions.sort_by_key(|partition| partition.partition);
    Ok(partitions)
}

/// What is in a directory; nothing if there is no such directory, as when a device has just gone.
pub fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The sysfs directories of the devices that are made from the one with this directory.
pub fn holders_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    entries(&directory.join("holders"))
}

/// Parses `8:16`.
pub fn device_number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// An attribute's text without the space around it; `None` when it is not there or empty.
pub fn attribute(file: &Path) -> Option<String> {
    let text = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

pub fn flag(file: &Path) -> bool {
    attribute(file).is_some_and(|value| value == "1")
}

/// Whether device-mapper makes the device with this directory of several paths to one disk.
pub fn is_multipath(directory: &Path) -> bool {
    attribute(&directory.join("dm/uuid")).is_some_and(|uuid| uuid.starts_with("mpath-"))
}

pub fn base_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
