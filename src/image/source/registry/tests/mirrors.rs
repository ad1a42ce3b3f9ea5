//! Several places that have an image: who is asked, and what happens when one of them fails.

use std::sync::{Arc, Mutex};

use super::*;
use crate::console::progress::{Event, Progress};

/// A mirror or the registry: what each does with a request that isn't for its door.
type Behaviour = fn(&[u8], &Request) -> Option<Reply>;

/// Both in front of a registry that is as it should be.
const HONEST: Behaviour = |_, _| None;

async fn server(content: &[u8], behaviour: Behaviour) -> Server {
    let content = content.to_vec();
    Server::start(move |request| {
        let given = (request.path != "/v2/")
            .then(|| behaviour(&content, request))
            .flatten();
        given.unwrap_or_else(|| honest(&content, request))
    })
    .await
}

/// The registry behind its mirrors, and what it tells.
fn behind(mirrors: &[&Server], registry: &str, options: Options) -> (Registry, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = notes.clone();
    let options = Options {
        mirrors: mirrors
            .iter()
            .map(|server| format!("{}/cache", server.host))
            .collect(),
        progress: Progress::to(move |event| match event {
            Event::Note(text) | Event::Warning(text) => sink.lock().unwrap().push(text),
            _ => {}
        }),
        ..options
    };
    (super::registry(registry, &options), notes)
}

