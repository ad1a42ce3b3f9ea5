//! Whose credentials go where.

use super::*;

/// Lets in whoever says `expected`, by whatever scheme.
async fn guarded(scheme: &'static str, expected: &str) -> Server {
    let expected = expected.to_owned();
    Server::start(move |request| {
        if request.authorization.as_deref() == Some(&expected) {
            return Reply::new(200, "{}");
        }
        Reply::new(401, "").header("www-authenticate", scheme)
    })
    .await
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test]
async fn a_pull_secret_is_for_the_images_own_registry_alone() {
    const REALM: &str = r#"Basic realm="x""#;
    const TOKEN: &str = r#"Bearer realm="http://127.0.0.1:1/never/asked""#;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    for (text, scheme, sent) in [
        ("bob:s3cret", REALM, basic("bob:s3cret")),
        (&STANDARD.encode("bob:s3cret"), REALM, basic("bob:s3cret")),
        ("opaque-token", TOKEN, "Bearer opaque-token".into()),
        ("opaque-token", REALM, "Bearer opaque-token".into()),
    ] {
        std::fs::write(&secret, text).unwrap();
        let (own, mirror) = (guarded(scheme, &sent).await, guarded(scheme, &sent).await);
        let options = Options {
            pull_secret: Some(secret.clone()),
            mirrors: vec![mirror.host.clone()],
            ..options()
        };
        let registry = registry(&own.host, &options);
        assert!(registry.document(&tag()).await.is_ok(), "{text}");
        for request in mirror.seen("") {
            assert_eq!(request.authorization, None, "{text}: {request:?}");
        }

        // One that isn't accepted is tried once, and named by its file.
        std::fs::write(&secret, "bob:wr0ng").unwrap();
        let options = Options {
            mirrors: vec![],
            ..options
        };
        if scheme == REALM {
            let error = error_of(&super::registry(&own.host, &options)).await;
            assert!(
                error.contains("the credentials of user \"bob\" (the pull secret in")
                    && !error.contains("wr0ng"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_named_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wr0ng-token").unwrap();
    let server = guarded(r#"Bearer realm="http://127.0.0.1:1/x""#, "Bearer other").await;
    let options = Options {
        pull_secret: Some(secret),
        ..options()
    };
    let error = error_of(&registry(&server.host, &options)).await;
    assert!(
        error.contains("401 Unauthorized: the token (the pull secret in") && !error.contains("wr0ng"),
        "{error}"
    );
}

#[tokio::test]
async fn every_mirror_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (near, own) = ("near:1", "own:2");
    // The mirror lets its user in, but has nothing.
    let mirror = Server::start(move |request| match &request.authorization {
        Some(found) if *found == basic(near) => Reply::new(404, ""),
        _ => Reply::new(401, "").header("www-authenticate", r#"Basic realm="x""#),
    })
    .await;
    let registry = guarded(r#"Basic realm="x""#, &basic(own)).await;
    let authfile = folder.path().join("auth.json");
    let (near_entry, own_entry) = (password(near), password(own));
    let text = format!(
        r#"{{"auths":{{"{}/os":{near_entry},"{}":{own_entry}}}}}"#,
        mirror.host, registry.host
    );
    std::fs::write(&authfile, text).unwrap();
    let options = Options {
        authfile: Some(authfile),
        mirrors: vec![mirror.host.clone()],
        ..options()
    };
    let document = super::registry(&registry.host, &options).document(&tag()).await;
    assert!(document.is_ok());
    for (server, pair) in [(&mirror, near), (&registry, own)] {
        let sent: Vec<_> = server
            .seen("")
            .into_iter()
            .filter_map(|request| request.authorization)
            .collect();
        assert!(
            !sent.is_empty() && sent.iter().all(|found| *found == basic(pair)),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn a_helper_is_asked_only_when_a_registry_wants_credentials() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("root/.docker");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(
        config.join("config.json"),
        r#"{"credsStore":"landfall-has-no-such"}"#,
    )
    .unwrap();
    let options = Options {
        places: Places::new(root.path(), 0, |_| None),
        ..options()
    };
    let open = Server::start(|_| Reply::new(200, "{}")).await;
    assert!(registry(&open.host, &options).document(&tag()).await.is_ok());
    let closed = guarded(r#"Basic realm="x""#, "").await;
    let error = error_of(&registry(&closed.host, &options)).await;
    assert!(
        error.contains("wants credentials: asking docker-credential-landfall-has-no-such")
            && error.contains("config.json"),
        "{error}"
    );
}
