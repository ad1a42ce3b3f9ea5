//! From a name to an [`Image`]: document, through indexes, to manifest and config, each compared with the
//! digest that was asked for (image-spec `image-index.md`, `manifest.md`).

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use oci_spec::image::ImageManifest;

use super::Source;
use crate::image::oci::blob::{BlobCheck, BlobError};
use crate::image::oci::manifest::{self, Document, MAX_CONFIG_BYTES};
use crate::image::oci::media_type::{self, DocumentKind};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Descriptor, Digest, Image, Platform, Reference, digest};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;
/// How many documents are read in search of a manifest.
const MAX_DOCUMENTS: usize = 32;

/// A manifest that has the digest it was asked for by.
struct Verified {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Box<ImageManifest>,
}

/// Finds the image that `reference` names at `source` and that suits `platform`.
pub async fn resolve(source: &dyn Source, reference: &Reference, platform: &Platform) -> Result<Image> {
    resolve_selected(source, &reference.selector(), reference, platform).await
}

/// Finds the image that `selector` names at `source`; `reference` is what it is called.
pub async fn resolve_selected(
    source: &dyn Source,
    selector: &Selector,
    reference: &Reference,
    platform: &Platform,
) -> Result<Image> {
    let doing = || format!("resolving {reference}");
    let found = find_manifest(source, selector.clone(), platform)
        .await
        .with_context(doing)?;
    let config = fetch_config(source, found.manifest.config())
        .await
        .with_context(doing)?;
    let manifest = (found.bytes, found.manifest.as_ref());
    Image::new(reference.clone(), found.digest, manifest, config, platform).with_context(doing)
}

/// A document that may lead to the manifest.
struct Lead {
    selector: Selector,
    /// The size that the index says, in bytes.
    size: Option<u64>,
    depth: usize,
}

/// Follows the leads, the likeliest first.
async fn find_manifest(source: &dyn Source, selector: Selector, platform: &Platform) -> Result<Verified> {
    let mut leads = vec![Lead {
        selector,
        size: None,
        depth: 0,
    }];
    let mut first_miss = None;
    for _ in 0..MAX_DOCUMENTS {
        let Some(lead) = leads.pop() else { break };
        ensure!(
            lead.depth <= MAX_DEPTH,
            "indexes are nested more than {MAX_DEPTH} deep: name a manifest by its digest"
        );
        let raw = source.document(&lead.selector).await?;
        let digest = match &lead.selector {
            Selector::Tag(_) => digest::sha256(&raw.bytes),
            Selector::Digest(digest) => check(&raw.bytes, digest, lead.size)?,
        };
        match manifest::parse(&raw.bytes, raw.content_type.as_deref())? {
            Document::Manifest(manifest) => {
                return Ok(Verified {
                    digest,
                    bytes: raw.bytes,
                    manifest,
                });
            }
            Document::Index(index) => match manifest::select(&index, platform) {
                Ok(entry) => leads = vec![follow(entry, lead.depth)],
                Err(miss) => {
                    let nested = index
                        .manifests()
                        .iter()
                        .rev()
                        .filter(|entry| is_unlabelled_index(entry));
                    leads.extend(nested.take(MAX_DOCUMENTS).map(|entry| follow(entry, lead.depth)));
                    first_miss.get_or_insert(miss);
                }
            },
        }
    }
    match first_miss {
        Some(miss) if leads.is_empty() => Err(miss.into()),
        _ => bail!("more than {MAX_DOCUMENTS} indexes were looked through: name a manifest by its digest"),
    }
}

fn follow(entry: &Descriptor, depth: usize) -> Lead {
    Lead {
        selector: Selector::Digest(entry.digest().clone()),
        size: Some(entry.size()),
        depth: depth + 1,
    }
}

/// Whether an entry is an index that doesn't say what it is for.
fn is_unlabelled_index(entry: &Descriptor) -> bool {
    entry.platform().is_none() && media_type::document_kind(entry.media_type()) == Some(DocumentKind::Index)
}

/// The digest of a document, which is the one asked for.
fn check(bytes: &[u8], digest: &Digest, size: Option<u64>) -> Result<Digest> {
    let checked = BlobCheck::of(digest, size)?.whole(bytes);
    let verified = checked.with_context(|| format!("reading the manifest {digest}"))?;
    Ok(verified.digest().clone())
}

/// The config's bytes. They have the digest that the descriptor says, or there is no place left that might.
async fn fetch_config(source: &dyn Source, config: &Descriptor) -> Result<Vec<u8>> {
    let size = config.size();
    ensure!(
        size <= MAX_CONFIG_BYTES,
        "the image config has {size} bytes, but at most {MAX_CONFIG_BYTES} are read"
    );
    let doing = || format!("reading the image config ({})", config.digest());
    loop {
        match read_config(source, config).await.with_context(doing)? {
            Err(_) if source.distrust(config) => {}
            read => return read.with_context(doing),
        }
    }
}

/// The config, or what is wrong with what came for it.
async fn read_config(source: &dyn Source, config: &Descriptor) -> Result<Result<Vec<u8>, BlobError>> {
    let mut check = BlobCheck::new(config)?;
    let mut stream = source.blob(config, 0).await?;
    let mut bytes = Vec::with_capacity(config.size() as usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if let Err(error) = check.update(&chunk) {
            return Ok(Err(error));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(check.finish().map(|_| bytes))
}

#[cfg(test)]
mod tests;
