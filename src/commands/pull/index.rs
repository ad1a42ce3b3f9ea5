//! A layout's `oci-layout` and `index.json`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::image::oci::Image;
use crate::image::source::layout::REF_NAME;

/// The content of `oci-layout`.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An `index.json` without images.
pub fn empty() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    })
}

/// `index.json` with `image` in it as `name`; another image that had the name loses it, and all else stays.
pub fn with(mut index: Value, image: &Image, name: &str) -> Result<Value> {
    let version = &index["schemaVersion"];
    ensure!(*version == 2, "index.json has schemaVersion {version}, not 2");
    let manifests = index["manifests"]
        .as_array_mut()
        .context("index.json has no list of manifests")?;
    manifests.retain(|entry| entry["annotations"][REF_NAME] != name);
    manifests.push(json!({
        "mediaType": image.manifest_media_type,
        "digest": image.digest.to_string(),
        "size": image.manifest.len(),
        "annotations": { REF_NAME: name },
    }));
    Ok(index)
}
