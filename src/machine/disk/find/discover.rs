//! Which disks there are (ironic-python-agent, `list_all_block_devices`). Facts come from sysfs, so no udev
//! is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::makedev;
use serde::Serialize;

use super::hints::Candidate;
use super::identity::Identity;
use super::links;
use super::sysfs::{attribute, device_number, flag, holders_in, is_multipath, kernel_partitions};
use super::transport::transport;

const BLOCK: &str = "/sys/block";
/// Why one way to a disk that has several is no target.
const PATH: &str = "a path of a multipath device";

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockDevice {
    /// What hints are compared with.
    #[serde(flatten)]
    pub disk: Candidate,
    /// The names in `/dev/disk/by-id` that lead to it, or would if there were a udev.
    pub by_id: Vec<String>,
    pub sector_bytes: u64,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Why it can't be the target, whatever the hints say.
    pub excluded: Option<&'static str>,
}

/// All block devices that might be disks, in the order of `lsblk`. Loop devices are disks only when they are
/// named.
pub fn disks() -> anyhow::Result<Vec<BlockDevice>> {
    disks_in(Path::new(BLOCK)).context("reading /sys/block: mount /sys first")
}

pub fn disks_in(sysfs: &Path) -> std::io::Result<Vec<BlockDevice>> {
    disks_where(sysfs, |_| true)
}

