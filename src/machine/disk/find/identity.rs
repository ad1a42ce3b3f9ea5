//! What the manufacturer calls a disk, from sysfs: each driver keeps that elsewhere.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::sysfs::attribute;

/// What tells one disk from another, as far as sysfs says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub serial: Option<String>,
    /// The world-wide name, e.g. `naa.5000c500…` or `eui.…`.
    pub wwn: Option<String>,
}

impl Identity {
    /// Reads a disk's directory in sysfs; each driver keeps these things elsewhere.
    pub(in crate::machine::disk) fn read(directory: &Path) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| attribute(&directory.join(name)));
        Self {
            model: ata_model(&directory.join("device/vpd_pg89"))
                .or_else(|| first(&["device/model", "device/name"])),
            vendor: first(&["device/vendor"]),
            serial: first(&["serial", "device/serial"])
                .or_else(|| vpd_serial(&directory.join("device/vpd_pg80"))),
            wwn: Self::wwn(directory),
        }
    }

    /// The world-wide name alone.
    pub(in crate::machine::disk) fn wwn(directory: &Path) -> Option<String> {
        attribute(&directory.join("wwid")).or_else(|| attribute(&directory.join("device/wwid")))
    }

    /// Model and serial number in one, as udev has them for NVMe and ATA (`ID_SERIAL`); `directory` is the
    /// disk's in sysfs.
    pub(in crate::machine::disk) fn long_serials(&self, directory: &Path) -> Vec<String> {
        let (Some(model), Some(serial)) = (&self.model, &self.serial) else {
            return Vec::new();
        };
        if let Some(namespace) = attribute(&directory.join("nsid")) {
            let serial = format!("{model}_{serial}").replace(' ', "_");
            // Newer versions of udev add the name space.
            vec![format!("{serial}_{namespace}"), serial]
        } else if self.vendor.as_deref() == Some("ATA") {
            let words: Vec<&str> = model.split_whitespace().collect();
            vec![format!("{}_{serial}", words.join("_"))]
        } else {
            Vec::new()
        }
    }
}

/// A SCSI disk's "unit serial number" page (SPC-4, 7.8.18): four bytes of header, then text.
fn vpd_serial(page: &Path) -> Option<String> {
    let bytes = fs::read(page).ok()?;
    let text = bytes.get(4..)?;
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let text = String::from_utf8_lossy(&text[..text.len().min(length)]);
    let text = text.trim_matches(|each: char| each.is_whitespace() || each == '\0');
    (!text.is_empty()).then(|| text.to_string())
}

/// An ATA disk's model, from its "ATA information" page (SAT-3, 12.4.2): SCSI's own field cuts it off after
/// 16 letters.
///
/// The page holds the IDENTIFY data from byte 60 on, in words of two bytes each with the second letter first;
/// the model is in the words 27 to 46.
fn ata_model(page: &Path) -> Option<String> {
    let bytes = fs::read(page).ok()?;
    let words = bytes.get(60 + 2 * 27..60 + 2 * 47)?;
    let letters: Vec<u8> = words
        .chunks_exact(2)
        .flat_map(|word| [word[1], word[0]])
        .collect();
    let model = String::from_utf8_lossy(&letters).trim().to_string();
    (!model.is_empty()).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::sysfs;

    type Files<'a> = &'a [(&'a str, &'a [u8])];

    #[test]
    fn identity_is_found_wherever_the_driver_keeps_it() {
        let text = |text: &str| Some(text.to_string());
        let cases: [(Files<'_>, Identity); 4] = [
            (&[], Identity::default()),
            (
                &[
                    ("device/model", b"SAMSUNG MZ  \n"),
                    ("device/serial", b"S123 \n"),
                    ("wwid", b"eui.0025\n"),
                ],
                Identity {
                    model: text("SAMSUNG MZ"),
                    serial: text("S123"),
                    wwn: text("eui.0025"),
                    vendor: None,
                },
            ),
            (
                &[
                    ("device/model", b"PERC"),
                    ("device/vendor", b"DELL    "),
                    ("device/wwid", b"naa.5000"),
                    ("device/vpd_pg80", b"\0\x80\0\x06 AB12\0garbage"),
                ],
                Identity {
                    model: text("PERC"),
                    vendor: text("DELL"),
                    serial: text("AB12"),
                    wwn: text("naa.5000"),
                },
            ),
            (
                &[("serial", b"virtio-serial")],
                Identity {
                    serial: text("virtio-serial"),
                    ..Identity::default()
                },
            ),
        ];
        for (files, expected) in cases {
            assert_eq!(Identity::read(sysfs(files).path()), expected);
        }
    }

    #[test]
    fn the_model_of_an_ata_disk_is_whole() {
        let mut page = vec![0; 572];
        for (index, letter) in format!("{:40}", "Samsung SSD 870 EVO 500GB").bytes().enumerate() {
            page[114 + (index ^ 1)] = letter;
        }
        let files: Files<'_> = &[("device/vpd_pg89", &page), ("device/model", b"Samsung SSD 870")];
        assert_eq!(
            Identity::read(sysfs(files).path()).model.as_deref(),
            Some("Samsung SSD 870 EVO 500GB")
        );
        let files: Files<'_> = &[
            ("device/vpd_pg89", &page[..150]),
            ("device/model", b"Samsung SSD 870"),
        ];
        assert_eq!(
            Identity::read(sysfs(files).path()).model.as_deref(),
            Some("Samsung SSD 870")
        );
    }

    #[test]
    fn a_serial_page_that_is_cut_off_is_no_serial() {
        for page in [&b""[..], b"\0\x80\0", b"\0\x80\0\x04", b"\0\x80\0\0AB"] {
            assert_eq!(
                Identity::read(sysfs(&[("device/vpd_pg80", page)]).path()).serial,
                None
            );
        }
    }
}
