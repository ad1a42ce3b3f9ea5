//! Images in a registry (OCI distribution spec, and Docker's registry API v2).
//!
//! ```text
//! Registry ── setup: what config/ (files as podman reads) says of an image ── endpoints: mirrors first
//!    order: who is asked next ── retry: patience ── blob: transfers that go on
//!    Endpoint ── one request: http (timeouts, redirects, proxy) · auth (challenges, tokens) · tls
//! ```
//!
//! Nothing that comes from there is trusted: documents are read up to a limit, blobs are handed on
//! unverified.

mod auth;
mod blob;
pub(crate) mod challenge;
pub(crate) mod config;
mod endpoint;
pub(crate) mod error;
pub(super) mod host;
pub(super) mod http;
mod options;
mod order;
mod proxy;
pub(super) mod retry;
mod setup;
pub(super) mod shared;
mod tls;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;

pub use config::places::Places;
pub use http::Timeouts;
pub use options::Options;
pub use proxy::{Settings as ProxySettings, forget_environment};
pub use retry::Policy;
#[cfg(test)]
pub(crate) use tls::{Trust, client_config as tls_config};

use self::shared::Shared;
use super::{BlobStream, RawDocument, Source};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Descriptor, Reference};

/// One repository of a registry, as a [`Source`].
pub struct Registry(Arc<Shared>);

impl Registry {
    /// Prepares to pull from the repository that `reference` names, wherever that is. Reads configuration
    /// files; nothing is sent yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Self> {
        let endpoints = setup::endpoints(reference, options)?;
        Ok(Self(Arc::new(Shared::new(endpoints, options))))
    }
}

impl Source for Registry {
    fn document<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
        Box::pin(async move { Ok(self.0.document(selector).await?) })
    }

    fn blob<'a>(&'a self, blob: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>> {
        Box::pin(blob::open(self.0.clone(), blob.clone(), offset))
    }

    fn part<'a>(&'a self, blob: &'a Descriptor, offset: u64, count: usize) -> BoxFuture<'a, Option<Vec<u8>>> {
        let endpoint = &self.0.endpoints[self.0.order.first_for(blob.digest())];
        Box::pin(async move { endpoint.part(blob, offset, count).await.ok().flatten() })
    }

    fn distrust(&self, blob: &Descriptor) -> bool {
        let Some((wrong, next)) = self.0.order.distrust(blob.digest()) else {
            return false;
        };
        self.0.progress.note(format!(
            "mirror {} sent other bytes for blob {}; asking {} instead",
            self.0.endpoints[wrong].name,
            blob.digest(),
            self.0.endpoints[next].name
        ));
        true
    }
}
