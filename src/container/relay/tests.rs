//! The relay, asked over HTTP.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use reqwest::{Client, Method, StatusCode};

use super::*;
use crate::image::oci::digest::sha256;
use crate::image::oci::manifest::{self, Document};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Descriptor, Image};
use crate::image::source::{BlobStream, RawDocument, Source};

/// An image with these layers. They needn't be archives: the relay doesn't look into them.
pub fn image(layers: &[&[u8]]) -> Image {
    let ids = vec![format!("{:?}", sha256(b"diff").to_string()); layers.len()].join(",");
    let config =
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#);
    let entry = |media: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"{media}","size":{},"digest":"{}"}}"#,
            bytes.len(),
            sha256(bytes)
        )
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| entry("application/vnd.oci.image.layer.v1.tar+gzip", layer))
        .collect();
    let text = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        entry("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        layers.join(",")
    );
    let Document::Manifest(parsed) = manifest::parse(text.as_bytes(), None).unwrap() else {
        panic!("an index")
    };
    Image::new(
        "registry.example.com/os/x:1".parse().unwrap(),
        sha256(text.as_bytes()),
        (text.into_bytes(), parsed.as_ref()),
        config.into(),
        &"linux/amd64".parse().unwrap(),
    )
    .unwrap()
}

/// Gives these bytes, in small pieces, for whatever blob is asked for.
struct Gives(Vec<u8>);

impl Source for Gives {
    fn document<'a>(&'a self, _: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
        Box::pin(async { bail!("no documents here") })
    }

    fn blob<'a>(&'a self, _: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>> {
        let bytes = Bytes::copy_from_slice(&self.0[offset as usize..]);
        let pieces: Vec<_> = bytes
            .chunks(3)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Box::pin(async { Ok(Box::pin(stream::iter(pieces)) as BlobStream) })
    }
}

const LAYER: &[u8] = b"0123456789";

/// A relay, its place and its cache.
struct Lab {
    relay: Relay,
    place: Place,
    folder: tempfile::TempDir,
}

impl Lab {
    /// The path of what the image has there.
    fn path(&self, of: &str) -> String {
        let location = self.place.location();
        format!("/v2/{}/{of}", location.split_once('/').unwrap().1)
    }

    fn layer_path(&self) -> String {
        self.path(&format!("blobs/{}", sha256(LAYER)))
    }
}

fn relay(cached: Option<&[u8]>, source: &[u8]) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let mut files = HashMap::new();
    if let Some(bytes) = cached {
        let path = folder.path().join("blob");
        std::fs::write(&path, bytes).unwrap();
        files.insert(sha256(LAYER), path);
    }
    let place = Place::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let blobs = Blobs {
        cached: files,
        source: Some(Arc::new(Gives(source.to_vec()))),
    };
    let relay = Relay::serve(&place, Arc::new(image(&[LAYER])), blobs).unwrap();
    Lab { relay, place, folder }
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: Result<Vec<u8>, reqwest::Error>,
}

async fn ask(lab: &Lab, method: Method, path: &str, range: Option<&str>) -> Answer {
    try_ask(lab, method, path, range).await.unwrap()
}

async fn try_ask(
    lab: &Lab,
    method: Method,
    path: &str,
    range: Option<&str>,
) -> Result<Answer, reqwest::Error> {
    let trust = crate::image::source::registry::Trust {
        anybody: true,
        ..Default::default()
    };
    let tls = crate::image::source::registry::tls_config(&trust).unwrap();
    let client = Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let mut request = client.request(method, format!("http://{}{path}", lab.place.address()));
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await.map(Into::into),
    })
}

