//! The registry client against a server that misbehaves on purpose.

mod keys;
mod mirrors;
mod proxies;
pub(in crate::image::source) mod server;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt;
use oci_spec::image::MediaType;

use self::server::{Reply, Request, Server};
use super::*;
use crate::image::oci::digest;

const REPOSITORY: &str = "os/web";

/// A blob that is larger than any buffer on the way.
fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(|number| number.to_le_bytes()).collect()
}

fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor::new(
        MediaType::ImageLayerGzip,
        content.len() as u64,
        digest::sha256(content),
    )
}

fn options() -> Options {
    Options {
        tls_verify: false,
        // What this machine has configured must not matter.
        places: Places::new("/nonexistent", 0, |_| None),
        policy: Policy {
            retries: 2,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(2),
            ..Policy::default()
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_millis(300),
            stall: Duration::from_millis(300),
            document: Duration::from_secs(5),
        },
        ..Options::default()
    }
}

fn with_authfile(folder: &tempfile::TempDir, host: &str, entry: &str) -> Options {
    let path = folder.path().join("auth.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).unwrap();
    Options {
        authfile: Some(path),
        ..options()
    }
}

fn password(secret: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(secret))
}

fn registry(host: &str, options: &Options) -> Registry {
    let reference = format!("{host}/{REPOSITORY}:1").parse().unwrap();
    Registry::new(&reference, options).unwrap()
}

fn tag() -> Selector {
    Selector::Tag("1".into())
}

async fn read_blob(registry: &Registry, blob: &Descriptor, offset: u64) -> Result<Vec<u8>, String> {
    let stream = registry
        .blob(blob, offset)
        .await
        .map_err(|error| format!("{error:#}"))?;
    let chunks: Vec<_> = stream.try_collect().await.map_err(|error| error.to_string())?;
    Ok(chunks.concat())
}

async fn error_of(registry: &Registry) -> String {
    format!("{:#}", registry.document(&tag()).await.unwrap_err())
}

/// Answers like a registry without authentication that holds one blob.
fn honest(content: &[u8], request: &Request) -> Reply {
    if request.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    let start = request.range.as_deref().map(|range| {
        range
            .strip_prefix("bytes=")
            .and_then(|rest| rest.strip_suffix('-'))
            .unwrap()
            .parse::<usize>()
            .unwrap()
    });
    match start {
        None => Reply::new(200, content),
        Some(start) => Reply::new(206, &content[start..]).header(
            "content-range",
            format!("bytes {start}-{}/{}", content.len() - 1, content.len()),
        ),
    }
}

#[tokio::test]
async fn a_document_comes_with_what_it_is_called() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/os/web/manifests/1" => Reply::new(200, "{}").header("content-type", "application/x"),
        _ => Reply::new(200, ""),
    })
    .await;
    let document = registry(&server.host, &options()).document(&tag()).await.unwrap();
    assert_eq!(document.bytes, b"{}");
    assert_eq!(document.content_type.as_deref(), Some("application/x"));
}

#[tokio::test]
async fn a_manifest_is_read_up_to_the_limit_and_not_beyond() {
    const LIMIT: usize = crate::image::oci::manifest::MAX_DOCUMENT_BYTES;
    for (size, announced, fits) in [
        (LIMIT, LIMIT, true),
        (LIMIT + 1, LIMIT + 1, false),
        (1, LIMIT + 1, false),
    ] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => Reply {
                announced: Some(announced),
                ..Reply::new(200, vec![b' '; size])
            },
        })
        .await;
        let result = registry(&server.host, &options()).document(&tag()).await;
        assert_eq!(result.is_ok(), fits, "{size} bytes");
        if let Err(error) = result {
            assert!(
                error.to_string().contains("more than the 4194304 bytes"),
                "{error:#}"
            );
        }
    }
}

#[tokio::test]
async fn a_document_asked_for_by_digest_has_it() {
    let server = Server::start(|_| Reply::new(200, "changed")).await;
    let selector = Selector::Digest(digest::sha256(b"original"));
    let error = registry(&server.host, &options())
        .document(&selector)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("don't have that digest"), "{error:#}");
}

