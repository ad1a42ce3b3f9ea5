//! An OCI image layout (image-spec `image-layout.md`) as a source: a directory, or a tar archive of one. What
//! a USB stick takes to a site without a network.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use oci_spec::image::{Digest, ImageIndex};

use super::file::{self, Named};
use super::tar_index::TarIndex;
use super::{BlobStream, RawDocument, Source};
use crate::image::oci::Descriptor;
use crate::image::oci::blob::BlobCheck;
use crate::image::oci::manifest::MAX_DOCUMENT_BYTES;
use crate::image::oci::reference::Selector;
use crate::sys::regular::open_regular;

/// The annotation that names a manifest in `index.json`: a tag, or a full name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub struct OciLayout {
    files: Files,
    index_bytes: Vec<u8>,
    index: ImageIndex,
}

/// Where a layout's files are.
enum Files {
    Directory(Named),
    Archive(Named, TarIndex),
}

impl OciLayout {
    pub async fn open_directory(at: &Named) -> Result<Self> {
        Self::open(Files::Directory(at.clone())).await
    }

    /// Opens the layout in a tar archive, which is read where it is.
    pub async fn open_archive(at: &Named) -> Result<Self> {
        let doing = || format!("opening {at}");
        let archive = open_regular(&at.path).with_context(doing)?;
        let index = tokio::task::spawn_blocking(|| TarIndex::read(archive))
            .await?
            .with_context(doing)?;
        Self::open(Files::Archive(at.clone(), index)).await
    }

    async fn open(files: Files) -> Result<Self> {
        let doing = || format!("{} is not an OCI image layout", files.at());
        let head = files.read("oci-layout", 4096).await.with_context(doing)?;
        let head: serde_json::Value = serde_json::from_slice(&head).with_context(doing)?;
        ensure!(
            head["imageLayoutVersion"] == "1.0.0",
            "{}: unknown version {}",
            doing(),
            head["imageLayoutVersion"]
        );
        let index_bytes = files
            .read("index.json", MAX_DOCUMENT_BYTES as u64)
            .await
            .with_context(doing)?;
        let index = ImageIndex::from_reader(index_bytes.as_slice()).with_context(doing)?;
        Ok(Self {
            files,
            index_bytes,
            index,
        })
    }

    /// What to ask this layout for when nothing was said: its only image, `None` when there are several.
    pub fn only(&self) -> Option<Selector> {
        match self.index.manifests().as_slice() {
            [entry] => Some(Selector::Digest(entry.digest().clone())),
            _ => None,
        }
    }

    /// The names of the images, as `index.json` has them.
    pub fn names(&self) -> Vec<&str> {
        self.index.manifests().iter().filter_map(name).collect()
    }

    pub fn name_of(&self, digest: &Digest) -> Option<&str> {
        let found = self
            .index
            .manifests()
            .iter()
            .find(|entry| entry.digest() == digest);
        found.and_then(name)
    }

    async fn read_document(&self, selector: &Selector) -> Result<RawDocument> {
        let digest = match selector {
            Selector::Digest(digest) => digest,
            Selector::Tag(tag) => {
                let named: Vec<_> = self
                    .index
                    .manifests()
                    .iter()
                    .filter(|entry| name(entry) == Some(tag))
                    .collect();
                match named.as_slice() {
                    [] => return Err(self.unknown(tag)),
                    [entry] => entry.digest(),
                    // One name for several: the index chooses by platform.
                    _ => {
                        return Ok(RawDocument {
                            bytes: self.index_bytes.clone(),
                            content_type: None,
                        });
                    }
                }
            }
        };
        let path = blob_path(digest);
        let bytes = self.files.read(&path, MAX_DOCUMENT_BYTES as u64).await?;
        let checked = BlobCheck::of(digest, None)?.whole(&bytes);
        ensure!(
            checked.is_ok(),
            "{path} in {} does not match its digest: copy it again",
            self.files.at()
        );
        Ok(RawDocument {
            bytes,
            content_type: None,
        })
    }

    fn unknown(&self, tag: &str) -> anyhow::Error {
        let names = match self.names().as_slice() {
            [] => "no names".into(),
            names => names.join(", "),
        };
        anyhow::anyhow!("{} has no image named {tag:?}; it has {names}", self.files.at())
    }
}

impl Source for OciLayout {
    fn document<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
        Box::pin(self.read_document(selector))
    }

    fn blob<'a>(&'a self, blob: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>> {
        Box::pin(async move {
            let (file, range) = self.files.open(&blob_path(blob.digest())).await?;
            let (size, wanted) = (range.end - range.start, blob.size());
            if size != wanted {
                bail!(
                    "blob {} in {} has {size} bytes instead of {wanted}: copy it again",
                    blob.digest(),
                    self.files.at()
                );
            }
            Ok(file::stream(file, range.start + offset.min(size)..range.end).await?)
        })
    }
}

impl Files {
    fn at(&self) -> &Named {
        match self {
            Self::Directory(at) | Self::Archive(at, _) => at,
        }
    }

    /// Opens the file `name`, and where in it the bytes are.
    async fn open(&self, name: &str) -> Result<(tokio::fs::File, Range<u64>)> {
        match self {
            Self::Directory(directory) => {
                let file = directory.join(name).open().await?;
                let size = file.metadata().await?.len();
                Ok((file, 0..size))
            }
            Self::Archive(at, index) => {
                let range = index.find(name).with_context(|| format!("{at} has no {name}"))?;
                Ok((at.open().await?, range))
            }
        }
    }

    async fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let (file, range) = self.open(name).await?;
        let size = range.end - range.start;
        ensure!(
            size <= limit,
            "{name} in {} has {size} bytes, but at most {limit} are read",
            self.at()
        );
        let chunks: Vec<_> = file::stream(file, range).await?.try_collect().await?;
        Ok(chunks.concat())
    }
}

pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}