#[tokio::test]
async fn it_has_the_image_and_nothing_else() {
    let lab = relay(None, LAYER);
    let image = image(&[LAYER]);
    let manifest = lab.path(&format!("manifests/{}", image.digest));
    let config = lab.path(&format!("blobs/{}", image.config_descriptor.digest()));
    let stranger = sha256(b"stranger");
    for (method, path, status, body) in [
        (Method::GET, "/v2/".to_string(), 200, Some(&b"{}"[..])),
        (Method::GET, manifest.clone(), 200, Some(&image.manifest[..])),
        (
            Method::GET,
            lab.path("manifests/1"),
            200,
            Some(&image.manifest[..]),
        ),
        (Method::GET, config.clone(), 200, Some(&image.config[..])),
        (Method::GET, lab.layer_path(), 200, Some(LAYER)),
        (Method::HEAD, manifest.clone(), 200, Some(b"")),
        (Method::HEAD, lab.layer_path(), 200, Some(b"")),
        (Method::GET, lab.path("manifests/2"), 404, None),
        (Method::GET, lab.path(&format!("manifests/{stranger}")), 404, None),
        (Method::GET, lab.path(&format!("blobs/{stranger}")), 404, None),
        (Method::GET, lab.path("tags/list"), 404, None),
        // Who doesn't know the secret asks in vain, whatever the image is called.
        (
            Method::GET,
            format!("/v2/os/x/manifests/{}", image.digest),
            404,
            None,
        ),
        (
            Method::GET,
            format!("/v2/os/x/blobs/{}", sha256(LAYER)),
            404,
            None,
        ),
        (Method::GET, lab.layer_path().replace("/v2/", "/v2/0"), 404, None),
        (Method::GET, lab.layer_path().replace("/v2/", "/v2//"), 404, None),
        (Method::GET, "/v2/_catalog".into(), 404, None),
        (Method::GET, "/".into(), 404, None),
        (Method::PUT, manifest, 405, None),
        (Method::POST, lab.path("blobs/uploads/"), 405, None),
        (Method::DELETE, lab.layer_path(), 405, None),
    ] {
        let answer = ask(&lab, method.clone(), &path, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let got = answer.body.unwrap();
        match body {
            Some(body) => assert_eq!(got, body, "{method} {path}"),
            None => assert!(
                String::from_utf8(got)
                    .unwrap()
                    .starts_with(r#"{"errors":[{"code":"#)
            ),
        }
    }
    let served = lab.relay.shutdown().await;
    assert_eq!((served.requests, served.refused), (20, 13));
    assert_eq!(served.bytes_from_source, LAYER.len() as u64);
    assert_eq!(served.failures, [""; 0]);
}

#[tokio::test]
async fn it_tells_how_far_the_image_has_fetched_itself() {
    let lab = relay(None, LAYER);
    let tell = lab.relay.tell_progress();
    let image = image(&[LAYER]);
    let total = 10 + image.config.len();
    assert_eq!(
        tell(),
        format!("the image's installer has fetched 0 bytes of {total} bytes")
    );
    ask(&lab, Method::GET, &lab.layer_path(), None).await;
    assert_eq!(
        tell(),
        format!("the image's installer has fetched 10 bytes of {total} bytes")
    );
}

#[tokio::test]
async fn the_heads_say_what_comes() {
    let lab = relay(Some(LAYER), b"");
    let image = image(&[LAYER]);
    for method in [Method::GET, Method::HEAD] {
        let answer = ask(&lab, method.clone(), &lab.path("manifests/1"), None).await;
        assert_eq!(
            answer.headers["content-type"],
            "application/vnd.oci.image.manifest.v1+json"
        );
        assert_eq!(answer.headers["docker-content-digest"], image.digest.as_ref());
        assert_eq!(
            answer.headers["content-length"],
            image.manifest.len().to_string().as_str()
        );
        let answer = ask(&lab, method, &lab.layer_path(), None).await;
        assert_eq!(answer.headers["docker-content-digest"], sha256(LAYER).as_ref());
        assert_eq!(answer.headers["content-length"], "10");
    }
}

#[tokio::test]
async fn parts_come_from_file_and_source_alike() {
    for cached in [Some(LAYER), None] {
        let lab = relay(cached, LAYER);
        for (range, status, body, content_range) in [
            ("bytes=0-0", 206, &b"0"[..], Some("bytes 0-0/10")),
            ("bytes=3-5", 206, b"345", Some("bytes 3-5/10")),
            ("bytes=9-", 206, b"9", Some("bytes 9-9/10")),
            ("bytes=-2", 206, b"89", Some("bytes 8-9/10")),
            ("bytes=10-", 416, b"", Some("bytes */10")),
            ("bytes=0-1,3-4", 200, LAYER, None),
        ] {
            let answer = ask(&lab, Method::GET, &lab.layer_path(), Some(range)).await;
            assert_eq!(answer.status, status, "{range}");
            assert_eq!(answer.body.unwrap(), body, "{range}");
            let found = answer
                .headers
                .get("content-range")
                .map(|value| value.to_str().unwrap());
            assert_eq!(found, content_range);
        }
        let served = lab.relay.shutdown().await;
        let (from_cache, from_source) = if cached.is_some() { (17, 0) } else { (0, 17) };
        assert_eq!(
            (served.bytes_from_cache, served.bytes_from_source),
            (from_cache, from_source)
        );
    }
}

/// What the source gives is right but for one thing; no client gets so much as the wanted part of it whole.
#[tokio::test]
async fn a_wrong_blob_is_never_complete() {
    for (gives, why) in [
        (&b"0123456780"[..], "the blob's digest is"),
        (b"x123456789", "the blob's digest is"),
        (b"012345678", "ends after 9 of 10 bytes"),
        (b"01234567890", "longer than its 10 bytes"),
        (b"", "ends after 0 of 10 bytes"),
    ] {
        for range in [None, Some("bytes=0-0"), Some("bytes=2-6")] {
            let lab = relay(None, gives);
            // The connection may break before the head is out.
            let body = try_ask(&lab, Method::GET, &lab.layer_path(), range)
                .await
                .and_then(|answer| answer.body);
            assert!(body.is_err(), "{why} {range:?}: {body:?}");
            let served = lab.relay.shutdown().await;
            assert!(
                served.failures.iter().any(|failure| failure.contains(why)),
                "{:?}",
                served.failures
            );
        }
    }
}

#[tokio::test]
async fn a_cached_file_of_the_wrong_size_is_not_used() {
    let lab = relay(Some(b"short"), LAYER);
    assert_eq!(
        ask(&lab, Method::GET, &lab.layer_path(), None)
            .await
            .body
            .unwrap(),
        LAYER
    );
    std::fs::remove_file(lab.folder.path().join("blob")).unwrap();
    assert_eq!(
        ask(&lab, Method::GET, &lab.layer_path(), None)
            .await
            .body
            .unwrap(),
        LAYER
    );
    assert_eq!(lab.relay.served().bytes_from_source, 20);
}

#[tokio::test]
async fn it_ends_when_it_is_shut_down() {
    let lab = relay(None, LAYER);
    let address = lab.place.address();
    lab.relay.shutdown().await;
    drop(lab.place);
    assert!(std::net::TcpStream::connect(address).is_err());
}
