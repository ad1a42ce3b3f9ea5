//! Images in a registry (OCI distribution spec, and Docker's registry API v2).
//!
//! ```text
//! Registry ── endpoints: one, or mirrors first ── retry: patience ── blob: transfers that go on
//!    Endpoint ── one request: http (timeouts, redirects) · auth (challenges, tokens) · tls (whom to believe)
//! ```
//!
//! Nothing that comes from there is believed: documents are read up to a limit, blobs are handed on unverified.

mod auth;
mod authfile;
mod blob;
mod challenge;
mod endpoint;
pub(super) mod error;
pub(super) mod http;
pub(super) mod retry;
mod tls;

#[cfg(test)]
pub(super) mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

pub use error::{Answer, Cause, Connection, Errand, RegistryError};
pub use http::Timeouts;
pub use retry::Policy;
pub use tls::{Trust, client_config as tls_config};

use self::auth::{Authenticator, Known};
use self::authfile::{AuthFile, Credentials};
use self::endpoint::Endpoint;
use self::error::Retry;
use self::http::Http;
use self::retry::Backoff;
use super::{BlobStream, RawDocument, Source};
use crate::oci::reference::Selector;
use crate::oci::{Descriptor, Reference};
use crate::progress::Progress;

/// How to speak to registries.
#[derive(Clone)]
pub struct Options {
    /// A containers-auth.json with credentials.
    pub authfile: Option<PathBuf>,
    /// Certificate authorities to believe besides the system's, PEM.
    pub ca_cert: Option<PathBuf>,
    /// Whether TLS must be there and must be right. Without, any certificate will do, and plain HTTP too.
    pub tls_verify: bool,
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
            ca_cert: None,
            tls_verify: true,
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
    /// In the order in which they are asked; the registry itself is the last.
    endpoints: Vec<Endpoint>,
    policy: Policy,
    progress: Progress,
}

impl Registry {
    /// Prepares to pull from the repository that `reference` names. Reads the files that `options` name; nothing is
    /// sent yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Self> {
        let endpoint = endpoint(reference, options)?;
        Ok(Self(Arc::new(Shared {
            endpoints: vec![endpoint],
            policy: options.policy.clone(),
            progress: options.progress.clone(),
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
        let endpoint = self.0.endpoints.first().expect("a registry has an endpoint");
        Box::pin(async move { endpoint.part(blob, offset, count).await.ok().flatten() })
    }
}

impl Shared {
    async fn document(&self, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let (last, mirrors) = self.endpoints.split_last().expect("a registry has an endpoint");
        for mirror in mirrors {
            match self.document_from(mirror, selector).await {
                Ok(document) => return Ok(document),
                Err(error) => self.progress.note(format!("{error}; asking elsewhere")),
            }
        }
        self.document_from(last, selector).await
    }

    async fn document_from(
        &self,
        endpoint: &Endpoint,
        selector: &Selector,
    ) -> Result<RawDocument, RegistryError> {
        let mut backoff = Backoff::new(self.policy.clone());
        loop {
            match endpoint.document(selector).await {
                Ok(document) => return Ok(document),
                Err(error) => self.wait(&mut backoff, error).await?,
            }
        }
    }

    /// After `error`: waits until it is time to try again, or gives the error back.
    async fn wait(&self, backoff: &mut Backoff, mut error: RegistryError) -> Result<(), RegistryError> {
        error.tries = backoff.failures() + 1;
        let Retry::After(asked) = error.cause.retry() else {
            return Err(error);
        };
        let Some(wait) = backoff.next_wait(asked) else {
            return Err(error);
        };
        self.progress
            .note(format!("{error}; trying again in {:.1} s", wait.as_secs_f32()));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Whom to believe.
pub(super) fn trust(options: &Options) -> Trust {
    if options.tls_verify {
        Trust::Verify {
            ca_cert: options.ca_cert.clone(),
        }
    } else {
        Trust::Anybody
    }
}

fn endpoint(reference: &Reference, options: &Options) -> Result<Endpoint> {
    let plain_allowed = !options.tls_verify;
    let known = known(reference, options)?;
    Ok(Endpoint {
        name: reference.registry().into(),
        host: real_host(reference.registry()).into(),
        repository: reference.repository().into(),
        plain_allowed,
        http: Http::new(&trust(options), options.timeouts.clone())?,
        auth: Authenticator::new(reference.repository(), known, plain_allowed),
        scheme: OnceCell::new(),
    })
}

/// The host that serves a registry's API: Docker's is at another place than its name says.
fn real_host(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

fn known(reference: &Reference, options: &Options) -> Result<Option<Known>> {
    let Some(path) = &options.authfile else {
        return Ok(None);
    };
    let file = AuthFile::read(path)?;
    let found = file.lookup(reference.registry(), reference.repository());
    Ok(found.map(|(key, credentials)| Known {
        credentials: credentials.clone(),
        described: match credentials {
            Credentials::Password { user, .. } => {
                format!("the credentials of user {user:?} ({key} in {})", path.display())
            }
            Credentials::IdentityToken(_) => format!("the identity token ({key} in {})", path.display()),
        },
    }))
}
