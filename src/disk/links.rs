//! The names that udev gives disks, in `/dev/disk/by-path` and `/dev/disk/by-id`, for machines that have no udev.

use std::fs;
use std::path::{Path, PathBuf};

use super::discover::{Found, disks};
use super::hints::Candidate;
use super::identity::Identity;
use super::path_id;

const BY_PATH: &str = "/dev/disk/by-path";
const BY_ID: &str = "/dev/disk/by-id";

/// The links in `/dev/disk/by-path` to the disk `name` whose directory in sysfs is `directory`: those that are there, else
/// those that udev would make.
pub fn by_path(name: &str, directory: &Path) -> Vec<String> {
    let node = Path::new("/dev").join(name);
    let mut links: Vec<PathBuf> = fs::read_dir(BY_PATH)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|link| fs::canonicalize(link).is_ok_and(|target| target == node))
        .collect();
    links.sort();
    if links.is_empty() {
        let names = path_id::names(directory);
        links = names.iter().map(|name| Path::new(BY_PATH).join(name)).collect();
    }
    let text = links.into_iter().map(|link| link.to_string_lossy().into_owned());
    text.collect()
}

/// The node of the disk that udev would make `link` lead to; `None` when there is none, or more than one.
pub fn resolve(link: &Path) -> Option<PathBuf> {
    let directory = link.parent()?;
    let wanted = link.to_str()?;
    let leads_to = |found: &Found| match directory.to_str() {
        Some(BY_PATH) => found.disk.by_path.iter().any(|name| name == wanted),
        Some(BY_ID) => ids(&found.disk, Identity::read(&found.sysfs()), &found.sysfs())
            .iter()
            .any(|name| Path::new(BY_ID).join(name) == link),
        _ => false,
    };
    let mut found = disks().ok()?.into_iter().filter(leads_to);
    let (disk, another) = (found.next()?, found.next());
    another.is_none().then(|| disk.disk.name.into())
}

/// The names in `/dev/disk/by-id`, as the rules of udev (`60-persistent-storage.rules`) make them from what a disk says of
/// itself.
fn ids(disk: &Candidate, identity: Identity, directory: &Path) -> Vec<String> {
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
    if let (true, Some(serial)) = (name.starts_with("vd"), identity.serial) {
        ids.push(format!("virtio-{serial}"));
    }
    ids.iter().map(|id| id.replace(' ', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sysfs_fixture::sysfs;

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
        let nvme = sysfs(&[("nsid", "1\n")]);
        let directory = match name.starts_with("/dev/nvme") {
            true => nvme.path(),
            false => Path::new("/nonexistent"),
        };
        ids(&disk, identity, directory)
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
                "nvme-eui.0025385991b1ae4c",
                "nvme-Samsung_SSD_970_PRO_512GB_S463NF0K915218L_1",
                "nvme-Samsung_SSD_970_PRO_512GB_S463NF0K915218L"
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
            assert_eq!(resolve(Path::new(link)), None);
        }
    }
}
