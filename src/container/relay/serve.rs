//! One request, one answer (distribution-spec, "Pulling manifests", "Pulling blobs").

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use oci_spec::image::{Descriptor, Digest};

use super::blob;
use super::range::{self, Wanted};
use super::state::{Served, State};
use crate::image::source::BlobStream;

const DIGEST_HEADER: &str = "docker-content-digest";
const BYTES: &str = "application/octet-stream";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a path names.
enum Asked<'a> {
    /// The API itself.
    Root,
    Manifest,
    Config,
    Layer(&'a Descriptor),
    /// Nothing that is here; the spec's error code for it.
    Nothing(&'static str),
}

pub async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    state.served().requests += 1;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        state.served().refused += 1;
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    let image = &state.image;
    Ok(match asked(&state, request.uri().path()) {
        Asked::Root => whole("application/json", None, Bytes::from_static(b"{}")),
        Asked::Manifest => whole(
            &image.manifest_media_type,
            Some(&image.digest),
            Bytes::copy_from_slice(&image.manifest),
        ),
        Asked::Config => {
            state.served().bytes_from_cache += image.config.len() as u64;
            whole(
                BYTES,
                Some(image.config_descriptor.digest()),
                Bytes::copy_from_slice(&image.config),
            )
        }
        Asked::Layer(layer) => layer_answer(&state, &request, layer).await,
        Asked::Nothing(code) => {
            state.served().refused += 1;
            refusal(StatusCode::NOT_FOUND, code)
        }
    })
}

/// What `path` means: names are compared as they are, and nothing is decoded, as no name of an image needs
/// it. Who doesn't know the secret learns only that this is a registry, which clients ask for first.
fn asked<'a>(state: &'a State, path: &str) -> Asked<'a> {
    if path == "/v2/" || path == "/v2" {
        return Asked::Root;
    }
    let image = &state.image;
    let below = path
        .strip_prefix("/v2/")
        .and_then(|rest| state.door.open(rest)?.split_once('/'));
    let is = |digest: &Digest, name: &str| digest.as_ref() == name;
    match below {
        Some(("manifests", name)) if is(&image.digest, name) || image.reference.tag() == Some(name) => {
            Asked::Manifest
        }
        Some(("manifests", _)) => Asked::Nothing("MANIFEST_UNKNOWN"),
        Some(("blobs", name)) if is(image.config_descriptor.digest(), name) => Asked::Config,
        Some(("blobs", name)) => {
            let layer = image.layers.iter().find(|layer| is(layer.blob.digest(), name));
            layer.map_or(Asked::Nothing("BLOB_UNKNOWN"), |layer| Asked::Layer(&layer.blob))
        }
        _ => Asked::Nothing("NAME_UNKNOWN"),
    }
}

async fn layer_answer(state: &Arc<State>, request: &Request<Incoming>, layer: &Descriptor) -> Response<Body> {
    let size = layer.size();
    let header = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
    let response = Response::builder()
        .header(CONTENT_TYPE, BYTES)
        .header(DIGEST_HEADER, layer.digest().as_ref())
        .header(ACCEPT_RANGES, "bytes");
    let (response, range) = match range::wanted(header, size) {
        Wanted::Whole => (response, 0..size),
        Wanted::Part(part) => {
            let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            (response.header(CONTENT_RANGE, text), part)
        }
        Wanted::Unsatisfiable => {
            let response = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            return built(response.header(CONTENT_RANGE, format!("bytes */{size}")), empty());
        }
    };
    let response = response.header(CONTENT_LENGTH, range.end - range.start);
    if request.method() == Method::HEAD {
        return built(response, empty());
    }
    match open(state, layer, range).await {
        Ok(stream) => {
            let state = state.clone();
            let stream = stream.inspect_err(move |error| state.failed(error.to_string()));
            let body = StreamBody::new(stream.map_ok(Frame::data));
            built(response, BodyExt::boxed_unsync(body))
        }
        Err(error) => {
            state.failed(format!("{error:#}"));
            refusal(StatusCode::BAD_GATEWAY, "BLOB_UNKNOWN")
        }
    }
}

/// The bytes of a layer, counted: from the cache if they are there, else from the source.
async fn open(
    state: &Arc<State>,
    layer: &Descriptor,
    range: std::ops::Range<u64>,
) -> anyhow::Result<BlobStream> {
    let cached = match state.blobs.cached.get(layer.digest()) {
        Some(path) => blob::from_file(path, layer, range.clone()).await,
        None => None,
    };
    let state = state.clone();
    Ok(match cached {
        Some(stream) => counted(stream, state, |served| &mut served.bytes_from_cache),
        None => {
            let source = state.blobs.source.as_deref();
            let source = source.with_context(|| format!("the copy of blob {} is gone", layer.digest()))?;
            let stream = blob::from_source(source, layer, range).await?;
            counted(stream, state, |served| &mut served.bytes_from_source)
        }
    })
}

fn counted(stream: BlobStream, state: Arc<State>, counter: fn(&mut Served) -> &mut u64) -> BlobStream {
    Box::pin(stream.inspect_ok(move |chunk| *counter(&mut state.served()) += chunk.len() as u64))
}

fn whole(content_type: &str, digest: Option<&Digest>, bytes: Bytes) -> Response<Body> {
    let mut response = Response::builder()
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, bytes.len())
        .header("docker-distribution-api-version", "registry/2.0");
    if let Some(digest) = digest {
        response = response.header(DIGEST_HEADER, digest.as_ref());
    }
    built(response, full(bytes))
}

/// The spec's error answer.
fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!(r#"{{"errors":[{{"code":"{code}","message":"it is not here"}}]}}"#);
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    built(response, full(text.into()))
}

/// A manifest's media type comes from a stranger: one that is no header's value makes no answer.
fn built(response: hyper::http::response::Builder, body: Body) -> Response<Body> {
    response.body(body).unwrap_or_else(|_| {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn empty() -> Body {
    full(Bytes::new())
}
