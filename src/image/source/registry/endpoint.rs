//! One place that has the repository: the registry itself, or a mirror of it. One request at a time, no
//! retries: the caller decides whether to ask again.

use oci_spec::image::Descriptor;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::OnceCell;

use super::auth::Authenticator;
use super::challenge::Challenge;
use super::error::{Cause, Connection, RegistryError};
use super::host::{host_of, same_host};
use super::http::{Http, range_start, redirected};
use crate::image::oci::blob::BlobCheck;
use crate::image::oci::manifest::MAX_DOCUMENT_BYTES;
use crate::image::oci::media_type::ACCEPTED_MANIFESTS;
use crate::image::oci::reference::Selector;
use crate::image::source::RawDocument;

/// A repository at one registry.
pub struct Endpoint {
    /// The registry as the user knows it, for messages: `HOST[:PORT]`.
    pub name: String,
    /// Where it really is: `HOST[:PORT]`.
    pub host: String,
    pub repository: String,
    /// What the image is called there, if it is asked for by tag.
    pub selector: Selector,
    /// Whether plain HTTP will do where there is no TLS.
    pub plain_allowed: bool,
    pub http: Http,
    pub auth: Authenticator,
    /// `https` or `http`, once that is known.
    pub scheme: OnceCell<&'static str>,
}

/// What to ask for, below the repository.
struct Asked {
    path: String,
    accept: Option<String>,
    /// The bytes that are wanted (RFC 9110, section 14.2), if not all.
    range: Option<String>,
}

impl Endpoint {
    /// The document that `selector` names, at most [`MAX_DOCUMENT_BYTES`] of it. What is asked for by digest
    /// has it.
    pub async fn document(&self, selector: &Selector) -> Result<RawDocument, RegistryError> {
        let selector = match selector {
            Selector::Tag(_) => &self.selector,
            Selector::Digest(_) => selector,
        };
        let asked = Asked {
            path: format!("manifests/{selector}"),
            accept: Some(ACCEPTED_MANIFESTS.join(", ")),
            range: None,
        };
        let separator = if matches!(selector, Selector::Digest(_)) {
            '@'
        } else {
            ':'
        };
        let wanted = || format!("{}{separator}{selector}", self.repository);
        self.try_document(&asked, selector)
            .await
            .map_err(|cause| self.error(wanted(), cause))
    }

    async fn try_document(&self, asked: &Asked, selector: &Selector) -> Result<RawDocument, Cause> {
        let response = self.get(asked).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(Into::into);
        let host = host_of(response.url());
        let bytes = self.http.read(response, MAX_DOCUMENT_BYTES as u64).await;
        let bytes = bytes.map_err(|cause| redirected(cause, host, &self.host))?;
        if let Selector::Digest(digest) = selector
            && BlobCheck::of(digest, None).is_ok_and(|check| check.whole(&bytes).is_err())
        {
            return Err(Cause::Protocol(format!(
                "sent {} bytes that don't have that digest: its copy is damaged, or something on the way changes it",
                bytes.len()
            )));
        }
        Ok(RawDocument { bytes, content_type })
    }

    /// The answer that holds `blob` from byte `from` on. A status of 200 holds it from its beginning.
    pub async fn blob(&self, blob: &Descriptor, from: u64) -> Result<Response, RegistryError> {
        let asked = Asked {
            path: format!("blobs/{}", blob.digest()),
            accept: None,
            range: (from > 0).then(|| format!("bytes={from}-")),
        };
        let answer = self.get(&asked).await;
        answer.map_err(|cause| self.error(wanted_blob(blob), cause))
    }

    /// `count` bytes of `blob` from byte `from` on; `None` where only the whole blob can be had, of which
    /// nothing is read.
    pub async fn part(&self, blob: &Descriptor, from: u64, count: usize) -> Result<Option<Vec<u8>>, Cause> {
        let last = from + (count as u64).saturating_sub(1);
        let asked = Asked {
            path: format!("blobs/{}", blob.digest()),
            accept: None,
            range: Some(format!("bytes={from}-{last}")),
        };
        let response = self.get(&asked).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT || range_start(response.headers()) != Some(from) {
            return Ok(None);
        }
        let bytes = self.http.read(response, count as u64).await?;
        Ok((bytes.len() == count).then_some(bytes))
    }

    /// `cause`, with the name of this registry on it.
    pub fn error(&self, wanted: String, cause: Cause) -> RegistryError {
        RegistryError {
            registry: self.name.clone(),
            wanted,
            cause,
            tries: 1,
            mirrors: Vec::new(),
        }
    }

    /// Asks, and where the registry demands authentication, meets that once and asks again.
    async fn get(&self, asked: &Asked) -> Result<Response, Cause> {
        let scheme = self.scheme.get_or_try_init(|| self.greet()).await?;
        let mut authorization = self.auth.current().await;
        let mut response = self.ask(scheme, asked, &authorization).await?;
        // Another host's demand, after a redirect, isn't the registry's: our credentials are not for it.
        let own = same_host(&host_of(response.url()), &self.host);
        if response.status() == StatusCode::UNAUTHORIZED && own {
            let challenge = Challenge::from_headers(response.headers());
            let meeting = self.auth.meet(&self.http, challenge, authorization.generation);
            if meeting.await? {
                authorization = self.auth.current().await;
                response = self.ask(scheme, asked, &authorization).await?;
            }
        }
        if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let credentials = self.auth.described();
        Err(Cause::Answered(
            self.http.explain(response, &self.host, credentials).await,
        ))
    }

    async fn ask(
        &self,
        scheme: &str,
        asked: &Asked,
        authorization: &super::auth::Authorization,
    ) -> Result<Response, Cause> {
        let url = format!("{scheme}://{}/v2/{}/{}", self.host, self.repository, asked.path);
        let mut request = self.auth.apply(self.http.client().get(url), authorization)?;
        if let Some(accept) = &asked.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &asked.range {
            request = request.header(RANGE, range);
        }
        self.http.send(request).await
    }

    /// Finds out whether the registry speaks TLS, and meets its first challenge.
    async fn greet(&self) -> Result<&'static str, Cause> {
        let (scheme, response) = match self.knock("https").await {
            Ok(response) => ("https", response),
            Err(cause) if !self.plain_allowed => return Err(cause),
            Err(over_tls) => match self.knock("http").await {
                Ok(response) => ("http", response),
                Err(plain) if matches!(over_tls, Cause::Connection(Connection::PlainHttp)) => {
                    return Err(plain);
                }
                Err(_) => return Err(over_tls),
            },
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            // The scope that some registries name here is an example, not this repository's.
            let mut challenge = Challenge::from_headers(response.headers());
            if let Some(Challenge::Bearer { scope, .. }) = &mut challenge {
                *scope = None;
            }
            self.auth.meet(&self.http, challenge, 0).await?;
        }
        Ok(scheme)
    }

    async fn knock(&self, scheme: &str) -> Result<Response, Cause> {
        let request = self.http.client().get(format!("{scheme}://{}/v2/", self.host));
        self.http.send(request).await
    }
}

/// A blob's name in messages.
pub fn wanted_blob(blob: &Descriptor) -> String {
    format!("blob {}", blob.digest())
}
