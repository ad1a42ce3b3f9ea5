//! Whether a disk is in use: mounted in any visible mount namespace, swap, held by LVM, MD, dm or a loop
//! device, or opened exclusively by someone.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use nix::sys::stat::{major, minor};
use serde::Serialize;

use super::device::Disk;
use crate::machine::disk::find::BlockDevice;
use crate::machine::disk::find::sysfs::{
    KernelPartition, attribute, base_name, device_number, entries, holders_in, kernel_partitions,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "use")]
pub enum Use {
    Mounted {
        device: String,
        at: String,
    },
    Swap {
        device: String,
    },
    /// Another device is made from it, with what that is, e.g. `dm-0 (vg-root)`.
    Held {
        device: String,
        by: String,
    },
    /// It can be reached as another disk, too, and that one is in use.
    OtherPath {
        device: String,
    },
    /// Someone has it open exclusively, in a place that can't be seen from here.
    Exclusive,
}

impl Use {
    /// The disk or the partition that is in use, by the kernel's name; `None` if that can't be told.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Mounted { device, .. } | Self::Swap { device } | Self::Held { device, .. } => Some(device),
            Self::OtherPath { .. } | Self::Exclusive => None,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { device, at } => write!(out, "{device} is mounted at {}", at.escape_debug()),
            Self::Swap { device } => write!(out, "{device} is used as swap"),
            Self::Held { device, by } => write!(out, "{device} is held by {by}"),
            Self::OtherPath { device } => write!(out, "{device} is another path to it and is in use"),
            Self::Exclusive => write!(out, "the kernel reports it as busy (open with O_EXCL: EBUSY)"),
        }
    }
}

/// A disk and its partitions, by device number.
struct Devices<'disk>(Vec<((u64, u64), &'disk str)>);

impl<'disk> Devices<'disk> {
    fn of(number: (u64, u64), name: &'disk str, partitions: &'disk [KernelPartition]) -> Self {
        let partitions = partitions.iter().map(|each| (each.number, each.name.as_str()));
        Self(std::iter::once((number, name)).chain(partitions).collect())
    }

    fn name(&self, number: (u64, u64)) -> Option<&'disk str> {
        let found = self.0.iter().find(|(known, _)| *known == number);
        found.map(|(_, name)| *name)
    }
}

impl Disk {
    /// Everything that uses the disk.
    pub fn uses(&self) -> io::Result<Vec<Use>> {
        let mut uses = listed_uses(self.number, &self.name, &self.partitions, &self.sysfs())?;
        uses.extend(self.used_paths()?);
        if uses.is_empty() {
            match self.open_exclusively() {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => uses.push(Use::Exclusive),
                Err(error) => return Err(error),
            }
        }
        Ok(uses)
    }

    /// The other paths to it that are in use: without multipathd the kernel takes each path for a disk of its
    /// own.
    fn used_paths(&self) -> io::Result<Vec<Use>> {
        let mut used = Vec::new();
        for other in self.found().other_paths()? {
            if !other.uses()?.is_empty() {
                used.push(Use::OtherPath {
                    device: other.disk.name,
                });
            }
        }
        Ok(used)
    }

    /// The device-mapper volumes that are made from partitions that the kernel sees on it now, by name.
    pub(in crate::machine::disk) fn mapped_volumes(&self) -> io::Result<Vec<String>> {
        mapped_volumes(&self.sysfs())
    }

    /// An error when anything uses the disk.
    pub fn refuse_if_in_use(&self) -> anyhow::Result<()> {
        refuse(&self.path, &self.uses()?)
    }
}

impl BlockDevice {
    /// Everything that is known to use the disk, which need not even open.
    pub fn uses(&self) -> io::Result<Vec<Use>> {
        let sysfs = self.sysfs();
        let Some(number) = attribute(&sysfs.join("dev")).and_then(|dev| device_number(&dev)) else {
            return Ok(Vec::new());
        };
        let name = self.disk.name.trim_start_matches("/dev/");
        listed_uses(number, name, &kernel_partitions(&sysfs)?, &sysfs)
    }

    pub fn refuse_if_in_use(&self) -> anyhow::Result<()> {
        refuse(Path::new(&self.disk.name), &self.uses()?)
    }
}

fn refuse(path: &Path, uses: &[Use]) -> anyhow::Result<()> {
    let shown: Vec<_> = uses.iter().map(Use::to_string).collect();
    ensure!(
        uses.is_empty(),
        "{} is in use: {}; unmount or release it first",
        path.display(),
        shown.join(", ")
    );
    Ok(())
}

