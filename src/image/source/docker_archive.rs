//! An archive as `docker save` and `podman save` write it, as a source.
//!
//! Such an archive has a config and layers, but no manifest with digests. One is made here from what the
//! config says of the layers; the layers are uncompressed in it, so that a layer's digest is its diff ID and
//! everything that is read can be verified like a registry's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::BoxFuture;
use oci_spec::image::{Digest, ImageConfiguration, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use serde::Deserialize;

use super::file::{self, Named};
use super::tar_index::TarIndex;
use super::{BlobStream, RawDocument, Source};
use crate::image::oci::manifest::{MAX_CONFIG_BYTES, MAX_DOCUMENT_BYTES};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Descriptor, digest};
use crate::sys::regular::open_regular;

/// One image of such an archive.
pub struct DockerArchive {
    at: Named,
    manifest: Vec<u8>,
    digest: Digest,
    name: Option<String>,
    /// Where each blob is in the archive.
    blobs: HashMap<Digest, Range<u64>>,
}

/// An entry of the archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Opens the image that `selector` names, or the only one.
    pub async fn open(at: &Named, selector: Option<&Selector>) -> Result<Self> {
        let (at, selector) = (at.clone(), selector.cloned());
        tokio::task::spawn_blocking(move || {
            let doing = || format!("opening {at}");
            let archive = open_regular(&at.path).with_context(doing)?;
            Self::read(archive, &at, selector.as_ref()).with_context(doing)
        })
        .await?
    }

    fn read(mut archive: File, at: &Named, selector: Option<&Selector>) -> Result<Self> {
        let index = TarIndex::read(archive.try_clone()?)?;
        let list = read_file(&mut archive, &index, "manifest.json", MAX_DOCUMENT_BYTES as u64)
            .context("it is not a docker-archive")?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&list).context("its manifest.json cannot be read")?;
        let entry = choose(&entries, selector)?;
        let config = read_file(&mut archive, &index, &entry.config, MAX_CONFIG_BYTES)?;
        let configuration =
            ImageConfiguration::from_reader(config.as_slice()).context("its config cannot be read")?;
        let diff_ids = configuration.rootfs().diff_ids();
        let (layers, ids) = (entry.layers.len(), diff_ids.len());
        ensure!(
            layers == ids,
            "it has {layers} layers and its config {ids} diff IDs: it is malformed"
        );

        let config_digest = digest::sha256(&config);
        let place = index.find(&entry.config).context("the config was found before")?;
        let mut blobs = HashMap::from([(config_digest.clone(), place)]);
        let mut descriptors = Vec::new();
        for (name, diff_id) in entry.layers.iter().zip(diff_ids) {
            let (descriptor, place) = layer(&mut archive, &index, name, diff_id)?;
            blobs.insert(descriptor.digest().clone(), place);
            descriptors.push(descriptor);
        }
        let config = Descriptor::new(MediaType::ImageConfig, config.len() as u64, config_digest);
        let manifest = manifest(config, descriptors)?;
        Ok(Self {
            at: at.clone(),
            digest: digest::sha256(&manifest),
            manifest,
            name: entry.repo_tags.as_ref().and_then(|tags| tags.first().cloned()),
            blobs,
        })
    }

    /// The digest of the manifest that was made.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The name that the image was saved by, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Source for DockerArchive {
    fn document<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
        Box::pin(async move {
            ensure!(
                *selector == Selector::Digest(self.digest.clone()),
                "{} has no {selector}",
                self.at
            );
            Ok(RawDocument {
                bytes: self.manifest.clone(),
                content_type: None,
            })
        })
    }

    fn blob<'a>(&'a self, blob: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>> {
        Box::pin(async move {
            let digest = blob.digest();
            let place = self.blobs.get(digest);
            let place = place.with_context(|| format!("{} has no blob {digest}", self.at))?;
            let file = self.at.open().await?;
            let start = place.start.saturating_add(offset).min(place.end);
            Ok(file::stream(file, start..place.end).await?)
        })
    }
}

fn choose<'a>(entries: &'a [Entry], selector: Option<&Selector>) -> Result<&'a Entry> {
    let tags = |entry: &'a Entry| entry.repo_tags.iter().flatten();
    match (selector, entries) {
        (None, [only]) => Ok(only),
        (None, _) => bail!("it has {} images: choose one with :NAME:TAG", entries.len()),
        (Some(Selector::Tag(tag)), _) => {
            let found = entries.iter().find(|entry| tags(entry).any(|name| name == tag));
            found.with_context(|| {
                let names: Vec<_> = entries.iter().flat_map(tags).map(String::as_str).collect();
                format!("it has no image named {tag:?}; it has {}", names.join(", "))
            })
        }
        (Some(Selector::Digest(_)), _) => bail!("images in a docker-archive have no digests: use :NAME:TAG"),
    }
}

/// A layer's descriptor and place. An uncompressed layer's digest is its diff ID.
fn layer(
    archive: &mut File,
    index: &TarIndex,
    name: &str,
    diff_id: &str,
) -> Result<(Descriptor, Range<u64>)> {
    let place = index.find(name).with_context(|| format!("it has no {name}"))?;
    let size = place.end - place.start;
    let mut magic = [0; 2];
    if size >= 2 {
        archive.seek(SeekFrom::Start(place.start))?;
        archive.read_exact(&mut magic)?;
    }
    ensure!(
        magic != [0x1f, 0x8b],
        "its layer {name} is compressed: convert it to oci-archive with skopeo copy"
    );
    let digest: Digest = diff_id
        .parse()
        .with_context(|| format!("its config has diff ID {diff_id:?}"))?;
    Ok((Descriptor::new(MediaType::ImageLayer, size, digest), place))
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Vec<u8>> {
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()?;
    Ok(manifest.to_string()?.into_bytes())
}

fn read_file(archive: &mut File, index: &TarIndex, name: &str, limit: u64) -> Result<Vec<u8>> {
    let place = index.find(name).with_context(|| format!("it has no {name}"))?;
    let size = place.end - place.start;
    ensure!(
        size <= limit,
        "its {name} has {size} bytes, but at most {limit} are read"
    );
    archive.seek(SeekFrom::Start(place.start))?;
    let mut bytes = vec![0; size as usize];
    archive
        .read_exact(&mut bytes)
        .with_context(|| format!("reading its {name}"))?;
    Ok(bytes)
}
