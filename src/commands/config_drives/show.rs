//! `landfall config-drive show`: the files of a config drive. What may be secret is shown only on request.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config_drive::{ConfigDrive, MAX_BYTES};
use crate::console::text::{printable, size};
use crate::machine::disk::chosen::Contents;
use crate::machine::disk::table::{Geometry, MIB};
use crate::machine::filesystem::NamedFile;
use crate::sys::block::{self, Region};

/// What the keys of passwords and the like have in them, in small letters: `admin_pass`, `adminPass`,
/// `random_seed`, and whatever people call theirs.
const SECRET_WORDS: [&str; 7] = [
    "pass",
    "secret",
    "seed",
    "token",
    "private",
    "credential",
    "api_key",
];

/// Lists the files of a config drive.
pub fn show(place: &Path, contents: bool, secrets: bool, out: &mut (impl Write + ?Sized)) -> Result<()> {
    let (drive, place) = open(place)?;
    let (label, kind, bytes) = (drive.label(), drive.kind(), size(drive.size_bytes()));
    writeln!(out, "{label}: {kind}, {bytes}, {place}")?;
    let files = drive.files()?;
    for file in &files {
        writeln!(out, "{:>10}  {}", file.content.len(), printable(&file.path))?;
    }
    if contents {
        files.iter().try_for_each(|file| print(file, secrets, out))?;
    }
    Ok(())
}

fn print(file: &NamedFile, secrets: bool, out: &mut (impl Write + ?Sized)) -> Result<()> {
    writeln!(out, "\n{}:", printable(&file.path))?;
    let hidden = || Zeroizing::new("(hidden: --secrets shows it)".into());
    let text = visible(file, secrets).unwrap_or_else(hidden);
    for line in text.lines() {
        writeln!(out, "  {}", printable(line))?;
    }
    Ok(())
}

/// The text of a file as far as it is no secret. In unknown files, nothing is known to be harmless.
fn visible(file: &NamedFile, secrets: bool) -> Option<Zeroizing<String>> {
    if secrets {
        let text = String::from_utf8_lossy(&file.content);
        return Some(Zeroizing::new(text.into_owned()));
    }
    let name = file.path.rsplit('/').next().unwrap_or_default();
    if !matches!(name, "meta_data.json" | "network_data.json") {
        return None;
    }
    let mut json: Value = serde_json::from_slice(&file.content).ok()?;
    hide_secrets(&mut json);
    serde_json::to_string_pretty(&json).ok().map(Zeroizing::new)
}

fn hide_secrets(json: &mut Value) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                let key = key.to_lowercase();
                if SECRET_WORDS.iter().any(|word| key.contains(word)) {
                    *value = "(hidden)".into();
                } else {
                    hide_secrets(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

/// The config drive at `place`, and where exactly it is.
fn open(place: &Path) -> Result<(ConfigDrive, String)> {
    let shown = place.display();
    let (drive, partition) = find(place).with_context(|| format!("config drive {shown}"))?;
    let partition = partition.map(|number| format!("on partition {number} of {shown}"));
    Ok((drive, partition.unwrap_or_else(|| format!("in {shown}"))))
}

fn find(place: &Path) -> Result<(ConfigDrive, Option<u32>)> {
    let mut file = File::open(place)?;
    let is_device = file.metadata()?.file_type().is_block_device();
    let size_bytes = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let geometries = if is_device {
        vec![block::limits(&file)?.into()]
    } else {
        [512, 4096]
            .map(|sector_bytes| Geometry::plain(size_bytes, sector_bytes))
            .into()
    };
    for geometry in geometries {
        if let Some((number, start, length)) = in_partition(&file, geometry)? {
            return Ok((
                ConfigDrive::read(Region::new(&file, start, length))?,
                Some(number),
            ));
        }
    }
    // A disk or a partition continues after the file system.
    let limit = if is_device { MAX_BYTES } else { u64::MAX };
    let drive = ConfigDrive::read(Region::new(&file, 0, size_bytes.min(limit)))?;
    Ok((drive, None))
}

/// The number, start and length of the partition that is a config drive.
fn in_partition(file: &File, geometry: Geometry) -> Result<Option<(u32, u64, u64)>> {
    // Less than that is no disk; a config drive's image may end with what looks like a table.
    if geometry.size_bytes < MIB {
        return Ok(None);
    }
    let contents = Contents::read(&mut Region::new(file, 0, geometry.size_bytes), geometry)?;
    let found = contents.config_drive(&geometry);
    Ok(found.map(|(number, start, length)| (number, start, length.min(MAX_BYTES))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"meta_data": {"uuid": "u-1", "hostname": "web", "admin_pass": "hunter2",
        "public_keys": {"me": "ssh-ed25519 AAAA"}, "nested": [{"RootPassword": "hunter3", "api-token": "hunter6"}]},
        "user_data": "hunter4", "vendor_data": {"key": "hunter5"}}"#;

    fn shown(contents: bool, secrets: bool) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), JSON).unwrap();
        let mut out = Vec::new();
        show(file.path(), contents, secrets, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secrets_are_shown_to_those_alone_who_ask() {
        let list = shown(false, false);
        assert!(list.starts_with("config-2: ISO 9660, "), "{list}");
        assert!(list.contains("  openstack/latest/user_data\n"), "{list}");
        assert!(!list.contains("hunter") && !list.contains("web"), "{list}");
        let contents = shown(true, false);
        assert!(contents.contains("\"hostname\": \"web\""), "{contents}");
        assert!(contents.contains("\"admin_pass\": \"(hidden)\""), "{contents}");
        assert!(contents.contains("ssh-ed25519"), "{contents}");
        assert!(!contents.contains("hunter"), "{contents}");
        let all = shown(true, true);
        for secret in ["hunter2", "hunter3", "hunter4", "hunter5", "hunter6"] {
            assert!(all.contains(secret), "{secret} is not in {all}");
        }
    }
}
