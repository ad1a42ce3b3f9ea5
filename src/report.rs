//! What was done, as JSON: for the operator's records, and for programs that start Landfall. Nothing in it is secret.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::config_drive::Written;
use crate::disk::TableReport;
use crate::firmware::BootOrder;
use crate::meter::Cost;
use crate::oci::Image;
use crate::text;
use crate::verify::Check;

/// The number of this format; it grows when a field changes its meaning or goes away.
pub(crate) const FORMAT: u32 = 1;

/// What became of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Nothing was written.
    Untouched,
    /// Something was written, and nothing is known to be whole: it may even boot.
    Changed,
    /// Something was written; its partition table is cleared, so that it can't boot.
    Cleared,
    /// Everything was written and verified.
    Installed,
}

impl DiskState {
    /// What a person is told of the disk when something failed.
    pub fn after_failure(self) -> &'static str {
        match self {
            Self::Untouched => "the disk was not touched",
            Self::Changed => "the disk was changed, and what is on it is not complete",
            Self::Cleared => "the disk was changed; its partition table is cleared, so that it can't boot",
            Self::Installed => "the disk is installed and verified",
        }
    }
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Landfall's version.
    pub landfall_version: &'static str,
    /// Whether the installation succeeded.
    pub success: bool,
    /// Why not, if it did not.
    pub error: Option<String>,
    /// What became of the disk.
    pub disk_state: DiskState,
    /// The image, once it is known.
    pub image: Option<ImageReport>,
    /// The image's bootc, once it is known.
    pub bootc: Option<BootcReport>,
    /// The disk with its partition table, once it is installed.
    pub disk: Option<TableReport>,
    /// What was checked on the disk beyond that.
    pub checks: Vec<Check>,
    /// The config drive, once it is written.
    pub config_drive: Option<Written>,
    /// The firmware's boot order, if it was to be put right.
    pub boot_order: Option<BootOrder>,
    /// What each phase cost.
    pub phases: Vec<Cost>,
}

/// What was installed.
#[derive(Debug, Serialize)]
pub struct ImageReport {
    /// The name that was asked for.
    pub reference: String,
    /// The manifest's digest.
    pub manifest_digest: String,
    /// The platform.
    pub platform: String,
    /// The compressed size of all layers, in bytes.
    pub compressed_bytes: u64,
    /// The layers, from the bottom.
    pub layers: Vec<LayerReport>,
}

/// A layer of it.
#[derive(Debug, Serialize)]
pub struct LayerReport {
    /// The blob's digest.
    pub digest: String,
    /// The uncompressed archive's digest.
    pub diff_id: String,
    /// The blob's size, in bytes.
    pub compressed_bytes: u64,
}

/// How the image's bootc was run.
#[derive(Debug, Default, Serialize)]
pub struct BootcReport {
    /// Its version.
    pub version: String,
    /// Its command line.
    pub command: Vec<String>,
    /// How it ended.
    pub exit_status: Option<String>,
    /// The lines that it printed; of very many, the last ones.
    pub output: Vec<String>,
}

impl Report {
    /// The report of an installation that has done nothing yet.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            landfall_version: env!("CARGO_PKG_VERSION"),
            success: false,
            error: None,
            disk_state: DiskState::Untouched,
            image: None,
            bootc: None,
            disk: None,
            checks: Vec::new(),
            config_drive: None,
            boot_order: None,
            phases: Vec::new(),
        }
    }

    /// Writes the report to `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = text::json(self)?;
        std::fs::write(path, text).with_context(|| format!("writing the report to {}", path.display()))
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&Image> for ImageReport {
    fn from(image: &Image) -> Self {
        let layers = image.layers.iter().map(|layer| LayerReport {
            digest: layer.blob.digest().to_string(),
            diff_id: layer.diff_id.to_string(),
            compressed_bytes: layer.blob.size(),
        });
        Self {
            reference: image.reference.to_string(),
            manifest_digest: image.digest.to_string(),
            platform: image.platform.to_string(),
            compressed_bytes: image.compressed_bytes(),
            layers: layers.collect(),
        }
    }
}
