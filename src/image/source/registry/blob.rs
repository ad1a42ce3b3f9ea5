//! A blob as a stream that outlives its connections: when one breaks or stalls, the next goes on at the byte
//! where it stopped (RFC 9110, section 14: `Range`), at the next mirror if need be. The bytes are not
//! verified here.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use oci_spec::image::Descriptor;
use reqwest::{Response, StatusCode};

use super::endpoint::{Endpoint, wanted_blob};
use super::error::{Cause, RegistryError};
use super::host::host_of;
use super::http::{range_start, redirected};
use super::retry::Backoff;
use super::shared::Shared;
use crate::image::source::BlobStream;

/// A transfer under way.
struct Transfer {
    shared: Arc<Shared>,
    blob: Descriptor,
    /// The next byte to hand out.
    at: u64,
    /// Whether anything was handed out.
    begun: bool,
    endpoint: usize,
    backoff: Backoff,
    body: Option<Body>,
}

/// One answer's body.
struct Body {
    response: Response,
    /// How many bytes come first that were handed out already.
    surplus: u64,
}

/// Opens `blob` from byte `offset` on. The first answer is awaited, so that what fails at once fails here.
pub async fn open(shared: Arc<Shared>, blob: Descriptor, offset: u64) -> Result<BlobStream> {
    let endpoint = shared.order.first_for(blob.digest());
    let mut transfer = Transfer {
        backoff: shared.backoff(endpoint),
        shared,
        blob,
        at: offset,
        begun: false,
        endpoint,
        body: None,
    };
    if transfer.at < transfer.blob.size() {
        transfer.connect().await?;
    }
    Ok(Box::pin(stream::try_unfold(
        transfer,
        |mut transfer| async move {
            let chunk = transfer.next().await.map_err(io::Error::other)?;
            Ok(chunk.map(|chunk| (chunk, transfer)))
        },
    )))
}

impl Transfer {
    /// The next bytes; `None` when the blob is complete.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.at < self.blob.size() {
            match self.read().await {
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Ok(None) => {}
                Err(cause) => {
                    self.body = None;
                    let error = self.current().error(wanted_blob(&self.blob), cause);
                    self.recover(error).await?;
                }
            }
            if self.body.is_none() {
                self.connect().await?;
            }
        }
        Ok(None)
    }

    /// Some bytes that weren't handed out yet; `None` where there were none among those that came.
    async fn read(&mut self) -> Result<Option<Bytes>, Cause> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        if self.backoff.is_too_slow() {
            let policy = &self.shared.policy;
            return Err(Cause::TooSlow(policy.least_bytes, policy.slow_after));
        }
        let endpoint = &self.shared.endpoints[self.endpoint];
        let since = Instant::now();
        let chunk = endpoint.http.chunk(&mut body.response).await;
        let count = chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
        self.backoff.received(count as u64, since.elapsed());
        let chunk = chunk.map_err(|cause| redirected(cause, host_of(body.response.url()), &endpoint.host))?;
        let Some(mut chunk) = chunk else {
            return Err(Cause::Ended {
                at: self.at,
                size: self.blob.size(),
            });
        };
        let skipped = body.surplus.min(chunk.len() as u64);
        body.surplus -= skipped;
        let chunk = chunk.split_off(skipped as usize);
        if chunk.is_empty() {
            return Ok(None);
        }
        if chunk.len() as u64 > self.blob.size() - self.at {
            return Err(Cause::TooLarge(self.blob.size()));
        }
        if !self.begun {
            self.begun = true;
            self.shared.order.served(self.blob.digest(), self.endpoint);
        }
        self.at += chunk.len() as u64;
        self.backoff.progress();
        Ok(Some(chunk))
    }

    /// Gets an answer that goes on where we are.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        loop {
            let endpoint = self.current();
            let answer = endpoint.blob(&self.blob, self.at).await.and_then(|response| {
                body(response, self.at).map_err(|cause| endpoint.error(wanted_blob(&self.blob), cause))
            });
            match answer {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => {
                    let error = self.shorter(error);
                    self.recover(error).await?;
                }
            }
        }
    }

    /// A registry that has nothing from where we are on has a shorter blob than the manifest says: no try
    /// will change that.
    fn shorter(&self, mut error: RegistryError) -> RegistryError {
        let past_the_end = matches!(&error.cause,
            Cause::Answered(answer) if answer.status == StatusCode::RANGE_NOT_SATISFIABLE);
        if past_the_end && self.at > 0 {
            let (at, size) = (self.at, self.blob.size());
            error.cause = Cause::Protocol(format!(
                "has {at} bytes of it, the manifest says {size}: its copy is damaged"
            ));
        }
        error
    }

    fn current(&self) -> &Endpoint {
        &self.shared.endpoints[self.endpoint]
    }

    /// Waits for the next try, or turns to the next endpoint, or gives up.
    async fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let shared = &self.shared;
        let Err(error) = shared.wait(self.endpoint, &mut self.backoff, error).await else {
            return Ok(());
        };
        let Some(next) = shared.order.after(self.endpoint) else {
            return Err(shared.with_mirrors(error));
        };
        if !error.cause.is_particular() {
            shared.order.give_up(self.endpoint);
        }
        shared.turn(self.endpoint, &error, next);
        self.endpoint = next;
        self.backoff = shared.backoff(next);
        Ok(())
    }
}

/// The body of an answer to a request for everything from byte `at` on. A server may ignore `Range`.
fn body(response: Response, at: u64) -> Result<Body, Cause> {
    let start = match response.status() {
        StatusCode::OK => Some(0),
        _ => range_start(response.headers()),
    };
    match start {
        Some(start) if start <= at => Ok(Body {
            surplus: at - start,
            response,
        }),
        Some(start) => Err(Cause::Protocol(format!(
            "sent bytes from {start} on instead of {at}"
        ))),
        None => Err(Cause::Protocol(
            "sent a part without saying which (no Content-Range)".into(),
        )),
    }
}
