//! OCI images made for a test.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::image::{Compression, Entry, Image, Layer, Layout};
//! let base = Layer::new([
//!     Entry::directory("etc"),
//!     Entry::file("etc/motd", "hello\n").mode(0o600).owner(10, 20),
//!     Entry::hardlink("etc/issue", "etc/motd"),
//! ]);
//! let upper = Layer::new([Entry::whiteout("etc/issue")]).compressed(Compression::Zstd);
//! let layout = Layout::create("some/directory".as_ref())?;
//! let digest = layout.add(&Image::new().layer(base).layer(upper), "1.4")?;
//! # Ok(()) }
//! ```
//!
//! A layout is a directory of files, so a test damages an image by damaging files: [`Layout::blob`] names
//! them, [`flip_byte`] and [`truncate`] do it, [`Layout::edit_manifest`] makes a manifest lie and gives it
//! its true digest.

mod digest;
mod layer;
mod layout;

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub use digest::Digest;
pub use layer::{Compression, Entry, Layer};
pub use layout::Layout;

/// Whose media types an image speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavor {
    /// The OCI image specification's.
    #[default]
    Oci,
    /// Docker's, manifest schema 2.
    Docker,
}

impl Flavor {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd | Compression::ZstdLong) => {
                "application/vnd.oci.image.layer.v1.tar+zstd"
            }
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Compression::Zstd | Compression::ZstdLong) => {
                "application/vnd.docker.image.rootfs.diff.tar.zstd"
            }
        }
    }
}

/// An image of some layers for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    layers: Vec<Layer>,
    flavor: Flavor,
    config: Value,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An image of no layers yet, for linux/amd64.
    pub fn new() -> Self {
        let config = json!({ "architecture": "amd64", "os": "linux", "config": {} });
        Self {
            layers: Vec::new(),
            flavor: Flavor::Oci,
            config,
        }
    }

    /// Puts one more layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Puts more layers on top, in this order.
    pub fn layers(mut self, layers: impl IntoIterator<Item = Layer>) -> Self {
        self.layers.extend(layers);
        self
    }

    /// Speaks these media types.
    pub fn flavor(mut self, flavor: Flavor) -> Self {
        self.flavor = flavor;
        self
    }

    /// Is for another architecture: `arm64`.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.config["architecture"] = architecture.into();
        self
    }

    /// Has a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.config["config"]["Labels"][name] = value.into();
        self
    }

    /// Sets a variable (`NAME=value`) in its containers' environment.
    pub fn env(mut self, assignment: &str) -> Self {
        match &mut self.config["config"]["Env"] {
            Value::Array(list) => list.push(assignment.into()),
            unset => *unset = json!([assignment]),
        }
        self
    }

    /// What its platform is, as an index has it.
    fn platform(&self) -> Value {
        json!({ "architecture": self.config["architecture"], "os": self.config["os"] })
    }

    /// The image configuration, with the layers' diff IDs.
    fn config(&self) -> Value {
        let diff_ids: Vec<String> = self
            .layers
            .iter()
            .map(|layer| layer.diff_id().to_string())
            .collect();
        let mut config = self.config.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        config
    }
}

/// Inverts one byte of a file, counted from its start; negative counts from its end.
pub fn flip_byte(path: &Path, offset: i64) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let start = if offset < 0 { bytes.len() as i64 } else { 0 };
    let byte = bytes
        .get_mut((start + offset) as usize)
        .context("the file has no such byte")?;
    *byte = !*byte;
    Ok(fs::write(path, bytes)?)
}

/// Cuts a file after `size_bytes`.
pub fn truncate(path: &Path, size_bytes: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(file.set_len(size_bytes)?)
}
