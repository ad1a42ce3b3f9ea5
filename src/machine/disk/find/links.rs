//! The names that udev gives disks, in `/dev/disk/by-path` and `/dev/disk/by-id`, for machines that have no
//! udev.

use std::fs;
use std::path::{Path, PathBuf};

use super::hints::Candidate;
use super::identity::Identity;
use super::path_id;
use super::sysfs::attribute;

const BY_PATH: &str = "/dev/disk/by-path";
const BY_ID: &str = "/dev/disk/by-id";

/// The links in `/dev/disk/by-path` to the disk `name` whose directory in sysfs is `directory`: those that
/// are there, else those that udev would make.
pub fn by_path(name: &str, directory: &Path) -> Vec<String> {
    links(BY_PATH, name, || path_id::names(directory))
}

/// The links in `/dev/disk/by-id` to the same disk, likewise.
pub fn by_id(disk: &Candidate, identity: &Identity, directory: &Path) -> Vec<String> {
    let name = disk.name.trim_start_matches("/dev/");
    links(BY_ID, name, || ids(disk, identity, directory))
}

fn links(directory: &str, name: &str, made_by_udev: impl Fn() -> Vec<String>) -> Vec<String> {
    let node = Path::new("/dev").join(name);
    let mut links: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|link| fs::canonicalize(link).is_ok_and(|target| target == node))
        .collect();
    links.sort();
    if links.is_empty() {
        let names = made_by_udev();
        links = names.iter().map(|name| Path::new(directory).join(name)).collect();
    }
    let text = links.into_iter().map(|link| link.to_string_lossy().into_owned());
    text.collect()
}

/// The names in `/dev/disk/by-id`, as the rules of udev (`60-persistent-storage.rules`) make them from what a
/// disk says of itself. Not those of USB disks, nor those of SCSI disks without a WWN.
fn ids(disk: &Candidate, identity: &Identity, directory: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    for name in disk.wwn.iter().chain(&disk.wwn_with_extension) {
        match name.starts_with("0x") {
            true => ids.push(format!("wwn-{name}")),
            false => ids.push(format!("nvme-{name}")),
        }
    }
    ids.extend(
        disk.wwn_with_extension
            .iter()
            .map(|name| name.replacen("0x", "scsi-3", 1)),
    );
    let name = disk.name.trim_start_matches("/dev/");
    let bus = if name.starts_with("nvme") { "nvme" } else { "ata" };
    let serials = identity.long_serials(directory).into_iter();
    ids.extend(serials.map(|serial| format!("{bus}-{serial}")));
    if let (true, Some(serial)) = (name.starts_with("vd"), &identity.serial) {
        ids.push(format!("virtio-{serial}"));
    }
    let fact = |file: &str| attribute(&directory.join(file));
    if let (true, Some(name), Some(serial)) = (
        name.starts_with("mmcblk"),
        fact("device/name"),
        fact("device/serial"),
    ) {
        ids.push(format!("mmc-{name}_{serial}"));
    }
    ids.extend(fact("dm/name").map(|name| format!("dm-name-{name}")));
    ids.extend(fact("dm/uuid").map(|uuid| format!("dm-uuid-{uuid}")));
    let mut ids: Vec<String> = ids.iter().map(|id| id.replace(' ', "_")).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::sysfs;

    fn ids_of(name: &str, vendor: Option<&str>, wwn: &[&str], model: &str, serial: &str) -> Vec<String> {
        let disk = Candidate {
            name: name.into(),
            wwn: wwn.iter().map(ToString::to_string).collect(),
            wwn_with_extension: wwn
                .last()
                .filter(|name| name.starts_with("0x"))
                .map(ToString::to_string),
            ..Candidate::default()
        };
        let identity = Identity {
            model: Some(model.into()),
            vendor: vendor.map(str::to_string),
            serial: Some(serial.into()),
            ..Identity::default()
        };
        let facts = match name {
            "/dev/nvme0n1" => sysfs(&[("nsid", "1\n")]),
            "/dev/mmcblk0" => sysfs(&[("device/name", "DG4016\n"), ("device/serial", "0x1a2b3c4d\n")]),
            "/dev/dm-0" => sysfs(&[("dm/name", "mpatha\n"), ("dm/uuid", "mpath-3600a\n")]),
            _ => sysfs(&[("ro", "0\n")]),
        };
        ids(&disk, &identity, facts.path())
    }

    #[test]
    fn ids_are_those_of_real_machines() {
        let nvme = ids_of(
            "/dev/nvme0n1",
            None,
            &["eui.0025385991b1ae4c"],
            "Samsung SSD 970 PRO 512GB",
            "S463NF0K915218L",
        );
        assert_eq!(
            nvme,
            [
                "nvme-Samsung_SSD_970_PRO_512GB_S463NF0K915218L",
                "nvme-Samsung_SSD_970_PRO_512GB_S463NF0K915218L_1",
                "nvme-eui.0025385991b1ae4c"
            ]
        );
        let ata = ids_of(
            "/dev/sda",
            Some("ATA"),
            &["0x50014ee2b7a8f3c1"],
            "WDC WD40EFRX-68N32N0",
            "WD-WCC7K0AAAAAA",
        );
        assert!(ata.contains(&"wwn-0x50014ee2b7a8f3c1".into()));
        assert!(ata.contains(&"ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0AAAAAA".into()));
        let sas = ids_of(
            "/dev/sda",
            Some("SEAGATE"),
            &["0x5000c500a1b2c3d4"],
            "ST4000NM0023",
            "Z1Z0",
        );
        assert!(sas.contains(&"scsi-35000c500a1b2c3d4".into()));
        assert!(!sas.iter().any(|id| id.starts_with("ata-")));
        assert_eq!(
            ids_of("/dev/vda", Some("0x1af4"), &[], "", "disk-1"),
            ["virtio-disk-1"]
        );
        let card = ids_of("/dev/mmcblk0", None, &[], "", "");
        assert!(card.contains(&"mmc-DG4016_0x1a2b3c4d".into()), "{card:?}");
        let multipath = ids_of("/dev/dm-0", None, &[], "", "");
        for name in ["dm-name-mpatha", "dm-uuid-mpath-3600a"] {
            assert!(multipath.contains(&name.into()), "{multipath:?}");
        }
    }
}
