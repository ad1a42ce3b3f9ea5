//! What connects a disk, by the names that `lsblk` has for it (util-linux, `lsblk.c`), from sysfs.

use std::fs;
use std::path::Path;

use super::path_id::above_called;
use super::sysfs::attribute;

/// What connects the disk `name` whose directory in sysfs, without links in its path, is `directory`.
pub fn transport(name: &str, directory: &Path) -> Option<&'static str> {
    if let Some(host) = above_called(directory, "host") {
        return scsi(directory, host);
    }
    let by_name = [("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc")];
    by_name
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, transport)| transport)
}

/// What connects a SCSI host, which most of the kernel's disks belong to.
fn scsi(disk: &Path, host: &Path) -> Option<&'static str> {
    let number = host.file_name()?;
    let class = |name: &str| host.join(name).join(number);
    let device = |name: &str| disk.join("device").join(name);
    let is = |kind: &str| class(&format!("{kind}_host")).exists();
    if is("spi") {
        Some("spi")
    } else if is("fc") {
        let port = attribute(&class("fc_host").join("symbolic_name"))?;
        Some(if port.contains(" over ") { "fcoe" } else { "fc" })
    } else if is("sas") || fs::exists(device("sas_device")).unwrap_or(false) {
        Some("sas")
    } else if fs::exists(device("ieee1394_id")).unwrap_or(false) {
        Some("sbp")
    } else if is("iscsi") {
        Some("iscsi")
    } else if above_called(host, "usb").is_some() {
        Some("usb")
    } else {
        let driver = attribute(&class("scsi_host").join("proc_name"))?;
        match driver.as_str() {
            sata if sata.starts_with("ahci") || sata.starts_with("sata") => Some("sata"),
            ata if ata.contains("ata") => Some("ata"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::sysfs;

    #[test]
    fn transports_are_those_of_lsblk() {
        const DISK: &str = "target0:0:0/0:0:0:0/block/sda";
        let scsi = |above: &str, file: &str, content: &str| {
            let directory = sysfs(&[
                (&format!("{above}/host3/{DISK}/size") as &str, ""),
                (&format!("{above}/host3/{file}"), content),
            ]);
            transport("sda", &directory.path().join(format!("{above}/host3/{DISK}")))
        };
        for (above, file, content, expected) in [
            ("pci/ata4", "scsi_host/host3/proc_name", "ahci", Some("sata")),
            ("pci/ata4", "scsi_host/host3/proc_name", "sata_mv", Some("sata")),
            // QEMU's PC, and real ones whose firmware says "IDE".
            ("pci/ata4", "scsi_host/host3/proc_name", "ata_piix", Some("ata")),
            ("pci", "scsi_host/host3/proc_name", "megaraid_sas", None),
            ("pci", "nothing", "", None),
            ("pci/usb1/1-2", "scsi_host/host3/proc_name", "uas", Some("usb")),
            ("pci", "sas_host/host3/x", "", Some("sas")),
            (
                "pci",
                "target0:0:0/0:0:0:0/block/sda/device/sas_device",
                "",
                Some("sas"),
            ),
            ("pci", "spi_host/host3/x", "", Some("spi")),
            ("session1", "iscsi_host/host3/x", "", Some("iscsi")),
            ("pci", "fc_host/host3/symbolic_name", "QLE2562 FW:v8", Some("fc")),
            (
                "pci",
                "fc_host/host3/symbolic_name",
                "fcoe v0.1 over eth1",
                Some("fcoe"),
            ),
        ] {
            assert_eq!(scsi(above, file, content), expected, "{above} {file} {content}");
        }
        for (name, expected) in [
            ("nvme0n1", Some("nvme")),
            ("vda", Some("virtio")),
            ("mmcblk0", Some("mmc")),
            ("md127", None),
        ] {
            assert_eq!(transport(name, Path::new("/sys/devices/x/block")), expected);
        }
    }
}
