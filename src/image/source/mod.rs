//! Where images come from, behind one small trait: give a document, open a blob.
//!
//! A source is never trusted. Its reader compares what comes with the digest that was asked for.

mod docker_archive;
pub(crate) mod file;
pub(crate) mod layout;
pub mod name;
pub(crate) mod policy;
pub mod registry;
pub mod resolve;
mod tar_index;
pub(crate) mod url;

use std::io;
use std::pin::Pin;

use anyhow::Result;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};

use crate::image::oci::Descriptor;
use crate::image::oci::reference::Selector;

/// A manifest or an index as the source gave it.
#[derive(Clone, Debug)]
pub struct RawDocument {
    /// The bytes, at most [`crate::image::oci::manifest::MAX_DOCUMENT_BYTES`] of them.
    pub bytes: Vec<u8>,
    pub content_type: Option<String>,
}

/// The bytes of a blob, as they arrive. Unverified.
pub type BlobStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// One repository of images.
pub trait Source: Send + Sync {
    /// The manifest or index that `selector` names, unverified.
    fn document<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<RawDocument>>;

    /// The bytes of `blob` from `offset` on, unverified.
    fn blob<'a>(&'a self, blob: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>>;

    /// `count` bytes of `blob` from `offset` on, unverified, from a source that can give them without the
    /// rest and without delay: nobody is asked twice. `None` where that can't be had.
    fn part<'a>(&'a self, blob: &'a Descriptor, offset: u64, count: usize) -> BoxFuture<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let mut stream = self.blob(blob, offset).await.ok()?;
            let mut bytes = Vec::new();
            while bytes.len() < count {
                bytes.extend_from_slice(&stream.next().await?.ok()?);
            }
            bytes.truncate(count);
            Some(bytes)
        })
    }

    /// Is told that what came for `blob` was something else. Whether there is another place, which is asked
    /// from now on.
    fn distrust(&self, _blob: &Descriptor) -> bool {
        false
    }
}
