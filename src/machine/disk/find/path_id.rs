//! The names that udev gives disks by the way they are connected, in `/dev/disk/by-path`, from sysfs. The
//! rules are those of systemd's `path_id`, for what disks of real machines hang on: NVMe, SATA, SAS, Fibre
//! Channel, iSCSI, USB, virtio, and other SCSI.

use std::fs;
use std::path::{Path, PathBuf};

use super::sysfs::attribute;

/// A device on the way from the disk to the processor, as its directory in sysfs has it.
struct Device {
    directory: PathBuf,
    name: String,
    subsystem: String,
}

/// The names without their directory, the one that a newer udev gives first; none when the way is not known
/// here. `block` is the disk's directory in sysfs, without links in its path.
pub fn names(block: &Path) -> Vec<String> {
    let mut names: Vec<String> = [ata, old_ata]
        .iter()
        .filter_map(|ata| name(block, *ata))
        .collect();
    names.dedup();
    names
}

type Ata = fn(&Path, [u64; 4]) -> Option<String>;

fn name(block: &Path, ata: Ata) -> Option<String> {
    let (mut parts, mut has_parent, mut has_transport) = (Vec::new(), false, false);
    let mut skipped = String::new();
    for device in above(block) {
        // A controller behind a hub or a bridge is named by its own place alone.
        if device.subsystem == skipped {
            continue;
        }
        let address = scsi_address(&device.name);
        let (name, skip) = (&device.name, device.subsystem.clone());
        match (device.subsystem.as_str(), address) {
            ("scsi", Some(address)) => {
                let part = scsi(&device.directory, address, ata)?;
                // The addresses of these are one disk's, whatever the controller.
                has_parent |= ["fc-", "ip-", "sas-"].iter().any(|known| part.starts_with(known));
                has_transport = true;
                parts.push(part);
                continue;
            }
            ("nvme", _) => {
                parts.push(format!("nvme-{}", attribute(&block.join("nsid"))?));
                has_transport = true;
            }
            ("usb", _) => {
                parts.push(format!("usb-0:{}", name.split_once('-')?.1));
                has_transport = true;
            }
            ("virtio", _) => has_transport = true,
            ("pci" | "acpi" | "platform", _) => {
                parts.push(format!("{}-{name}", device.subsystem));
                has_transport |= device.subsystem == "platform";
                has_parent = true;
            }
            _ => continue,
        }
        skipped = skip;
    }
    parts.reverse();
    (has_parent && has_transport).then(|| parts.join("-"))
}

/// The devices above the disk, from the nearest.
fn above(block: &Path) -> impl Iterator<Item = Device> {
    let start = nvme_controller(block).unwrap_or_else(|| block.to_path_buf());
    let directories: Vec<PathBuf> = start.ancestors().map(Path::to_path_buf).collect();
    directories.into_iter().filter_map(|directory| {
        let subsystem = fs::read_link(directory.join("subsystem")).ok()?;
        Some(Device {
            name: file_name(&directory)?,
            subsystem: file_name(&subsystem)?,
            directory,
        })
    })
}

/// Where the kernel may find an NVMe disk in several ways, the disk is not below its controller: `nvme0n1` is
/// that of `nvme0`.
fn nvme_controller(block: &Path) -> Option<PathBuf> {
    let subsystem = block.parent()?;
    let is_shared = file_name(subsystem)?.starts_with("nvme-subsys");
    let (controller, _) = block.file_name()?.to_str()?.rsplit_once('n')?;
    is_shared
        .then(|| fs::canonicalize(subsystem.join(controller)).ok())
        .flatten()
}

