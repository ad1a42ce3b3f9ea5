//! What was done, as JSON: for the operator's records, and for programs that start Landfall. Nothing in it is
//! secret as far as Landfall knows; what the image printed is in it, too.

pub mod meter;

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use crate::config_drive::Written;
use crate::console::text;
use crate::image::oci::Image;
use crate::image::source::url;
use crate::machine::disk::installed::TableReport;
use crate::machine::firmware::{BootOrder, PutBack};
use crate::report::meter::Cost;
use crate::verify::Check;

/// The number of this format; it grows when a field changes its meaning or goes away.
const FORMAT: u32 = 1;

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
    /// Everything but the config drive was written, and it is unknown whether it is whole: the disk could not
    /// be read.
    Unverified,
    /// Everything was written and verified.
    Installed,
}

impl DiskState {
    /// What a person is told of the disk when something failed.
    pub fn after_failure(self) -> &'static str {
        match self {
            Self::Untouched => "the disk was not touched",
            Self::Changed => "the disk was changed and is incomplete",
            Self::Cleared => "the disk was changed; its partition table is cleared, so that it cannot boot",
            Self::Unverified => {
                "the disk was changed; it could not be checked, so it is kept as it is, without a config \
                 drive"
            }
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
    /// What the image had changed in the firmware, if it did.
    pub firmware: Option<PutBack>,
    /// The firmware's boot order, if it was to be put right.
    pub boot_order: Option<BootOrder>,
    /// What each phase cost.
    pub phases: Vec<Cost>,
}

#[derive(Debug, Serialize)]
pub struct ImageReport {
    /// The name that was asked for.
    pub reference: String,
    pub manifest_digest: String,
    pub platform: String,
    pub compressed_bytes: u64,
    /// The layers, from the bottom.
    pub layers: Vec<LayerReport>,
}

#[derive(Debug, Serialize)]
pub struct LayerReport {
    pub digest: String,
    pub diff_id: String,
    pub compressed_bytes: u64,
}

/// How the image's bootc was run.
#[derive(Debug, Default, Serialize)]
pub struct BootcReport {
    pub version: String,
    pub command: Vec<String>,
    pub exit_status: Option<String>,
    /// What it tried while it installed and was not allowed to.
    pub refused: Vec<String>,
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
            firmware: None,
            boot_order: None,
            phases: Vec::new(),
        }
    }

    /// An error when a report could not be written to `path` later. Nothing is left there that was not.
    pub fn check_place(path: &Path) -> Result<()> {
        check_place(path).with_context(|| format!("--report {}", path.display()))
    }

    /// Writes the report to `path`: a file that only its owner may read, or whatever is there already.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = text::json(self)?;
        open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("writing the report to {}", path.display()))
    }
}

fn open(path: &Path) -> io::Result<File> {
    const OWNER_ONLY: u32 = 0o600;
    let file = File::options()
        .write(true)
        .create(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    // Neither a pipe, nor what a link such as /dev/stdout leads to.
    if fs::symlink_metadata(path)?.is_file() {
        file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    }
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

fn check_place(path: &Path) -> Result<()> {
    if path.to_str().and_then(url::parse).is_some() {
        bail!("it takes a file, not a URL: write it to a file, and send that");
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => bail!("it is a directory: name a file in it"),
        Ok(_) => access(path, AccessFlags::W_OK).context("it cannot be written to"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let usable = access(directory, AccessFlags::W_OK | AccessFlags::X_OK);
            usable.with_context(|| format!("no file can be created in {}", directory.display()))
        }
        Err(error) => Err(error.into()),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_alone_and_what_a_link_leads_to_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("old"), "x".repeat(100_000)).unwrap();
        fs::write(at("target"), "x".repeat(100_000)).unwrap();
        for name in ["old", "target"] {
            fs::set_permissions(at(name), Permissions::from_mode(0o644)).unwrap();
        }
        symlink("target", at("link")).unwrap();
        for (name, mode) in [("new", 0o600), ("old", 0o600), ("link", 0o644)] {
            Report::new().write(&at(name)).unwrap();
            let found = fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode, "{name}");
            let text = fs::read(at(name)).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text).unwrap();
        }
        Report::new().write(Path::new("/dev/null")).unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    }

    #[test]
    fn a_pipe_is_written_to() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        Report::new().write(Path::new(&path)).unwrap();
        drop(writer);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert!(text.contains("disk_state"), "{text}");
    }
}