/// Every way in which a transfer may break, at its beginning, in its middle, and at its end.
#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    type Break = fn(Reply, usize) -> Reply;
    let breaks: [(&str, Break); 6] = [
        ("cut", |reply, at| Reply {
            cut: Some(at),
            ..reply
        }),
        ("stall", |reply, at| Reply {
            stall: Some(at),
            ..reply
        }),
        ("short", |reply, at| Reply {
            announced: Some(at),
            cut: Some(at),
            ..reply
        }),
        ("long", |reply, at| Reply {
            announced: Some(reply.body.len() + 9),
            cut: Some(at),
            ..reply
        }),
        ("unavailable", |_, _| {
            Reply::new(503, "").header("retry-after", "0")
        }),
        ("too many", |_, _| Reply::new(429, "")),
    ];
    let content = content();
    let blob = descriptor(&content);
    let last = content.len() - 1;
    for (name, broken) in breaks {
        for at in [0, 1, content.len() / 2, last] {
            for ranges in [true, false] {
                let served = content.clone();
                let server = Server::start(move |request| {
                    let request = if ranges {
                        request.clone()
                    } else {
                        Request {
                            range: None,
                            ..request.clone()
                        }
                    };
                    let reply = honest(&served, &request);
                    let first =
                        request.path.contains("/blobs/") && request.nth == 0 && request.range.is_none();
                    if first { broken(reply, at) } else { reply }
                })
                .await;
                let read = read_blob(&registry(&server.host, &options()), &blob, 0)
                    .await
                    .unwrap();
                assert!(
                    read == content,
                    "{name} at {at}, ranges: {ranges}: {} bytes",
                    read.len()
                );
                let asked = server.seen("/blobs/");
                assert_eq!(asked.len(), 2, "{name} at {at}");
            }
        }
    }
}

#[tokio::test]
async fn a_blob_is_read_from_any_byte_on() {
    let content = content();
    let (blob, size) = (descriptor(&content), content.len());
    for ranges in [true, false] {
        let served = content.clone();
        let server = Server::start(move |request| {
            let range = request.range.clone().filter(|_| ranges);
            honest(
                &served,
                &Request {
                    range,
                    ..request.clone()
                },
            )
        })
        .await;
        let registry = registry(&server.host, &options());
        for offset in [0, 1, size / 2, size - 1, size] {
            let read = read_blob(&registry, &blob, offset as u64).await.unwrap();
            assert!(read == content[offset..], "from {offset}, ranges: {ranges}");
        }
    }
}

#[tokio::test]
async fn what_never_works_ends_with_the_last_reason() {
    let content = content();
    let blob = descriptor(&content);
    type Answer = fn(&[u8], &Request) -> Reply;
    let cases: [(&str, Answer, usize); 6] = [
        (
            "ended after 0 of 1200000 bytes (tried 3 times)",
            |_, _| Reply::new(200, ""),
            3,
        ),
        (
            "was silent for 0.3 s",
            |content, _| Reply {
                stall: Some(0),
                ..Reply::new(200, content)
            },
            3,
        ),
        (
            "answered 500 Internal Server Error (oops) (tried 3 times)",
            |_, _| Reply::new(500, "oops"),
            3,
        ),
        ("answered 404 Not Found", |_, _| Reply::new(404, ""), 1),
        (
            "more than the 1200000 bytes",
            |content, _| Reply::new(200, [content, b"x"].concat()),
            1,
        ),
        ("without saying which", |content, _| Reply::new(206, content), 1),
    ];
    for (expected, answer, tries) in cases {
        let served = content.clone();
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => answer(&served, request),
        })
        .await;
        let error = read_blob(&registry(&server.host, &options()), &blob, 0)
            .await
            .unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains(&format!("blob {}", blob.digest())) && error.contains(&server.host),
            "{error}"
        );
        assert_eq!(server.seen("/blobs/").len(), tries, "{expected}");
    }
}