/// Host, channel, target and unit of a device that is called by them.
fn scsi_address(name: &str) -> Option<[u64; 4]> {
    let numbers: Option<Vec<u64>> = name.split(':').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// How a SCSI disk hangs on its controller.
fn scsi(device: &Path, address: [u64; 4], ata: Ata) -> Option<String> {
    let unit = match address[3] {
        unit @ 0..256 => format!("lun-{unit}"),
        unit => format!("lun-0x{:04x}{:04x}00000000", unit & 0xffff, unit >> 16 & 0xffff),
    };
    if above_called(device, "rport-").is_some() {
        let port = class_attribute(above_called(device, "target")?, "fc_transport", "port_name")?;
        Some(format!("fc-{port}-{unit}"))
    } else if let Some(end_device) = above_called(device, "end_device-") {
        Some(format!("sas-{}-{unit}", sas(end_device)?))
    } else if let Some(session) = above_called(device, "session") {
        let number = file_name(session)?.replace("session", "");
        let connection = session.join(format!("connection{number}:0"));
        let of_connection = |name| class_attribute(&connection, "iscsi_connection", name);
        Some(format!(
            "ip-{}:{}-iscsi-{}-{unit}",
            of_connection("persistent_address")?,
            of_connection("persistent_port")?,
            class_attribute(session, "iscsi_session", "targetname")?,
        ))
    } else if above_called(device, "ata").is_some() {
        ata(device, address)
    } else {
        parallel_scsi(device, address)
    }
}

/// A disk on one lane is called by that lane's number, one on several by its own address.
fn sas(end_device: &Path) -> Option<String> {
    let of_device = |name| class_attribute(end_device, "sas_device", name);
    let port = end_device.parent()?;
    if class_attribute(port, "sas_port", "num_phys")? != "1" {
        return of_device("sas_address");
    }
    let lane = of_device("phy_identifier")?;
    Some(
        match class_attribute(port.parent()?, "sas_device", "sas_address") {
            Some(expander) => format!("exp{expander}-phy{lane}"),
            None => format!("phy{lane}"),
        },
    )
}

/// The port, and the disk at it: behind a port multiplier there are several, and on old cables two.
fn ata(device: &Path, address: [u64; 4]) -> Option<String> {
    let [_, channel, target, _] = address;
    let port = old_ata(device, address)?;
    Some(match channel {
        0 => format!("{port}.{target}"),
        _ => format!("{port}.{channel}.0"),
    })
}

/// The port alone, as older versions of systemd have it.
fn old_ata(device: &Path, _: [u64; 4]) -> Option<String> {
    let port = class_attribute(above_called(device, "ata")?, "ata_port", "port_no")?;
    Some(format!("ata-{port}"))
}

/// The address, with the host's number counted from the first one of the same controller.
fn parallel_scsi(device: &Path, [host, channel, target, unit]: [u64; 4]) -> Option<String> {
    let controller = above_called(device, "host")?.parent()?;
    let hosts = fs::read_dir(controller).ok()?.flatten();
    let first = hosts
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("host")?.parse().ok())
        .min()
        .unwrap_or(host);
    Some(format!("scsi-{}:{channel}:{target}:{unit}", host - first))
}

/// What a transport's class says of a device: the class has a directory in the device's, and that one by its
/// name.
fn class_attribute(device: &Path, class: &str, name: &str) -> Option<String> {
    attribute(&device.join(class).join(device.file_name()?).join(name))
}

