//! The whole way of one layer, and the errors of a layer that fails.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::ahead::Stage;
use super::blocks::Archive;
use super::cache::Tee;
use super::chunks::Chunks;
use super::decompress::Decompressor;
use super::diff_id::DiffIdHasher;
use super::directory::{open_root, remove_all};
use super::error::{Context as _, LayerError, Result, malformed};
use super::path::RelativePath;
use super::untar::{Unpacked, untar};
use super::verify::Verifier;
use super::windows::Windows;
use crate::image::oci::Layer;

/// Below this size of a blob, in bytes, threads cost more than they save.
const THREADED_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
pub struct Options {
    /// An empty file for a copy of the blob. A copy that does not fit is given up.
    pub copy: Option<File>,
    /// The largest uncompressed archive, in bytes; `None` for one that only the space at hand bounds.
    pub archive_limit_bytes: Option<u64>,
    /// The memory that its decoder shares with those of other layers.
    pub windows: Windows,
}

/// A layer whose blob and archive are what the image says, in a directory in overlayfs's form.
#[derive(Debug)]
pub struct UnpackedLayer {
    layer: Layer,
    path: PathBuf,
    archive_bytes: u64,
    has_copy: bool,
    unpacked: Unpacked,
}

impl UnpackedLayer {
    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the uncompressed archive, in bytes.
    pub fn archive_bytes(&self) -> u64 {
        self.archive_bytes
    }

    /// How many extended attributes were left out because the file system does not know them.
    pub fn skipped_xattrs(&self) -> u64 {
        self.unpacked.skipped_xattrs
    }

    /// Whether the copy of the blob is complete.
    pub fn has_copy(&self) -> bool {
        self.has_copy
    }

    pub(super) fn implied(&self) -> &[RelativePath] {
        &self.unpacked.implied
    }

    pub(super) fn has_marks(&self) -> bool {
        self.unpacked.has_marks
    }
}

/// Unpacks `layer`, whose blob is `blob`, into `path`, which must not exist; if anything fails, it doesn't
/// afterwards. Must be run by root. Blocks.
pub fn unpack<C: Chunks + Send + 'static>(
    blob: C,
    layer: &Layer,
    path: &Path,
    options: Options,
) -> Result<UnpackedLayer> {
    nix::unistd::mkdir(path, nix::sys::stat::Mode::S_IRWXU)
        .with_context(|| format!("mkdir({path:?}) failed"))?;
    let unpacked = open_root(path).and_then(|root| run(blob, layer, root, path, options));
    if unpacked.is_err() {
        // What failed first is what is told.
        let _ = remove_all(path);
    }
    unpacked
}

fn run<C: Chunks + Send + 'static>(
    blob: C,
    layer: &Layer,
    root: OwnedFd,
    path: &Path,
    options: Options,
) -> Result<UnpackedLayer> {
    let threaded = layer.blob.size() >= THREADED_BYTES;
    let limit = options.archive_limit_bytes.unwrap_or(u64::MAX);
    let start = "starting a thread";
    let verifier = Verifier::new(Tee::new(blob, options.copy), &layer.blob)?;
    let verifier = Stage::start(threaded, "verify", verifier).context(start)?;
    let inflate =
        Stage::start(threaded, "inflate", Decompressor::new(verifier, options.windows)).context(start)?;
    let hasher = DiffIdHasher::new(inflate, &layer.diff_id, limit)?;
    let mut archive = Archive::new(Stage::start(threaded, "diff-id", hasher).context(start)?);

    let untarred = unless_final(untar(&mut archive, root))?;
    let hasher = archive.into_inner().into_inner();
    let (unpacked, inflate) = match untarred {
        Ok(unpacked) => {
            let (archive_bytes, inflate) = hasher.finish();
            (archive_bytes.map(|bytes| (unpacked, bytes)), inflate)
        }
        Err(error) => (Err(error), hasher.into_inner()),
    };
    let unpacked = unless_final(unpacked)?;
    let verifier = inflate.into_inner().into_inner();
    let verifier = verifier.ok_or_else(|| malformed("the decoder could not be started"))?;
    // A damaged blob breaks everything after it, so it is what gets reported.
    let tee = verifier.into_inner().finish()?;
    let unpacked = unpacked.context("its blob is intact, but it cannot be unpacked");
    let (unpacked, archive_bytes) = unpacked?;
    Ok(UnpackedLayer {
        layer: layer.clone(),
        path: path.into(),
        archive_bytes,
        has_copy: tee.is_complete(),
        unpacked,
    })
}

/// Nothing else can be the reason for most errors; for those that are handed on within, a damaged blob can.
fn unless_final<T>(outcome: Result<T>) -> Result<Result<T>> {
    match outcome {
        Err(LayerError::Malformed(_) | LayerError::DiffId { .. }) => Ok(outcome),
        outcome => outcome.map(Ok),
    }
}
