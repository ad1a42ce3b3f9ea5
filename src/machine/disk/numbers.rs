//! The numbers of this machine's block devices, as sysfs has them when an installation begins: which of them
//! it may use. Names and nodes don't count. A number that another disk has is never among them.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::find::sysfs::{attribute, device_number, entries, kernel_partitions};

/// `LOOP_MAJOR`.
const LOOPS: u32 = 7;
/// `BLOCK_EXT_MAJOR`: partitions beyond a disk's own numbers, and all of NVMe's, get one that is free.
const EXTENDED: u32 = 259;

/// The highest number of a device below its major (`MINORBITS`).
pub const LAST_MINOR: u32 = (1 << 20) - 1;

/// Devices of one major.
pub type Range = (u32, RangeInclusive<u32>);

#[derive(Debug)]
pub struct Numbers {
    /// Those of the disk, and its partitions.
    own: Vec<Range>,
    /// Those of all others; but loop devices without a file are nobody's.
    taken: Vec<Range>,
    /// The major of device-mapper's volumes, if the kernel has it.
    mapper: Option<u32>,
    pub tpms: Vec<(u32, u32)>,
}

impl Numbers {
    /// Those of the machine, for an installation onto the disk with this node.
    pub fn read(disk: &Path) -> io::Result<Self> {
        let disk = fs::metadata(disk)?.rdev();
        let disk = narrow((major(disk), minor(disk))).ok_or(io::ErrorKind::InvalidInput)?;
        let mut numbers = Self::below(Path::new("/sys"), disk)?;
        numbers.mapper = major_of("device-mapper", &fs::read_to_string("/proc/devices")?);
        Ok(numbers)
    }

    /// What `sysfs` has of this disk, and of all others.
    fn below(sysfs: &Path, disk: (u32, u32)) -> io::Result<Self> {
        let (mut own, mut taken) = (Vec::new(), Vec::new());
        for device in entries(&sysfs.join("block"))? {
            if number(&device) == Some(disk) {
                own = ranges(&device)?;
            } else if !is_free_loop(&device) {
                taken.extend(ranges(&device)?);
            }
        }
        if own.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut tpms = entries(&sysfs.join("class/tpm"))?;
        tpms.extend(entries(&sysfs.join("class/tpmrm"))?);
        let tpms = tpms.iter().filter_map(|tpm| number(tpm)).collect();
        let mapper = None;
        Ok(Self {
            own,
            taken,
            mapper,
            tpms,
        })
    }

    /// The block devices that are the disk's, can become its partitions, or are nobody's.
    pub fn free(&self, encrypted: bool) -> Vec<Range> {
        let mapper = self.mapper.filter(|_| encrypted);
        let majors = [Some(EXTENDED), Some(LOOPS), mapper].into_iter().flatten();
        let mut wanted = self.own.clone();
        wanted.extend(majors.map(|major| (major, 0..=LAST_MINOR)));
        let free = wanted.into_iter().flat_map(|range| without(range, &self.taken));
        free.collect()
    }
}

/// The numbers that the kernel keeps for a disk, and those that its partitions have beside them.
fn ranges(device: &Path) -> io::Result<Vec<Range>> {
    let Some((major, first)) = number(device) else {
        // It has just gone, or is a path of NVMe's that nobody can open.
        return Ok(Vec::new());
    };
    let kept = attribute(&device.join("range")).and_then(|kept| kept.parse().ok());
    let last = first.saturating_add(kept.unwrap_or(1).max(1) - 1);
    let mut ranges = vec![(major, first..=last)];
    for partition in kernel_partitions(device)? {
        ranges.extend(narrow(partition.number).map(|(major, minor)| (major, minor..=minor)));
    }
    Ok(ranges)
}

fn number(device: &Path) -> Option<(u32, u32)> {
    narrow(device_number(&attribute(&device.join("dev"))?)?)
}

fn narrow((major, minor): (u64, u64)) -> Option<(u32, u32)> {
    Some((major.try_into().ok()?, minor.try_into().ok()?))
}

/// Whether it is a loop device that no file is behind; what can't be found out is not free.
fn is_free_loop(device: &Path) -> bool {
    number(device).is_some_and(|(major, _)| major == LOOPS)
        && matches!(fs::exists(device.join("loop")), Ok(false))
}

