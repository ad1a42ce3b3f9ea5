//! `landfall inspect`: what an image is, without pulling it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;

use crate::console::progress::Progress;
use crate::console::text::{printable, size};
use crate::image::estimate::Estimate;
use crate::image::oci::manifest::{self, Document};
use crate::image::oci::{Image, Platform};
use crate::image::root::{self, Wanted};

/// The label that says that an image is a bootable container.
const BOOTABLE_LABEL: &str = "containers.bootc";

/// What there is to know of an image.
#[derive(Debug, Serialize)]
pub struct Inspection {
    image: String,
    manifest_digest: String,
    media_type: String,
    platform: String,
    /// The platforms that the name stands for, if it is that of an index.
    platforms: Vec<String>,
    created: Option<String>,
    bootable: bool,
    compressed_bytes: u64,
    #[serde(flatten)]
    unpacked: Estimate,
    labels: BTreeMap<String, String>,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
struct Layer {
    digest: String,
    diff_id: String,
    media_type: String,
    compressed_bytes: u64,
}

/// Finds the image, and tells of it.
pub async fn inspect(wanted: &Wanted, progress: &Progress) -> Result<Inspection> {
    let found = root::find_to_inspect(wanted, progress).await?;
    let unpacked = found.estimate(progress).await;
    let document = found.source.document(&found.selector).await?;
    let platforms = match manifest::parse(&document.bytes, document.content_type.as_deref())? {
        Document::Index(index) => manifest::platforms(&index),
        Document::Manifest(_) => Vec::new(),
    };
    Inspection::of(&found.image, unpacked, &platforms)
}

impl Inspection {
    fn of(image: &Image, unpacked: Estimate, platforms: &[Platform]) -> Result<Self> {
        let configuration =
            ImageConfiguration::from_reader(image.config.as_slice()).context("reading the image config")?;
        let config = configuration.config().clone().unwrap_or_default();
        let labels = BTreeMap::from_iter(config.labels().clone().unwrap_or_default());
        Ok(Self {
            image: image.reference.to_string(),
            manifest_digest: image.digest.to_string(),
            media_type: image.manifest_media_type.clone(),
            platform: image.platform.to_string(),
            platforms: platforms.iter().map(ToString::to_string).collect(),
            created: configuration.created().clone(),
            bootable: labels.get(BOOTABLE_LABEL).is_some_and(|value| value == "1"),
            compressed_bytes: image.compressed_bytes(),
            unpacked,
            labels,
            layers: layers(image),
        })
    }
}

fn layers(image: &Image) -> Vec<Layer> {
    let layer = |layer: &crate::image::oci::Layer| Layer {
        digest: layer.blob.digest().to_string(),
        diff_id: layer.diff_id.to_string(),
        media_type: layer.blob.media_type().to_string(),
        compressed_bytes: layer.blob.size(),
    };
    image.layers.iter().map(layer).collect()
}

impl fmt::Display for Inspection {
    /// Text from the image is untrusted.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "image       {} ({})", self.image, printable(&self.platform))?;
        writeln!(out, "digest      {}", self.manifest_digest)?;
        if !self.platforms.is_empty() {
            writeln!(out, "platforms   {}", printable(&self.platforms.join(", ")))?;
        }
        if let Some(created) = &self.created {
            writeln!(out, "created     {}", printable(created))?;
        }
        let bootable = if self.bootable { "yes" } else { "not stated" };
        writeln!(out, "bootable    {bootable} (label {BOOTABLE_LABEL})")?;
        let (sizes, _) = self.unpacked.beside(self.compressed_bytes);
        writeln!(out, "size        {sizes}")?;
        for (name, value) in &self.labels {
            writeln!(out, "label       {}={}", printable(name), printable(value))?;
        }
        for layer in &self.layers {
            let (bytes, media_type) = (size(layer.compressed_bytes), printable(&layer.media_type));
            writeln!(out, "layer       {} {bytes:>10}  {media_type}", layer.digest)?;
        }
        Ok(())
    }
}