fn disks_where(sysfs: &Path, is_wanted: impl Fn(&Path) -> bool) -> std::io::Result<Vec<BlockDevice>> {
    let links: Vec<PathBuf> = fs::read_dir(sysfs)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    let mut found: Vec<(u64, BlockDevice)> = links
        .into_iter()
        .filter(|link| is_wanted(link))
        .filter_map(|link| Some((rank(&link), inspect(&link)?)))
        .collect();
    found.sort_by(|(one, left), (other, right)| (one, &left.disk.name).cmp(&(other, &right.disk.name)));
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// The nodes of the disks that udev would make `link` lead to. Of a disk with several paths it is the disk,
/// and not the paths.
pub fn resolve(link: &Path) -> std::io::Result<Vec<String>> {
    let is_wanted = |name: &String| Path::new(name) == link;
    let mut found = disks_in(Path::new(BLOCK))?;
    found.retain(|each| each.disk.by_path.iter().chain(&each.by_id).any(is_wanted));
    if !found.iter().all(BlockDevice::is_path) {
        found.retain(|each| !each.is_path());
    }
    Ok(found.into_iter().map(|each| each.disk.name).collect())
}

/// Each disk once, whichever of its paths comes first.
pub fn units(found: Vec<BlockDevice>) -> Vec<BlockDevice> {
    let mut units: Vec<BlockDevice> = Vec::new();
    for each in found {
        if !each.is_path() && !units.iter().any(|known| known.is_same_unit(&each)) {
            units.push(each);
        }
    }
    units
}

/// What `lsblk` sorts devices by: their numbers, packed as the C library packs them.
fn rank(link: &Path) -> u64 {
    let number = attribute(&link.join("dev")).and_then(|dev| device_number(&dev));
    number.map_or(u64::MAX, |(major, minor)| makedev(major, minor))
}

impl BlockDevice {
    /// What `link` in sysfs says of the device `name`.
    pub(in crate::machine::disk) fn describe(name: &str, link: &Path) -> Self {
        describe(name, link)
    }

    /// The other paths to it. Only what has its worldwide name is looked at closely: there may be hundreds of
    /// disks.
    pub(in crate::machine::disk) fn other_paths(&self) -> std::io::Result<Vec<Self>> {
        let Some(own) = wwid(&self.sysfs()) else {
            return Ok(Vec::new());
        };
        let mut found = disks_where(Path::new(BLOCK), |link| wwid(link).as_ref() == Some(&own))?;
        found.retain(|each| each.is_same_unit(self));
        Ok(found)
    }

    pub(in crate::machine::disk) fn sysfs(&self) -> PathBuf {
        let name = self.disk.name.trim_start_matches("/dev/").replace('/', "!");
        Path::new(BLOCK).join(name)
    }

    /// Whether it leads to what another device leads to as well, which is to be used.
    fn is_path(&self) -> bool {
        self.excluded == Some(PATH)
    }

    /// Whether both are, by their worldwide names, one disk. What multipathd has put together is its own
    /// concern.
    pub(in crate::machine::disk) fn is_same_unit(&self, other: &Self) -> bool {
        let (one, another) = (&self.disk, &other.disk);
        one.name != another.name
            && !one.wwn.is_empty()
            && one.wwn == another.wwn
            && one.size_bytes == another.size_bytes
            && !self.is_path()
            && !other.is_path()
    }
}

/// Reads a device's directory in `/sys/block`; `None` for what is no disk by its very kind.
fn inspect(link: &Path) -> Option<BlockDevice> {
    const NO_DISKS: [&str; 6] = ["loop", "ram", "zram", "fd", "nbd", "mtdblock"];
    let name = link.file_name()?.to_str()?.replace('!', "/");
    let is_kind = |kind: &&str| {
        name.strip_prefix(*kind)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    // Each way to an NVMe disk that has several is hidden: it has no node.
    if flag(&link.join("hidden"))
        || NO_DISKS.iter().any(is_kind)
        || (name.starts_with("dm-") && !is_multipath(link))
    {
        return None;
    }
    Some(describe(&name, link))
}

fn describe(name: &str, link: &Path) -> BlockDevice {
    let directory = fs::canonicalize(link).unwrap_or_else(|_| link.to_path_buf());
    let sectors: u64 = attribute(&link.join("size"))
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    let identity = Identity::read(link);
    let long_serials = identity.long_serials(link);
    let mut disk = Candidate {
        name: format!("/dev/{name}"),
        // sysfs counts in sectors of 512 bytes, whatever the disk has.
        size_bytes: sectors * 512,
        rotational: flag(&link.join("queue/rotational")),
        model: identity.model.clone(),
        vendor: identity.vendor.clone(),
        serial: identity.serial.iter().cloned().collect(),
        hctl: first_entry(&link.join("device/scsi_device")),
        by_path: links::by_path(name, &directory),
        tran: transport(name, &directory).map(str::to_string),
        ..Candidate::default()
    };
    disk.serial.extend(long_serials);
    if let Some(wwid) = wwid(link) {
        disk.add_wwid(&wwid);
    }
    let by_id = links::by_id(&disk, &identity, link);
    let excluded = excluded(name, link, sectors);
    let sector_bytes = attribute(&link.join("queue/logical_block_size")).and_then(|bytes| bytes.parse().ok());
    BlockDevice {
        disk,
        by_id,
        sector_bytes: sector_bytes.unwrap_or(512),
        removable: flag(&link.join("removable")),
        excluded,
    }
}

/// Whether a device is a software RAID, or can't be asked whether it is.
fn may_be_raid(holder: &Path) -> bool {
    holder.join("md").try_exists().unwrap_or(true)
}

fn excluded(name: &str, link: &Path, sectors: u64) -> Option<&'static str> {
    let Ok(holders) = all_holders(link) else {
        return Some("the devices made from it cannot be read in /sys");
    };
    if name.starts_with("sr") || attribute(&link.join("device/type")).as_deref() == Some("5") {
        Some("an optical drive")
    } else if sectors == 0 {
        Some("its size is 0 bytes")
    } else if flag(&link.join("ro")) {
        Some("read-only")
    } else if holders.iter().any(|holder| is_multipath(holder)) {
        Some(PATH)
    } else if holders.iter().any(|holder| may_be_raid(holder)) {
        Some("a member of a software RAID")
    } else if attribute(&link.join("md/level")).is_some_and(|level| !level.contains("raid")) {
        Some("made from disks, but not a RAID")
    } else {
        None
    }
}

/// The devices that are made from a disk and from its partitions.
fn all_holders(link: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut holders = holders_in(link)?;
    for partition in kernel_partitions(link)? {
        holders.extend(holders_in(&link.join(partition.name))?);
    }
    Ok(holders)
}

/// The name of the unit that a device leads to.
fn wwid(link: &Path) -> Option<String> {
    Identity::wwn(link).or_else(|| multipath_wwid(link))
}

/// The name of the unit that a multipath device leads to, from the one that `multipathd` gives the device.
fn multipath_wwid(link: &Path) -> Option<String> {
    let uuid = attribute(&link.join("dm/uuid"))?;
    let unit = uuid.strip_prefix("mpath-")?;
    // `scsi_id` writes a 3 before the digits of a NAA name.
    Some(
        unit.strip_prefix('3')
            .map_or(unit.into(), |digits| format!("naa.{digits}")),
    )
}

fn first_entry(directory: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.into_iter().next()
}

impl Candidate {
    /// Takes the kernel's name for the unit apart in the ways that udev and `scsi_id` do.
    ///
    /// `naa.` of 16 digits is a WWN, of 32 digits a WWN with the vendor's extension; NVMe's names are used as
    /// they are.
    fn add_wwid(&mut self, wwid: &str) {
        if let Some(digits) = wwid.strip_prefix("naa.") {
            let (short, extension) = digits.split_at_checked(16).unwrap_or((digits, ""));
            self.wwn.push(format!("0x{short}"));
            self.wwn_with_extension = Some(format!("0x{digits}"));
            if !extension.is_empty() {
                self.wwn.push(format!("0x{digits}"));
                self.wwn_vendor_extension = Some(format!("0x{extension}"));
            }
            // `ID_SERIAL_SHORT` and `ID_SERIAL` of a SCSI disk.
            self.serial.push(digits.into());
            self.serial.push(format!("3{digits}"));
        } else if !wwid.starts_with("t10.") {
            self.wwn.push(wwid.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::{disk, sysfs};

    const GIB: u64 = 1 << 30;

    #[test]
    fn disks_are_looked_for_by_their_worldwide_name() {
        let machine = sysfs(&[
            ("sda/device/wwid", "naa.1\n"),
            ("sdb/device/wwid", "naa.2\n"),
            ("sdc/device/wwid", "naa.1\n"),
            ("dm-0/dm/uuid", "mpath-31\n"),
            ("nvme0n1/wwid", "eui.1\n"),
            ("vda/size", "1\n"),
        ]);
        let found = disks_where(machine.path(), |link| wwid(link).as_deref() == Some("naa.1")).unwrap();
        let names: Vec<_> = found.iter().map(|each| each.disk.name.as_str()).collect();
        assert_eq!(names, ["/dev/dm-0", "/dev/sda", "/dev/sdc"]);
    }

    fn excluded_by_name(files: &[(&str, &str)]) -> Vec<(String, Option<&'static str>)> {
        let found = disks_in(sysfs(files).path()).unwrap();
        found
            .into_iter()
            .map(|each| (each.disk.name, each.excluded))
            .collect()
    }

    #[test]
    fn what_is_no_disk_is_left_out_or_excluded() {
        let found = excluded_by_name(&[
            ("sda/size", "100"),
            ("sda/holders/md0/md/level", "raid1"),
            ("sdb/size", "100"),
            ("sdb/holders/dm-0/dm/uuid", "mpath-1"),
            ("sdc/size", "100"),
            ("sdc/ro", "1"),
            ("sdd/size", "0"),
            ("sde/size", "100"),
            ("sde/holders/dm-1/dm/uuid", "LVM-x"),
            ("sr0/size", "100"),
            ("dm-0/size", "100"),
            ("dm-0/dm/uuid", "mpath-1"),
            ("dm-1/size", "100"),
            ("dm-1/dm/uuid", "LVM-x"),
            ("loop0/size", "100"),
            ("ram0/size", "100"),
            ("zram0/size", "100"),
            ("fd0/size", "100"),
            ("md0/size", "100"),
            ("cciss!c0d0/size", "100"),
            ("nvme0c1n1/size", "100"),
            ("nvme0c1n1/hidden", "1"),
        ]);
        let expected = [
            ("/dev/cciss/c0d0", None),
            ("/dev/dm-0", None),
            ("/dev/md0", None),
            ("/dev/sda", Some("a member of a software RAID")),
            ("/dev/sdb", Some("a path of a multipath device")),
            ("/dev/sdc", Some("read-only")),
            ("/dev/sdd", Some("its size is 0 bytes")),
            ("/dev/sde", None),
            ("/dev/sr0", Some("an optical drive")),
        ];
        assert_eq!(
            found,
            expected.map(|(name, excluded)| (name.to_string(), excluded))
        );
    }

    #[test]
    fn one_of_several_ways_to_a_disk_is_known() {
        let machine = sysfs(&[
            ("sda/size", "100"),
            ("sda/holders/dm-0/dm/uuid", "mpath-1"),
            ("sdb/size", "100"),
            ("sdb/ro", "1"),
            ("dm-0/size", "100"),
            ("dm-0/dm/uuid", "mpath-1"),
        ]);
        let found = disks_in(machine.path()).unwrap();
        let paths = found.iter().filter(|each| each.is_path());
        assert_eq!(
            paths.map(|each| &each.disk.name).collect::<Vec<_>>(),
            ["/dev/sda"]
        );
    }

    #[test]
    fn names_of_units_are_taken_apart() {
        let with = |wwid: &str| {
            let mut disk = Candidate::default();
            disk.add_wwid(wwid);
            disk
        };
        let long = with("naa.6d0946602a3b4c00123456789abcdef0");
        assert_eq!(
            long.wwn,
            ["0x6d0946602a3b4c00", "0x6d0946602a3b4c00123456789abcdef0"]
        );
        assert_eq!(long.wwn_vendor_extension.as_deref(), Some("0x123456789abcdef0"));
        assert_eq!(
            long.serial,
            [
                "6d0946602a3b4c00123456789abcdef0",
                "36d0946602a3b4c00123456789abcdef0"
            ]
        );
        let short = with("naa.5000c500a1b2c3d4");
        assert_eq!(
            (short.wwn, short.wwn_vendor_extension),
            (vec!["0x5000c500a1b2c3d4".into()], None)
        );
        assert_eq!(with("eui.0025388b").wwn, ["eui.0025388b"]);
        assert!(with("t10.ATA     QEMU HARDDISK").wwn.is_empty());
        assert_eq!(with("naa.é").wwn, ["0xé"]);
    }

    #[test]
    fn a_worldwide_name_tells_that_two_are_one() {
        let named = |name: &str, wwid: &str, size_bytes| {
            let mut found = disk(name, size_bytes);
            found.disk.add_wwid(wwid);
            found
        };
        let one = named("/dev/sda", "naa.600a098038", GIB);
        assert!(one.is_same_unit(&named("/dev/sdb", "naa.600a098038", GIB)));
        assert!(!one.is_same_unit(&one));
        assert!(!one.is_same_unit(&named("/dev/sdb", "naa.600a098039", GIB)));
        assert!(!one.is_same_unit(&named("/dev/sdb", "naa.600a098038", 2 * GIB)));
        assert!(!disk("/dev/sda", GIB).is_same_unit(&disk("/dev/sdb", GIB)));
        let path = BlockDevice {
            excluded: Some(PATH),
            ..named("/dev/sdb", "naa.600a098038", GIB)
        };
        assert!(!one.is_same_unit(&path));
        let other = named("/dev/sdc", "naa.600a098039", GIB);
        let second = named("/dev/sdd", "naa.600a098038", GIB);
        let once = units(vec![one.clone(), path, other.clone(), second]);
        assert_eq!(once, [one, other]);
    }

    #[test]
    fn a_link_that_nothing_would_make_leads_nowhere() {
        for link in [
            "/dev/disk/by-path/pci-none",
            "/dev/disk/by-id/none",
            "/dev/none",
            "/",
            "by-id",
        ] {
            assert!(resolve(Path::new(link)).unwrap().is_empty());
        }
    }
}
