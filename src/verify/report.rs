//! A disk against the report of its installation.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::Outcome;
use crate::console::text::printable;
use crate::image::oci::digest::Hasher;
use crate::machine::disk::installed::{BootPath, Parts};
use crate::machine::disk::table::Extent;
use crate::machine::filesystem::Signature;
use crate::report::FORMAT;

/// How an installation ended, which every report says.
#[derive(Debug, Deserialize)]
struct Ending {
    format: u32,
    landfall_version: String,
    success: bool,
}

/// What of a report is compared.
#[derive(Debug, Deserialize)]
pub(super) struct Recorded {
    disk: RecordedDisk,
    image: RecordedImage,
    config_drive: Option<RecordedConfigDrive>,
}

#[derive(Debug, Deserialize)]
struct RecordedDisk {
    disk_guid: Uuid,
    partitions: Vec<RecordedPartition>,
    boot_loader: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct RecordedPartition {
    number: u32,
    name: String,
    type_guid: Uuid,
    uuid: Uuid,
    extent: Extent,
}

#[derive(Debug, Deserialize)]
struct RecordedImage {
    manifest_digest: String,
}

#[derive(Debug, Deserialize)]
struct RecordedConfigDrive {
    digest: String,
    size_bytes: u64,
}

/// Reads the report of an installation.
pub(super) fn read(path: &Path) -> Result<Recorded> {
    let text = fs::read(path).with_context(|| format!("reading the report {}", path.display()))?;
    parse(&text).with_context(|| format!("{} says nothing of an installed disk", path.display()))
}

/// Only an installation that succeeded has something to compare.
fn parse(text: &[u8]) -> Result<Recorded> {
    const NO_REPORT: &str = "give a report that `landfall install --report` wrote";
    let ending: Ending = serde_json::from_slice(text).context(NO_REPORT)?;
    let version = printable(&ending.landfall_version);
    if ending.format != FORMAT {
        bail!(
            "its format is {}, not {FORMAT}: use Landfall {version}, which wrote it",
            ending.format
        );
    }
    if !ending.success {
        bail!("that installation failed; give the report of the one that made the disk");
    }
    serde_json::from_slice(text).context(NO_REPORT)
}

impl Recorded {
    /// The digest of the image's manifest.
    pub(super) fn digest(&self) -> &str {
        &self.image.manifest_digest
    }

    /// How the disk was to boot.
    pub(super) fn boot_path(&self) -> BootPath {
        match self.disk.boot_loader {
            Some(_) => BootPath::Loader,
            None => BootPath::Foreign,
        }
    }
}

/// Whether the partitions are those of the report, sector by sector.
pub(super) fn same_partitions(recorded: &Recorded, parts: &Parts) -> Outcome {
    let disk = &recorded.disk;
    let mut problems = Vec::new();
    if parts.table.disk_guid() != disk.disk_guid {
        problems.push(format!(
            "the disk is {}, not {}",
            parts.table.disk_guid(),
            disk.disk_guid
        ));
    }
    let found: Vec<_> = parts.table.partitions().collect();
    for expected in &disk.partitions {
        let RecordedPartition { number, extent, .. } = expected;
        let name = printable(&expected.name);
        match found.iter().find(|each| each.number == *number) {
            None => problems.push(format!("partition {number} ({name}) is missing")),
            Some(each) if each.extent != *extent => problems.push(format!(
                "partition {number} ({name}) has {} sectors from {}, not {} from {}",
                each.extent.sectors, each.extent.start_lba, extent.sectors, extent.start_lba
            )),
            Some(each) if (each.uuid, each.type_guid) != (expected.uuid, expected.type_guid) => {
                problems.push(format!("partition {number} ({name}) is another one"));
            }
            Some(_) => {}
        }
    }
    let is_new = |number: u32| disk.partitions.iter().all(|each| each.number != number);
    let new = found.iter().filter(|each| is_new(each.number));
    problems.extend(new.map(|each| format!("partition {} ({}) is new", each.number, printable(&each.name))));
    if problems.is_empty() {
        Outcome::Passed(format!("all {} as reported", found.len()))
    } else {
        Outcome::Failed(problems.join("; "))
    }
}

/// Whether the config drive is that of the report, byte by byte.
pub(super) fn same_config_drive(recorded: &Recorded, parts: &Parts) -> Outcome {
    compare_config_drive(recorded, parts).unwrap_or_else(|error| Outcome::NotChecked(format!("{error:#}")))
}

fn compare_config_drive(recorded: &Recorded, parts: &Parts) -> Result<Outcome> {
    let mut labelled = Vec::new();
    for partition in parts.table.partitions() {
        if parts
            .signatures(&partition)?
            .iter()
            .any(Signature::is_config_drive)
        {
            labelled.push(partition);
        }
    }
    Ok(match (&recorded.config_drive, &labelled[..]) {
        (None, []) => Outcome::Passed("none, as reported".into()),
        (None, [found, ..]) => Outcome::Failed(format!("there is one on partition {}", found.number)),
        (Some(_), []) => Outcome::Failed("there is none".into()),
        (Some(_), [one, other, ..]) => Outcome::Failed(format!(
            "there are two, on partitions {} and {}",
            one.number, other.number
        )),
        (Some(expected), [found]) => {
            let mut hasher = Hasher::sha256();
            let mut content = parts.region(found).take(expected.size_bytes);
            let mut buffer = zeroize::Zeroizing::new(vec![0; 1 << 16]);
            loop {
                match content.read(&mut buffer)? {
                    0 => break,
                    read => hasher.update(&buffer[..read]),
                }
            }
            let digest = hasher.finish().to_string();
            if digest == expected.digest {
                Outcome::Passed(digest)
            } else {
                Outcome::Failed(format!("it is {digest}, not {}", printable(&expected.digest)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use serde_json::json;

    #[test]
    fn only_reports_of_installed_disks_are_compared() {
        let problem = |text: &serde_json::Value| {
            let error = parse(text.to_string().as_bytes()).unwrap_err();
            error.to_string()
        };
        let failed = serde_json::to_value(Report::new()).unwrap();
        assert!(problem(&failed).starts_with("that installation failed"));
        let mut later = failed.clone();
        later["format"] = json!(FORMAT + 1);
        assert!(problem(&later).starts_with("its format is 2, not 1: use Landfall"));
        let mut empty = failed.clone();
        empty["success"] = json!(true);
        for no_report in [
            empty,
            json!({}),
            json!([]),
            json!({"success": true, "format": FORMAT}),
        ] {
            assert!(
                problem(&no_report).starts_with("give a report that"),
                "{no_report}"
            );
        }
    }
}