/// A registry that is just starting again gets more patience than an address with a typing error.
#[tokio::test]
async fn who_has_answered_before_is_waited_for() {
    let error = error_of(&registry("127.0.0.1:1", &options())).await;
    assert!(error.ends_with("and its port (tried 2 times)"), "{error}");
    let server = Server::start(|_| Reply::new(200, "{}")).await;
    let registry = registry(&server.host, &options());
    registry.document(&tag()).await.unwrap();
    server.stop().await;
    let error = error_of(&registry).await;
    assert!(error.ends_with("and its port (tried 3 times)"), "{error}");
}

#[tokio::test]
async fn basic_authentication() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request| {
        let right = format!("Basic {}", STANDARD.encode("bob:s3cret"));
        if request.authorization.as_deref() == Some(&right) {
            return Reply::new(200, "{}");
        }
        let error = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Reply::new(401, error).header("www-authenticate", r#"Basic realm="Registry""#)
    })
    .await;
    let options_for = |secret: &str| with_authfile(&folder, &server.host, &password(secret));
    assert!(
        registry(&server.host, &options_for("bob:s3cret"))
            .document(&tag())
            .await
            .is_ok()
    );

    let error = error_of(&registry(&server.host, &options_for("bob:wr0ng"))).await;
    assert!(
        error.contains("401 Unauthorized (UNAUTHORIZED: authentication required)"),
        "{error}"
    );
    assert!(
        error.contains("the credentials of user \"bob\"") && error.contains("auth.json"),
        "{error}"
    );
    assert!(!error.contains("wr0ng"), "{error}");

    let error = error_of(&registry(&server.host, &options())).await;
    assert!(
        error.contains("no credentials were found for it: give them with --authfile or --pull-secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_that_expires_in_mid_pull_is_renewed() {
    let content = content();
    let blob = descriptor(&content);
    let token_server =
        Server::start(|request| Reply::new(200, format!(r#"{{"token":"t{}"}}"#, request.nth))).await;
    let realm = format!("http://{}/token", token_server.host);
    let served = content.clone();
    let server = Server::start(move |request| {
        // The first token is good for one request, the second for ever.
        let wanted = request.nth.min(1);
        let door = request.path == "/v2/";
        if !door && request.authorization == Some(format!("Bearer t{wanted}")) {
            return Reply {
                cut: (wanted == 0).then_some(1000),
                ..honest(&served, request)
            };
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="reg.lab",scope="repository:os/web:pull""#);
        Reply::new(401, "").header("www-authenticate", challenge)
    })
    .await;
    let read = read_blob(&registry(&server.host, &options()), &blob, 0)
        .await
        .unwrap();
    assert!(read == content);
    let asked = token_server.seen("/token");
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].path.contains("service=reg.lab")
            && asked[0].path.contains("scope=repository%3Aos%2Fweb%3Apull")
    );
}

/// A part is given by who can give it alone; everybody else is asked once, and nothing is read of what comes.
#[tokio::test]
async fn a_part_of_a_blob_is_had_cheaply_or_not_at_all() {
    let content = content();
    let blob = descriptor(&content);
    type Answer = fn(&[u8]) -> Reply;
    let cases: [(Answer, Option<&[u8]>); 6] = [
        (
            |content| Reply::new(206, &content[10..14]).header("content-range", "bytes 10-13/1200000"),
            Some(&content[10..14]),
        ),
        (
            |content| Reply::new(206, &content[..4]).header("content-range", "bytes 0-3/1200000"),
            None,
        ),
        (
            |content| Reply::new(206, &content[10..13]).header("content-range", "bytes 10-12/1200000"),
            None,
        ),
        (
            |content| Reply::new(206, &content[10..]).header("content-range", "bytes 10-1199999/1200000"),
            None,
        ),
        (
            |content| Reply {
                stall: Some(1 << 20),
                ..Reply::new(200, content)
            },
            None,
        ),
        (|_| Reply::new(503, ""), None),
    ];
    for (number, (answer, expected)) in cases.into_iter().enumerate() {
        let served = content.clone();
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => answer(&served),
        })
        .await;
        let part = registry(&server.host, &options()).part(&blob, 10, 4).await;
        assert_eq!(part.as_deref(), expected, "{number}");
        let asked = server.seen("/blobs/");
        assert_eq!(asked.len(), 1, "{number}");
        assert_eq!(asked[0].range.as_deref(), Some("bytes=10-13"), "{number}");
    }
}