/// What the kernel lists of the uses of a disk with this directory in sysfs.
fn listed_uses(
    number: (u64, u64),
    name: &str,
    partitions: &[KernelPartition],
    sysfs: &Path,
) -> io::Result<Vec<Use>> {
    let devices = Devices::of(number, name, partitions);
    let mut uses = Vec::new();
    for table in mount_tables()? {
        uses.extend(mounts(&table, &devices, node_number));
    }
    match read_text(Path::new("/proc/swaps")) {
        Ok(swaps) => uses.extend(swap_areas(&swaps, &devices, node_number)),
        // This kernel can't swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    uses.extend(holders(name, sysfs)?);
    for partition in partitions {
        uses.extend(holders(&partition.name, &sysfs.join(&partition.name))?);
    }
    uses.extend(loops(Path::new("/sys/block"), &devices, node_number)?);
    let mut seen = HashSet::new();
    uses.retain(|each| seen.insert(each.clone()));
    Ok(uses)
}

fn holders(device: &str, directory: &Path) -> io::Result<Vec<Use>> {
    let held = |holder: PathBuf| Use::Held {
        device: device.into(),
        by: holder_name(&holder),
    };
    Ok(holders_in(directory)?.into_iter().map(held).collect())
}

/// The loop devices over `devices`: the kernel counts them neither as holders nor as exclusive users.
fn loops(
    block: &Path,
    devices: &Devices<'_>,
    number_of: impl Fn(&str) -> Option<(u64, u64)>,
) -> io::Result<Vec<Use>> {
    let held = |entry: PathBuf| {
        let file = attribute(&entry.join("loop/backing_file"))?;
        Some(Use::Held {
            device: devices.name(number_of(&file)?)?.into(),
            by: base_name(&entry),
        })
    };
    Ok(entries(block)?.into_iter().filter_map(held).collect())
}

fn mapped_volumes(sysfs: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for partition in kernel_partitions(sysfs)? {
        let holders = holders_in(&sysfs.join(partition.name))?.into_iter();
        names.extend(holders.filter_map(|holder| attribute(&holder.join("dm/name"))));
    }
    Ok(names)
}

/// What the device with this sysfs directory is called: `dm-0 (vg-root)`, `md127 (raid1)`.
fn holder_name(directory: &Path) -> String {
    let name = base_name(directory);
    let detail = attribute(&directory.join("dm/name")).or_else(|| attribute(&directory.join("md/level")));
    detail.map_or(name.clone(), |detail| format!("{name} ({detail})"))
}

/// The mount tables of all processes that can be seen, one of each mount namespace.
fn mount_tables() -> io::Result<Vec<String>> {
    let mut namespaces = HashSet::new();
    let mut tables = vec![read_text(Path::new("/proc/self/mountinfo"))?];
    namespaces.extend(fs::read_link("/proc/self/ns/mnt").ok());
    for process in fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Processes end, and those of others may be hidden: what can't be read is left out.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else {
            continue;
        };
        if namespaces.contains(&namespace) {
            continue;
        }
        if let Ok(table) = read_text(&process.path().join("mountinfo"))
            && !table.is_empty()
        {
            namespaces.insert(namespace);
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Paths in these files can be any bytes.
fn read_text(file: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

fn node_number(path: &str) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    let is_block = metadata.file_type().is_block_device();
    is_block.then(|| (major(metadata.rdev()), minor(metadata.rdev())))
}

/// The mounts of `devices` in a table as `/proc/PID/mountinfo` has it (proc_pid_mountinfo(5)).
///
/// The third field is the device, but btrfs and others make numbers up; the source is a path then.
fn mounts(table: &str, devices: &Devices<'_>, number_of: impl Fn(&str) -> Option<(u64, u64)>) -> Vec<Use> {
    let mount = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let source = unescape(filesystem.split(' ').nth(1)?);
        let by_source = || devices.name(source.starts_with('/').then(|| number_of(&source))??);
        let device = device_number(fields.get(2)?)
            .and_then(|number| devices.name(number))
            .or_else(by_source)?;
        Some(Use::Mounted {
            device: device.into(),
            at: unescape(fields.get(4)?),
        })
    };
    table.lines().filter_map(mount).collect()
}

/// The swap areas on `devices` in a table as `/proc/swaps` has it.
fn swap_areas(
    table: &str,
    devices: &Devices<'_>,
    number_of: impl Fn(&str) -> Option<(u64, u64)>,
) -> Vec<Use> {
    let area = |line: &str| {
        let device = devices.name(number_of(&unescape(line.split_whitespace().next()?))?)?;
        Some(Use::Swap {
            device: device.into(),
        })
    };
    table.lines().skip(1).filter_map(area).collect()
}

/// Undoes the kernel's `\040` for a space, and the like.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .first_chunk::<3>()
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::sysfs;

    fn devices() -> Devices<'static> {
        Devices(vec![((8, 0), "sda"), ((8, 1), "sda1"), ((8, 2), "sda2")])
    }

    fn number(path: &str) -> Option<(u64, u64)> {
        match path {
            "/dev/sda2" | "/dev/disk/by-label/swap area" => Some((8, 2)),
            "/dev/sdb1" => Some((8, 17)),
            _ => None,
        }
    }

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let table = "\
22 1 8:1 / /boot\\040dir rw,relatime shared:1 - ext4 /dev/sda1 rw
23 1 0:45 /root / rw - btrfs /dev/sda2 rw,subvol=/root
24 1 8:17 / /other rw - xfs /dev/sdb1 rw
25 1 0:5 / /proc rw - proc proc rw
26 1 8:0 / /whole rw - iso9660 /dev/sda ro
garbage
27 1
";
        let found: Vec<_> = mounts(table, &devices(), number)
            .iter()
            .map(Use::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "sda1 is mounted at /boot dir",
                "sda2 is mounted at /",
                "sda is mounted at /whole"
            ]
        );
    }

    #[test]
    fn swap_is_found_behind_links() {
        let table = "\
Filename\tType\tSize\tUsed\tPriority
/dev/disk/by-label/swap\\040area partition\t1\t0\t-2
/dev/sdb1 partition\t1\t0\t-2
/swapfile file\t1\t0\t-3
";
        assert_eq!(
            swap_areas(table, &devices(), number),
            [Use::Swap {
                device: "sda2".into()
            }]
        );
    }

    #[test]
    fn loop_devices_over_a_disk_hold_it() {
        let block = sysfs(&[
            ("loop0/loop/backing_file", "/dev/sda2\n"),
            ("loop1/loop/backing_file", "/images/file\n"),
            ("loop2/size", "0\n"),
        ]);
        let found: Vec<_> = loops(block.path(), &devices(), number)
            .unwrap()
            .iter()
            .map(Use::to_string)
            .collect();
        assert_eq!(found, ["sda2 is held by loop0"]);
    }

    #[test]
    fn octal_escapes_are_undone_and_nothing_else() {
        for (escaped, plain) in [
            (r"a\040b", "a b"),
            (r"\134", r"\"),
            (r"a\04", r"a\04"),
            (r"\999", r"\999"),
            (r"\777", r"\777"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn holders_say_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let holder = directory.path().join("dm-0");
        fs::create_dir_all(holder.join("dm")).unwrap();
        assert_eq!(holder_name(&holder), "dm-0");
        fs::write(holder.join("dm/name"), "vg-root\n").unwrap();
        assert_eq!(holder_name(&holder), "dm-0 (vg-root)");
    }

    #[test]
    fn holders_of_a_disk_and_of_its_partitions_use_it() {
        let disk = sysfs(&[
            ("holders/dm-0/dm/name", "mpatha\n"),
            ("sda1/partition", "1\n"),
            ("sda1/dev", "4000:1\n"),
            ("sda1/holders/md127/md/level", "raid1\n"),
            ("sda2/partition", "2\n"),
            ("sda2/dev", "4000:2\n"),
            ("sda2/holders/dm-1/dm/name", "vg-root\n"),
        ]);
        let partitions = kernel_partitions(disk.path()).unwrap();
        let uses = listed_uses((4000, 0), "sda", &partitions, disk.path()).unwrap();
        let uses: Vec<_> = uses.iter().map(Use::to_string).collect();
        assert_eq!(
            uses,
            [
                "sda is held by dm-0 (mpatha)",
                "sda1 is held by md127 (raid1)",
                "sda2 is held by dm-1 (vg-root)"
            ]
        );
    }

    #[test]
    fn volumes_made_from_partitions_are_known_by_name() {
        let disk = sysfs(&[
            ("sda2/partition", "2\n"),
            ("sda2/dev", "8:2\n"),
            ("sda2/holders/dm-3/dm/name", "root\n"),
            ("sda2/holders/md0/md/level", "raid1\n"),
            ("sda4/holders/dm-4/dm/name", "no partition\n"),
        ]);
        assert_eq!(mapped_volumes(disk.path()).unwrap(), ["root"]);
    }
}
