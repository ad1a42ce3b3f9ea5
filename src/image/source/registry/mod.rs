//! Images in a registry (OCI distribution spec, and Docker's registry API v2).
//!
//! ```text
//! Registry ── setup: what config/ (the files of podman and skopeo) says of an image ── endpoints: mirrors first
//!    order: who is asked next ── retry: patience ── blob: transfers that go on
//!    Endpoint ── one request: http (timeouts, redirects, proxy) · auth (challenges, tokens) · tls (whom to believe)
//! ```
//!
//! Nothing that comes from there is believed: documents are read up to a limit, blobs are handed on unverified.

mod auth;
mod blob;
mod challenge;
mod config;
mod endpoint;
pub(super) mod error;
pub(super) mod http;
mod order;
mod proxy;
pub(super) mod retry;
mod setup;
mod tls;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;

pub use config::places::Places;
pub use error::{Answer, Cause, Connection, Errand, RegistryError};
pub use http::Timeouts;
pub use proxy::Settings as ProxySettings;
pub use retry::Policy;
pub use tls::{ClientCertificate, Trust, client_config as tls_config};

use self::endpoint::Endpoint;
use self::error::Retry;
use self::order::Order;
use self::retry::Backoff;
use super::{BlobStream, RawDocument, Source};
use crate::console::progress::{Progress, Wait};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Descriptor, Reference};

/// How to speak to registries.
#[derive(Clone)]
pub struct Options {
    /// The only containers-auth.json that counts.
    pub authfile: Option<PathBuf>,
    /// A file with a secret for the image's own registry; `-` is standard input.
    pub pull_secret: Option<PathBuf>,
    /// The registries.conf that counts.
    pub registries_conf: Option<PathBuf>,
    /// Mirrors to be asked before all others: `HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Certificate authorities to believe besides the system's, PEM.
    pub ca_cert: Option<PathBuf>,
    /// Whether TLS must be there and must be right. Without, any certificate will do, and plain HTTP too.
    pub tls_verify: bool,
    /// Whether registries.conf may say otherwise of a registry (`insecure`).
    pub heed_insecure: bool,
    /// Where configuration files are.
    pub places: Places,
    /// The way out.
    pub proxies: ProxySettings,
    /// How often to try again.
    pub policy: Policy,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Where retries are told.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            authfile: None,
            pull_secret: None,
            registries_conf: None,
            mirrors: Vec::new(),
            ca_cert: None,
            tls_verify: true,
            heed_insecure: true,
            places: Places::usual(),
            proxies: ProxySettings::from_environment(),
            policy: Policy::default(),
            timeouts: Timeouts::default(),
            progress: Progress::silent(),
        }
    }
}

/// One repository of a registry, as a [`Source`].
pub struct Registry(Arc<Shared>);

/// What the transfers of a registry have in common.
struct Shared {
    /// Mirrors first; the registry itself is the last.
    endpoints: Vec<Endpoint>,
    order: Order,
    policy: Policy,
    progress: Progress,
    /// What was told already, and of whom: many transfers see the same.
    told: Mutex<HashSet<(usize, String)>>,
}

impl Registry {
    /// Prepares to pull from the repository that `reference` names, wherever that is. Reads configuration files; nothing
    /// is sent yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Self> {
        let endpoints = setup::endpoints(reference, options)?;
        Ok(Self(Arc::new(Shared {
            order: Order::new(endpoints.len()),
            endpoints,
            policy: options.policy.clone(),
            progress: options.progress.clone(),
            told: Mutex::default(),
        })))
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
            "mirror {} has something else for blob {}; asking {} for it",
            self.0.endpoints[wrong].name,
            blob.digest(),
            self.0.endpoints[next].name
        ));
        true
    }
}

impl Shared {
    async fn document(&self, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let mut at = self.order.first();
        loop {
            let error = match self.document_from(at, selector).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            let Some(next) = self.order.after(at) else {
                return Err(self.with_mirrors(error));
            };
            // Who doesn't have the image is not asked for its parts, either.
            self.order.give_up(at);
            self.turn(at, &error, next);
            at = next;
        }
    }

    async fn document_from(&self, at: usize, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let mut backoff = self.backoff(at);
        loop {
            match self.endpoints[at].document(selector).await {
                Ok(document) => return Ok(document),
                Err(error) => self.wait(at, &mut backoff, error).await?,
            }
        }
    }

    /// Patience with one endpoint: little where there is another.
    fn backoff(&self, at: usize) -> Backoff {
        let mut policy = self.policy.clone();
        if self.order.after(at).is_some() {
            policy.retries = policy.retries.min(1);
        }
        Backoff::new(policy)
    }

    /// After `error` at an endpoint: waits until it is time to try again there, or gives the error back.
    async fn wait(
        &self,
        at: usize,
        backoff: &mut Backoff,
        mut error: RegistryError,
    ) -> Result<(), RegistryError> {
        error.tries = backoff.failures() + 1;
        let Retry::After(asked) = error.cause.retry() else {
            return Err(error);
        };
        if self.order.after(at).is_some() && !error.cause.is_hitch() {
            return Err(error);
        }
        // Who has answered before is only just starting again, perhaps.
        let never_listened = error.cause.is_refusal() && !self.endpoints[at].scheme.initialized();
        if never_listened && backoff.failures() >= self.policy.retries_if_refused() {
            return Err(error);
        }
        let Some(wait) = backoff.next_wait(asked) else {
            return Err(error);
        };
        self.tell_once(at, &error, &again(wait));
        let waiting = Wait::new(format!(
            "waiting before {} is asked again",
            self.endpoints[at].name
        ));
        let _waiting = self.progress.waiting(waiting.at_most(wait));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Tells that another endpoint is asked.
    fn turn(&self, at: usize, error: &RegistryError, next: usize) {
        self.tell_once(at, error, &format!("asking {}", self.endpoints[next].name));
    }

    /// Tells what an endpoint failed at and what is done about it, the first time that it fails in this way.
    fn tell_once(&self, at: usize, error: &RegistryError, remedy: &str) {
        let what = (at, format!("{} {remedy}", error.cause.kind()));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(what) {
            self.progress.note(format!("{error}; {remedy}"));
        }
    }

    /// The last endpoint's error, with those that had failed before.
    fn with_mirrors(&self, mut error: RegistryError) -> RegistryError {
        let failed = self.order.given_up(&self.endpoints);
        error.mirrors = failed.map(|endpoint| endpoint.name.clone()).collect();
        error
    }
}

/// What is done after a failure; a longer wait is told.
pub(super) fn again(wait: Duration) -> String {
    match wait.as_secs() {
        0..10 => "trying again".into(),
        seconds => format!("trying again in {seconds} s"),
    }
}

/// Whom to believe, where no registry is concerned.
pub(super) fn trust(options: &Options) -> Trust {
    Trust {
        anybody: !options.tls_verify,
        authorities: options.ca_cert.iter().cloned().collect(),
        client: Vec::new(),
    }
}
