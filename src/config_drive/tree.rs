//! The files of a config drive: from a directory, from Ironic's JSON, or from another config drive.

use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::Path;

use serde_json::{Map, Value};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use super::build::BuildError;
use super::decode::MAX_BYTES;
use super::secret::Secret;
use crate::filesystem::fat::Volume;
use crate::filesystem::{NamedFile, iso9660};

/// The versions of the metadata that Ironic writes; readers look for either.
const VERSIONS: [&str; 2] = ["2012-08-10", "latest"];
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 10_000;

/// Files, by path. Their contents are wiped when they are no longer needed.
pub(super) struct Tree {
    pub(super) files: Vec<NamedFile>,
}

impl Tree {
    fn new(mut files: Vec<NamedFile>) -> Result<Self, BuildError> {
        // By name and not by byte: what is below a directory comes right behind it.
        files.sort_by(|one, other| one.path.split('/').cmp(other.path.split('/')));
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        match files.iter().find(|file| !file.path.split('/').all(is_name)) {
            Some(file) => Err(BuildError::Name {
                name: file.path.clone(),
            }),
            None if files.windows(2).any(|pair| clash(&pair[0].path, &pair[1].path)) => {
                Err(BuildError::Clash)
            }
            None if files.len() > MAX_FILES => Err(BuildError::TooLarge),
            None => Ok(Self { files }),
        }
    }

    /// The files in and below `directory`.
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
                let path = if prefix.is_empty() {
                    name.to_string()
                } else {
                    format!("{prefix}/{name}")
                };
                // Links are followed: `latest` often is one.
                let metadata = fs::metadata(&entry).map_err(error(&entry))?;
                if metadata.is_dir() {
                    if depth == MAX_DEPTH || pending.len() + files.len() > MAX_FILES {
                        return Err(BuildError::TooLarge);
                    }
                    pending.push((entry, path, depth + 1));
                    continue;
                }
                // A pipe would be waited for, a device might never end.
                if !metadata.is_file() {
                    let unusual = io::Error::other("neither a file nor a directory");
                    return Err(error(&entry)(unusual));
                }
                let mut file = File::open(&entry).map_err(error(&entry))?;
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

    /// The files that Ironic makes of `{"meta_data": …, "user_data": …, "network_data": …, "vendor_data": …}`.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, BuildError> {
        let object: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| BuildError::Json(error.to_string()))?;
        let mut object = Value::Object(object);
        let files = files_of(&mut object);
        wipe(&mut object);
        Self::new(files?)
    }

    /// The files of an ISO 9660 image.
    pub(super) fn from_iso(image: &[u8]) -> Result<Self, BuildError> {
        Self::new(iso9660::read_files(&mut Cursor::new(image), MAX_BYTES)?)
    }

    /// The files of a FAT image.
    pub(super) fn from_fat(image: &[u8]) -> Result<Self, BuildError> {
        Self::new(Volume::open(Cursor::new(image))?.read_files(MAX_BYTES)?)
    }
}

/// Whether two paths, one after the other in their order, are the same, or one of them is a file and a directory.
fn clash(one: &str, other: &str) -> bool {
    other
        .strip_prefix(one)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn files_of(object: &mut Value) -> Result<Vec<NamedFile>, BuildError> {
    const KEYS: [&str; 4] = ["meta_data", "network_data", "user_data", "vendor_data"];
    if let Some(unknown) = object
        .as_object()
        .and_then(|object| object.keys().find(|key| !KEYS.contains(&key.as_str())))
    {
        let unknown = unknown.escape_debug();
        return Err(BuildError::Json(format!(
            "unknown key \"{unknown}\"; there are {}",
            KEYS.join(", ")
        )));
    }
    if object["meta_data"].is_null() {
        object["meta_data"] = Value::Object(Map::new());
    }
    let meta_data = object["meta_data"].as_object_mut();
    let meta_data = meta_data.ok_or_else(|| BuildError::Json("meta_data is not an object".into()))?;
    // Readers know one machine from another by it.
    meta_data
        .entry("uuid")
        .or_insert_with(|| Uuid::new_v4().to_string().into());
    let mut files = Vec::new();
    for version in VERSIONS {
        for (key, name) in [
            ("meta_data", "meta_data.json"),
            ("network_data", "network_data.json"),
            ("vendor_data", "vendor_data2.json"),
        ] {
            if is_given(&object[key]) {
                files.push(file(version, name, serialize(&object[key])));
            }
        }
        match &object["user_data"] {
            Value::String(text) if !text.is_empty() => {
                files.push(file(version, "user_data", text.as_bytes().to_vec()))
            }
            data @ (Value::Object(_) | Value::Array(_)) => {
                files.push(file(version, "user_data", serialize(data)))
            }
            Value::Null | Value::String(_) => {}
            _ => return Err(BuildError::Json("user_data is neither text nor an object".into())),
        }
    }
    Ok(files)
}

fn is_given(value: &Value) -> bool {
    !value.is_null()
}

fn file(version: &str, name: &str, content: Vec<u8>) -> NamedFile {
    NamedFile {
        path: format!("openstack/{version}/{name}"),
        content: Zeroizing::new(content),
    }
}

fn serialize(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Overwrites every text in `value`.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(object) => object.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