#[tokio::test]
async fn whatever_a_mirror_does_the_image_comes() {
    let content = content();
    let blob = descriptor(&content);
    let cases: [(&str, Behaviour, usize); 8] = [
        ("answered 404", |_, _| Some(Reply::new(404, "")), 1),
        ("answered 401", |_, _| Some(Reply::new(401, "")), 1),
        ("answered 403", |_, _| Some(Reply::new(403, "")), 1),
        ("answered 502", |_, _| Some(Reply::new(502, "")), 1),
        // A server that names a time gets a second chance.
        (
            "answered 503",
            |_, _| Some(Reply::new(503, "").header("retry-after", "0")),
            2,
        ),
        (
            "was silent",
            |_, _| {
                Some(Reply {
                    stall: Some(0),
                    ..Reply::new(200, "x")
                })
            },
            1,
        ),
        ("ended after 0 of", |_, _| Some(Reply::new(200, "")), 2),
        (
            "without saying which",
            |content, _| Some(Reply::new(206, content)),
            1,
        ),
    ];
    for (said, behaviour, tries) in cases {
        let (bad, good) = (server(&content, behaviour).await, server(&content, HONEST).await);
        let (registry, notes) = behind(&[&bad, &good], "127.0.0.1:1", options());
        assert!(read_blob(&registry, &blob, 0).await.unwrap() == content, "{said}");
        let asked = bad.seen("/blobs/");
        assert_eq!(asked.len(), tries, "{said}");
        assert!(asked[0].path.starts_with("/v2/cache/os/web/blobs/"), "{asked:?}");
        let notes = notes.lock().unwrap().join("\n");
        let told = format!("registry {}, asked for blob {}, ", bad.host, blob.digest());
        assert!(
            notes.contains(&told)
                && notes.contains(said)
                && notes.contains(&format!("; asking {}", good.host)),
            "{notes}"
        );
        // Who lacks one blob may have others; who fails is not asked again.
        assert!(read_blob(&registry, &blob, 0).await.unwrap() == content, "{said}");
        let again = bad.seen("/blobs/").len() > tries;
        assert_eq!(
            again,
            ["answered 404", "without saying which"].contains(&said),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_mirror_that_dies_in_mid_blob_hands_over_at_that_byte() {
    let content = content();
    let blob = descriptor(&content);
    for at in [1, content.len() / 2, content.len() - 1] {
        // The first answer breaks off there, everything after that is an error.
        static AT: Mutex<usize> = Mutex::new(0);
        *AT.lock().unwrap() = at;
        let dying = server(&content, |content, request| match request.range {
            None => Some(Reply {
                cut: Some(*AT.lock().unwrap()),
                ..Reply::new(200, content)
            }),
            Some(_) => Some(Reply::new(500, "")),
        })
        .await;
        let good = server(&content, HONEST).await;
        let (registry, _) = behind(&[&dying], &good.host, options());
        assert!(read_blob(&registry, &blob, 0).await.unwrap() == content, "{at}");
        let asked = good.seen("/blobs/");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].range.as_deref(), Some(format!("bytes={at}-").as_str()));
    }
}

#[tokio::test]
async fn a_document_comes_from_the_first_that_has_it() {
    for (behaviour, said) in [
        ((|_, _| Some(Reply::new(404, ""))) as Behaviour, "answered 404"),
        (|_, _| Some(Reply::new(500, "")), "answered 500"),
    ] {
        let (bad, good) = (server(b"{}", behaviour).await, server(b"{}", HONEST).await);
        let (registry, notes) = behind(&[&bad], &good.host, options());
        for _ in 0..2 {
            assert_eq!(registry.document(&tag()).await.unwrap().bytes, b"{}");
        }
        assert_eq!(bad.seen("/v2/cache/os/web/manifests/1").len(), 1);
        assert_eq!(good.seen("/v2/os/web/manifests/1").len(), 2);
        {
            let notes = notes.lock().unwrap();
            assert!(notes.len() == 1 && notes[0].contains(said), "{notes:?}");
        }

        let (registry, _) = behind(&[&bad], "127.0.0.1:1", options());
        let error = error_of(&registry).await;
        assert!(
            error.contains("registry 127.0.0.1:1, asked for os/web:1, refuses connections")
                && error.ends_with(&format!("; its mirror {} failed before", bad.host)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_mirror_that_lies_is_not_asked_for_that_blob_again() {
    let content = content();
    let blob = descriptor(&content);
    let other = descriptor(b"another");
    let liar = server(&content, |content, _| {
        Some(Reply::new(200, vec![0; content.len()]))
    })
    .await;
    let good = server(&content, HONEST).await;
    let (registry, notes) = behind(&[&liar], &good.host, options());
    assert!(!registry.distrust(&blob), "nothing came yet");
    assert!(read_blob(&registry, &blob, 0).await.unwrap() != content);
    assert!(registry.distrust(&blob));
    assert!(read_blob(&registry, &blob, 0).await.unwrap() == content);
    // There is nobody left to be asked.
    assert!(!registry.distrust(&blob) && !registry.distrust(&other));
    assert_eq!(liar.seen("/blobs/").len(), 1);
    let notes = notes.lock().unwrap();
    assert!(
        notes[0].contains(&format!(
            "mirror {} sent other bytes for blob {}",
            liar.host,
            blob.digest()
        )),
        "{notes:?}"
    );
}

#[tokio::test]
async fn a_config_that_a_mirror_spoiled_comes_from_the_next() {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest::sha256(config).to_string(),
            "size": config.len(),
        },
        "layers": [],
    });
    let start = async |config: Vec<u8>| {
        let manifest = manifest.to_string();
        Server::start(move |request| match request.path.contains("/manifests/") {
            true => Reply::new(200, manifest.clone())
                .header("content-type", "application/vnd.oci.image.manifest.v1+json"),
            false => Reply::new(200, config.clone()),
        })
        .await
    };
    let mut spoiled = config.to_vec();
    *spoiled.last_mut().unwrap() = b' ';
    let (bad, good) = (start(spoiled.clone()).await, start(config.to_vec()).await);
    let resolve = async |registry: &Registry| {
        let reference = "reg.lab/os/web:1".parse().unwrap();
        let platform = "linux/amd64".parse().unwrap();
        crate::image::source::resolve::resolve(registry, &reference, &platform).await
    };
    let (registry, _) = behind(&[&bad], &good.host, options());
    let image = resolve(&registry).await;
    // An image without layers is of no use; that its config was read is all that matters here.
    match image {
        Ok(image) => assert_eq!(image.config, config),
        Err(error) => assert!(!format!("{error:#}").contains("digest"), "{error:#}"),
    }
    assert_eq!(good.seen("/blobs/").len(), 1);
    let error = resolve(&behind(&[], &bad.host, options()).0).await.unwrap_err();
    assert!(format!("{error:#}").contains("digest"), "{error:#}");
}

#[tokio::test]
async fn registries_conf_names_the_places() {
    let content = content();
    let blob = descriptor(&content);
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("registries.conf");
    let mirror = server(&content, |_, request| {
        request.path.contains("/blobs/").then(|| Reply::new(404, ""))
    })
    .await;
    let own = server(&content, HONEST).await;
    let text = |insecure: bool| {
        format!(
            "[[registry]]\nprefix = 'reg.lab/os'\nlocation = '{}/real'\ninsecure = {insecure}\n\
             [[registry.mirror]]\nlocation = '{}/near'\ninsecure = {insecure}\n",
            own.host, mirror.host
        )
    };
    let options = Options {
        registries_conf: Some(conf.clone()),
        tls_verify: true,
        ..options()
    };
    std::fs::write(&conf, text(true)).unwrap();
    let registry = super::registry("reg.lab", &options);
    assert!(registry.document(&tag()).await.is_ok());
    assert!(read_blob(&registry, &blob, 0).await.unwrap() == content);
    assert_eq!(mirror.seen("/v2/near/web/manifests/1").len(), 1);
    assert_eq!(own.seen("/v2/real/web/blobs/").len(), 1);

    // Neither without `insecure` nor against --tls-verify=true.
    for (insecure, heed_insecure) in [(false, true), (true, false)] {
        std::fs::write(&conf, text(insecure)).unwrap();
        let options = Options {
            heed_insecure,
            ..options.clone()
        };
        let error = error_of(&super::registry("reg.lab", &options)).await;
        assert!(error.contains("speaks plain HTTP, not TLS"), "{error}");
    }
}

#[tokio::test]
async fn a_mirror_that_cannot_be_set_up_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let certs = root.path().join("etc/containers/certs.d/127.0.0.1:2");
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::write(certs.join("lonely.key"), "").unwrap();
    let good = server(b"{}", HONEST).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = notes.clone();
    let options = Options {
        mirrors: vec!["127.0.0.1:2".into()],
        places: Places::new(root.path(), 0, |_| None),
        progress: Progress::to(move |event| {
            if let Event::Warning(text) = event {
                sink.lock().unwrap().push(text);
            }
        }),
        ..options()
    };
    assert!(
        super::registry(&good.host, &options)
            .document(&tag())
            .await
            .is_ok()
    );
    let notes = notes.lock().unwrap().join("\n");
    assert!(
        notes.contains("skipping the mirror 127.0.0.1:2/os/web:1")
            && notes.contains("lonely.cert is missing"),
        "{notes}"
    );
    // What is wrong with the registry's own isn't skipped.
    let reference = "127.0.0.1:2/os/web:1".parse().unwrap();
    let error = Registry::new(
        &reference,
        &Options {
            mirrors: vec![],
            ..options
        },
    )
    .err()
    .unwrap();
    assert!(
        format!("{error:#}").contains("lonely.cert is missing"),
        "{error:#}"
    );
}