/// The nearest directory above whose name is `prefix` and then a number.
pub fn above_called<'a>(device: &'a Path, prefix: &str) -> Option<&'a Path> {
    device.ancestors().find(|directory| {
        let rest = directory
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The names of the disk `block`, from directories `/`-joined, each with its subsystem where it has one,
    /// and attributes.
    fn names_of(block: &[(&str, &str)], attributes: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let mut directory = root.path().to_path_buf();
        for (part, subsystem) in block {
            directory.push(part);
            fs::create_dir_all(&directory).unwrap();
            if !subsystem.is_empty() {
                symlink(format!("../bus/{subsystem}"), directory.join("subsystem")).unwrap();
            }
        }
        for (file, content) in attributes {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        names(&directory)
    }

    const AHCI: [(&str, &str); 2] = [("pci0000:00", ""), ("0000:00:1f.2", "pci")];

    #[test]
    fn nvme_is_called_by_its_name_space() {
        let way = [
            ("pci0000:00", ""),
            ("0000:00:1d.0", "pci"),
            ("0000:3d:00.0", "pci"),
            ("nvme/nvme0", "nvme"),
            ("nvme0n1", "block"),
        ];
        let nsid = "pci0000:00/0000:00:1d.0/0000:3d:00.0/nvme/nvme0/nvme0n1/nsid";
        assert_eq!(names_of(&way, &[(nsid, "1\n")]), ["pci-0000:3d:00.0-nvme-1"]);
    }

    #[test]
    fn nvme_that_can_be_reached_in_two_ways_is_found_through_its_subsystem() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let controller = root.join("0000:3d:00.0/nvme/nvme0");
        let subsystem = root.join("virtual/nvme-subsystem/nvme-subsys0");
        let disk = subsystem.join("nvme0n1");
        fs::create_dir_all(&controller).unwrap();
        fs::create_dir_all(&disk).unwrap();
        symlink("../bus/nvme", controller.join("subsystem")).unwrap();
        symlink("../bus/pci", root.join("0000:3d:00.0/subsystem")).unwrap();
        symlink(&controller, subsystem.join("nvme0")).unwrap();
        fs::write(disk.join("nsid"), "2").unwrap();
        assert_eq!(names(&disk), ["pci-0000:3d:00.0-nvme-2"]);
    }

    #[test]
    fn sata_is_called_by_its_port_in_two_forms() {
        let way = |address: &'static str| {
            [
                &AHCI[..],
                &[
                    ("ata2", ""),
                    ("host1", "scsi"),
                    ("target1:0:0", "scsi"),
                    (address, "scsi"),
                ],
                &[("block/sda", "block")],
            ]
            .concat()
        };
        let port = [("pci0000:00/0000:00:1f.2/ata2/ata_port/ata2/port_no", "2")];
        assert_eq!(
            names_of(&way("1:0:0:0"), &port),
            ["pci-0000:00:1f.2-ata-2.0", "pci-0000:00:1f.2-ata-2"]
        );
        assert_eq!(names_of(&way("1:3:0:0"), &port)[0], "pci-0000:00:1f.2-ata-2.3.0");
        assert!(names_of(&way("1:0:0:0"), &[]).is_empty());
    }

    #[test]
    fn sas_is_called_by_its_lane_or_its_address() {
        let way = [
            ("pci0000:00", ""),
            ("0000:01:00.0", "pci"),
            ("host0", "scsi"),
            ("port-0:0/expander-0:0/port-0:0:4/end_device-0:0:4", ""),
            ("target0:0:4", "scsi"),
            ("0:0:4:0", "scsi"),
            ("block/sdc", "block"),
        ];
        let port = "pci0000:00/0000:01:00.0/host0/port-0:0/expander-0:0/port-0:0:4";
        let expander =
            "pci0000:00/0000:01:00.0/host0/port-0:0/expander-0:0/sas_device/expander-0:0/sas_address";
        let lanes = format!("{port}/sas_port/port-0:0:4/num_phys");
        let device = format!("{port}/end_device-0:0:4/sas_device/end_device-0:0:4");
        let (lane, address) = (
            format!("{device}/phy_identifier"),
            format!("{device}/sas_address"),
        );
        let with_lanes = |count: &'static str| {
            names_of(
                &way,
                &[
                    (expander, "0x500304801f3a003f"),
                    (&lanes, count),
                    (&lane, "4"),
                    (&address, "0x5000c500a1b2c3d5"),
                ],
            )
        };
        assert_eq!(
            with_lanes("1"),
            ["pci-0000:01:00.0-sas-exp0x500304801f3a003f-phy4-lun-0"]
        );
        assert_eq!(with_lanes("2"), ["pci-0000:01:00.0-sas-0x5000c500a1b2c3d5-lun-0"]);
    }

    #[test]
    fn fibre_channel_and_iscsi_are_called_by_their_targets() {
        let fibre = [
            ("pci0000:00", ""),
            ("0000:05:00.0", "pci"),
            ("host2", "scsi"),
            ("rport-2:0-1", ""),
            ("target2:0:0", "scsi"),
            ("2:0:0:16640", "scsi"),
            ("block/sdd", "block"),
        ];
        let port = "pci0000:00/0000:05:00.0/host2/rport-2:0-1/target2:0:0/fc_transport/target2:0:0/port_name";
        assert_eq!(
            names_of(&fibre, &[(port, "0x50060e80164e5b10")]),
            ["pci-0000:05:00.0-fc-0x50060e80164e5b10-lun-0x4100000000000000"]
        );
        let iscsi = [
            ("platform", ""),
            ("host3", "scsi"),
            ("session1", ""),
            ("target3:0:0", "scsi"),
            ("3:0:0:1", "scsi"),
            ("block/sde", "block"),
        ];
        let session = |file: &str| format!("platform/host3/session1/{file}");
        let attributes = [
            (
                session("iscsi_session/session1/targetname"),
                "iqn.2026-11.lab:disk",
            ),
            (
                session("connection1:0/iscsi_connection/connection1:0/persistent_address"),
                "192.0.2.7",
            ),
            (
                session("connection1:0/iscsi_connection/connection1:0/persistent_port"),
                "3260",
            ),
        ];
        let attributes = attributes
            .each_ref()
            .map(|(file, content)| (file.as_str(), *content));
        assert_eq!(
            names_of(&iscsi, &attributes),
            ["ip-192.0.2.7:3260-iscsi-iqn.2026-11.lab:disk-lun-1"]
        );
    }

    #[test]
    fn usb_virtio_and_cards_are_called_by_their_places() {
        let usb = [
            ("pci0000:00", ""),
            ("0000:00:14.0", "pci"),
            ("usb1", "usb"),
            ("1-3", "usb"),
            ("1-3:1.0", "usb"),
            ("host6", "scsi"),
            ("target6:0:0", "scsi"),
            ("6:0:0:0", "scsi"),
            ("block/sdb", "block"),
        ];
        assert_eq!(names_of(&usb, &[]), ["pci-0000:00:14.0-usb-0:3:1.0-scsi-0:0:0:0"]);
        let virtio = [
            ("pci0000:00", ""),
            ("0000:00:04.0", "pci"),
            ("virtio1", "virtio"),
            ("block/vda", "block"),
        ];
        assert_eq!(names_of(&virtio, &[]), ["pci-0000:00:04.0"]);
        let card = [
            ("platform/soc", "platform"),
            ("fe340000.mmc", "platform"),
            ("mmc_host/mmc0", "mmc_host"),
            ("mmc0:0001", "mmc"),
            ("block/mmcblk0", "block"),
        ];
        assert_eq!(names_of(&card, &[]), ["platform-fe340000.mmc"]);
    }

    #[test]
    fn a_way_that_could_be_that_of_another_disk_has_no_name() {
        assert!(names_of(&[("virtual", ""), ("block/loop0", "block")], &[]).is_empty());
        let unknown = [&AHCI[..], &[("host0", "unknown"), ("block/sda", "block")]].concat();
        assert!(names_of(&unknown, &[]).is_empty());
        let no_parent = [("host0", "scsi"), ("0:0:0:0", "scsi"), ("block/sda", "block")];
        assert!(names_of(&no_parent, &[]).is_empty());
    }
}
