//! The files of a config drive: from a directory, from Ironic's JSON, or from another config drive.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::BuildError;
use super::form::{MAX_BYTES, MAX_DEPTH, MAX_FILES};
use super::secret::Secret;
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::{NamedFile, iso9660};
use crate::sys::regular::open_regular;

/// The versions of the metadata that Ironic writes; readers look for either.
const VERSIONS: [&str; 2] = ["2012-08-10", "latest"];

/// Files, by path. Their contents are wiped when they are no longer needed.
pub(super) struct Tree {
    pub(super) files: Vec<NamedFile>,
}

impl Tree {
    fn new(mut files: Vec<NamedFile>) -> Result<Self, BuildError> {
        // By name and not by byte: what is below a directory comes right after it.
        files.sort_by(|one, other| one.path.split('/').cmp(other.path.split('/')));
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        match files.iter().find(|file| !file.path.split('/').all(is_name)) {
            Some(file) => Err(BuildError::Name {
                name: file.path.clone(),
            }),
            None if files.windows(2).any(|pair| clash(&pair[0].path, &pair[1].path)) => {
                Err(BuildError::Clash)
            }
            None => Ok(Self { files }),
        }
    }

    pub(super) fn from_directory(directory: &Path) -> Result<Self, BuildError> {
        let mut files = Vec::new();
        let mut left = MAX_BYTES;
        let mut pending = vec![(directory.to_path_buf(), String::new(), 0)];
        while let Some((directory, prefix, depth)) = pending.pop() {
            let error = |path: &Path| {
                let path = path.to_path_buf();
                move |error| BuildError::Read { path, error }
            };
            for entry in fs::read_dir(&directory).map_err(error(&directory))? {
                let entry = entry.map_err(error(&directory))?.path();
                let name = entry.file_name().and_then(|name| name.to_str());
                let name = name.ok_or_else(|| BuildError::Name {
                    name: entry.to_string_lossy().into_owned(),
                })?;
                let path = prefix.clone() + name;
                if pending.len() + files.len() >= MAX_FILES {
                    return Err(BuildError::TooMany);
                }
                // Links are followed: `latest` often is one.
                let metadata = fs::metadata(&entry).map_err(error(&entry))?;
                if metadata.is_dir() {
                    if depth == MAX_DEPTH {
                        return Err(BuildError::TooDeep { path: entry });
                    }
                    pending.push((entry, path + "/", depth + 1));
                    continue;
                }
                let mut file = open_regular(&entry).map_err(error(&entry))?;
                let mut content = Secret::with_limit(left);
                if !content.fill(&mut file).map_err(error(&entry))? {
                    return Err(BuildError::TooLarge);
                }
                left -= content.len() as u64;
                let content = content.into_bytes();
                files.push(NamedFile { path, content });
            }
        }
        Self::new(files)
    }

    /// The files that Ironic makes of
    /// `{"meta_data": …, "user_data": …, "network_data": …, "vendor_data": …}`.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, BuildError> {
        let object: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| BuildError::Json(error.to_string()))?;
        Self::new(files_of(object)?)
    }

    pub(super) fn from_iso(image: &[u8]) -> Result<Self, BuildError> {
        Self::new(iso9660::read_files(image, MAX_BYTES)?)
    }

    pub(super) fn from_fat(image: &[u8]) -> Result<Self, BuildError> {
        Self::new(Volume::open(Cursor::new(image))?.read_files(MAX_BYTES)?)
    }
}

/// Whether two paths, one after the other in their order, are the same, or one of them is a file and a
/// directory.
fn clash(one: &str, other: &str) -> bool {
    other
        .strip_prefix(one)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The files, as Ironic and openstacksdk make them of it; what is empty makes none.
fn files_of(mut object: Map<String, Value>) -> Result<Vec<NamedFile>, BuildError> {
    const KEYS: [&str; 4] = ["meta_data", "network_data", "user_data", "vendor_data"];
    if let Some(unknown) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let unknown = unknown.escape_debug();
        return Err(BuildError::Json(format!(
            "unknown key \"{unknown}\"; known keys are {}",
            KEYS.join(", ")
        )));
    }
    let mut part = |key: &str| match object.remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(part)) => Ok(part),
        Some(_) => Err(BuildError::Json(format!("{key} is not an object"))),
    };
    let mut meta_data = part("meta_data")?;
    // Readers know one machine from another by it.
    meta_data
        .entry("uuid")
        .or_insert_with(|| Uuid::new_v4().to_string().into());
    let parts = [
        ("meta_data.json", meta_data),
        ("network_data.json", part("network_data")?),
        ("vendor_data2.json", part("vendor_data")?),
    ];
    let mut contents: Vec<(&str, Vec<u8>)> = parts
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(name, part)| (name, serialize(&part.into())))
        .collect();
    match object.remove("user_data") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => contents.push(("user_data", text.into_bytes())),
        Some(data @ (Value::Object(_) | Value::Array(_))) => contents.push(("user_data", serialize(&data))),
        Some(_) => return Err(BuildError::Json("user_data is neither text nor an object".into())),
    }
    let in_version = |version: &str| {
        let file = |(name, content): &(&str, Vec<u8>)| NamedFile {
            path: format!("openstack/{version}/{name}"),
            content: Zeroizing::new(content.clone()),
        };
        contents.iter().map(file).collect::<Vec<_>>()
    };
    Ok(VERSIONS.into_iter().flat_map(in_version).collect())
}

fn serialize(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