/// The parts of a range that are not in `taken`.
fn without((major, minors): Range, taken: &[Range]) -> Vec<Range> {
    let mut taken: Vec<_> = taken.iter().filter(|range| range.0 == major).collect();
    taken.sort_unstable_by_key(|(_, taken)| *taken.start());
    let (mut next, mut free) = (*minors.start(), Vec::new());
    for (_, taken) in taken {
        if *taken.start() > next {
            free.push((major, next..=(*taken.start() - 1).min(*minors.end())));
        }
        next = next.max(taken.end().saturating_add(1));
    }
    free.push((major, next..=*minors.end()));
    free.retain(|(_, free)| !free.is_empty());
    free
}

/// The number of a kind of block device in the text of `/proc/devices`.
fn major_of(name: &str, devices: &str) -> Option<u32> {
    let (_, blocks) = devices.split_once("Block devices:")?;
    let line = blocks.lines().find(|line| line.ends_with(&format!(" {name}")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, number, how many numbers are kept, whether a loop has a file, and partitions.
    type Device<'a> = (&'a str, &'a str, &'a str, bool, &'a [(&'a str, &'a str)]);

    fn machine(devices: &[Device<'_>]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (name, number, range, bound, partitions) in devices {
            let at = sysfs.path().join("block").join(name);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("dev"), format!("{number}\n")).unwrap();
            fs::write(at.join("range"), format!("{range}\n")).unwrap();
            if *bound {
                fs::create_dir(at.join("loop")).unwrap();
            }
            for (index, (name, number)) in partitions.iter().enumerate() {
                let at = at.join(name);
                fs::create_dir(&at).unwrap();
                fs::write(at.join("dev"), number).unwrap();
                fs::write(at.join("partition"), (index + 1).to_string()).unwrap();
            }
        }
        let tpm = sysfs.path().join("class/tpmrm/tpmrm0");
        fs::create_dir_all(&tpm).unwrap();
        fs::write(tpm.join("dev"), "251:65536\n").unwrap();
        sysfs
    }

    fn allowed(target: (u32, u32), mapper: Option<u32>) -> String {
        let machine = machine(&[
            ("sda", "8:0", "16", false, &[("sda1", "8:1"), ("sda16", "259:4")]),
            ("sdb", "8:16", "16", false, &[("sdb1", "8:17")]),
            ("vda", "254:0", "16", false, &[]),
            ("nvme0n1", "259:0", "0", false, &[("nvme0n1p1", "259:1")]),
            ("nvme1n1", "259:2", "0", false, &[("nvme1n1p1", "259:3")]),
            ("loop0", "7:0", "1", true, &[]),
            ("loop1", "7:1", "1", false, &[]),
            ("loop2", "7:2", "1", true, &[("loop2p1", "259:7")]),
            ("dm-0", "253:0", "1", false, &[]),
        ]);
        let mut numbers = Numbers::below(machine.path(), target).unwrap();
        assert_eq!(numbers.tpms, [(251, 65536)]);
        numbers.mapper = mapper;
        let free = numbers.free(mapper.is_some());
        let free = free.iter().map(|(major, minors)| match *minors.end() {
            LAST_MINOR => format!("{major}:{}-", minors.start()),
            last => format!("{major}:{}-{last}", minors.start()),
        });
        free.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_disk_its_partitions_and_what_is_nobodys() {
        for (target, expected) in [
            ((8, 0), "8:0-15 8:1-1 259:4-4 259:4-6 259:8- 7:1-1 7:3-"),
            ((8, 16), "8:16-31 8:17-17 259:5-6 259:8- 7:1-1 7:3-"),
            ((254, 0), "254:0-15 259:5-6 259:8- 7:1-1 7:3-"),
            ((259, 0), "259:0-0 259:1-1 259:0-1 259:5-6 259:8- 7:1-1 7:3-"),
            ((7, 2), "7:2-2 259:7-7 259:5- 7:1-"),
        ] {
            assert_eq!(allowed(target, None), expected, "{target:?}");
        }
        assert!(allowed((254, 0), Some(253)).ends_with(" 253:1-"));
    }

    #[test]
    fn majors_are_read_as_the_kernel_writes_them() {
        let devices =
            "Character devices:\n  1 mem\n\nBlock devices:\n  7 loop\n252 device-mapper\n259 blkext\n";
        assert_eq!(major_of("device-mapper", devices), Some(252));
        assert_eq!(major_of("mapper", devices), None);
        assert_eq!(major_of("mem", devices), None);
    }
}
