//! A real registry that wants tokens, and the server that gives them: whom it knows, how long they live, what
//! it says.

mod support;

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use lab::faulty::{At, Fault, Faulty, Rule};
use lab::image::{self, Entry, Layer, Layout};
use lab::registry::Registry as Server;
use landfall::{Hasher, Image, Options, Platform, Reference, Registry, Source, resolve};
use support::quick;
use support::tokens::{Answer, Asked, SERVICE, TokenServer};

const TOKEN: Answer = (200, r#"{"token":"TOKEN"}"#);
const DENIED: Answer = (
    401,
    r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
);
const PASSWORD: &str = "bob:s3cret";

/// An image of several layers in a registry.
struct Origin {
    server: Server,
    folder: tempfile::TempDir,
    digests: Vec<String>,
}

impl Origin {
    fn new(server: Server) -> Self {
        let folder = lab::tempdir().unwrap();
        let layout = Layout::create(&folder.path().join("layout")).unwrap();
        let layer = |name: &str| Layer::new([Entry::file(name, name.repeat(40_000))]);
        let image = image::Image::new().layers(["one", "two", "three", "four"].map(layer));
        layout.add(&image, "1").unwrap();
        server.place(&layout, "1", "os/web:1").unwrap();
        let layers = layout.manifest("1").unwrap()["layers"].clone();
        let layers = layers.as_array().unwrap().iter();
        let digests = layers.map(|layer| layer["digest"].as_str().unwrap().into());
        Self {
            server,
            digests: digests.collect(),
            folder,
        }
    }

    /// Options with this entry in the file of credentials for `host`.
    fn with(&self, host: &str, entry: &str) -> Options {
        let path = self.folder.path().join("auth.json");
        std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).unwrap();
        Options {
            authfile: Some(path),
            ..quick()
        }
    }
}

fn password(secret: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(secret))
}

/// Pulls the image, all layers at once, and compares them with their digests.
async fn pull(host: &str, options: &Options) -> anyhow::Result<Image> {
    let reference: Reference = format!("{host}/os/web:1").parse()?;
    let registry = Registry::new(&reference, options)?;
    let image = resolve(&registry, &reference, &Platform::host()).await?;
    let layers = image.layers.iter().map(async |layer| {
        let mut hasher = Hasher::like(layer.blob.digest())?;
        let mut stream = registry.blob(&layer.blob, 0).await?;
        while let Some(chunk) = stream.try_next().await? {
            hasher.update(&chunk);
        }
        assert_eq!(hasher.finish(), *layer.blob.digest());
        anyhow::Ok(())
    });
    try_join_all(layers).await?;
    Ok(image)
}

async fn error_of(host: &str, options: &Options) -> String {
    let error = format!("{:#}", pull(host, options).await.expect_err("it must fail"));
    assert!(!error.contains('\n') && error.contains(host), "{error}");
    for secret in ["s3cret", "ident1ty", &STANDARD.encode(PASSWORD), "eyJ"] {
        assert!(!error.contains(secret), "{error}");
    }
    error
}

/// Whoever is known to the server gets a token; it tells how it was asked.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_asked_for_as_they_should_be() {
    let tokens = TokenServer::start(|asked| {
        let known = asked.authorization == Some(format!("Basic {}", STANDARD.encode(PASSWORD)));
        let anonymous = asked.method == "GET" && asked.authorization.is_none();
        match asked.field("refresh_token") {
            Some("ident1ty") => (200, r#"{"access_token":"TOKEN","scope":"","expires_in":60}"#),
            None if known || anonymous => (200, r#"{"token":"TOKEN","access_token":"TOKEN"}"#),
            _ => DENIED,
        }
    });
    let origin = Origin::new(tokens.registry().start().unwrap());
    let host = origin.server.host();
    for (entry, method) in [
        ("{}".into(), "GET"),
        (password(PASSWORD), "GET"),
        (r#"{"identitytoken":"ident1ty"}"#.into(), "POST"),
    ] {
        let before = tokens.asked().len();
        pull(&host, &origin.with(&host, &entry)).await.unwrap();
        let asked: Vec<Asked> = tokens.asked().split_off(before);
        assert_eq!(asked.len(), 1, "one token is enough: {asked:#?}");
        assert_eq!(asked[0].method, method, "{entry}");
        assert_eq!(asked[0].field("service"), Some(SERVICE), "{entry}");
        assert_eq!(asked[0].field("scope"), Some("repository:os/web:pull"), "{entry}");
        let grant = (method == "POST").then_some("refresh_token");
        assert_eq!(asked[0].field("grant_type"), grant, "{entry}");
        assert_eq!(
            asked[0].field("from"),
            (method == "GET").then_some("registry"),
            "the realm's own query"
        );
    }
    for (entry, whose) in [
        (password("bob:wr0ng"), "the credentials of user \"bob\""),
        (r#"{"identitytoken":"0ld"}"#.into(), "the identity token"),
    ] {
        let error = error_of(&host, &origin.with(&host, &entry)).await;
        let expected = format!(
            "wants a token from {}, which answered 401 Unauthorized (DENIED: requested access to the resource is denied): \
             {whose}",
            tokens.host()
        );
        assert!(error.contains(&expected), "{error}");
    }
}

/// Whatever a token expires at, another one is fetched, once, and the pull goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_in_mid_pull() {
    let tokens = TokenServer::start(|_| TOKEN);
    let origin = Origin::new(tokens.registry().start().unwrap());
    let layer = format!("/blobs/{}", origin.digests[2]);
    let cut_then_expired = Rule {
        part: layer.clone(),
        faults: vec![Fault::Cut(At::Middle), Fault::ExpireToken],
        and_so_on: false,
    };
    for (rule, answers) in [
        (Rule::once("/manifests/", Fault::ExpireToken), 2),
        (Rule::once("/blobs/", Fault::ExpireToken), 2),
        (Rule::once(&layer, Fault::ExpireToken), 2),
        (cut_then_expired, 3),
    ] {
        let before = tokens.asked().len();
        let proxy = Faulty::start(&origin.server.host(), vec![rule.clone()]);
        pull(&proxy.host(), &quick()).await.unwrap();
        assert_eq!(tokens.asked().len() - before, 2, "{rule:?}");
        let seen = proxy.seen(&rule.part);
        let of_one: Vec<_> = seen
            .iter()
            .filter(|request| request.path == seen[0].path)
            .collect();
        assert_eq!(of_one.len(), answers, "{rule:?}: {of_one:#?}");
        if answers == 3 {
            let ranges: Vec<_> = of_one.iter().map(|request| request.header("range")).collect();
            assert!(
                ranges[1].is_some() && ranges[1] == ranges[2],
                "it went on where it stopped: {ranges:?}"
            );
        }
    }
}

/// No clock is asked how old a token is: neither the server's word for it nor ours counts before the
/// registry's.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_wrong() {
    for body in [
        r#"{"token":"TOKEN","expires_in":1,"issued_at":"1970-01-01T00:00:00Z"}"#,
        r#"{"token":"TOKEN","expires_in":0,"issued_at":"2099-12-31T23:59:59Z"}"#,
        r#"{"token":"TOKEN","expires_in":-5,"issued_at":"yesterday"}"#,
    ] {
        let tokens = TokenServer::start(move |_| (200, body));
        let origin = Origin::new(tokens.registry().start().unwrap());
        pull(&origin.server.host(), &quick()).await.unwrap();
        assert_eq!(tokens.asked().len(), 1, "{body}");
    }
    // The token server's own clock is wrong: no new token will be better.
    let tokens = TokenServer::start(|_| (200, r#"{"token":"OLD"}"#));
    let origin = Origin::new(tokens.registry().start().unwrap());
    let error = error_of(&origin.server.host(), &quick()).await;
    assert!(error.contains("does not accept the token"), "{error}");
    assert!(tokens.asked().len() <= 2, "{:#?}", tokens.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_server_says_is_shown() {
    for (answer, expected) in [
        (
            DENIED,
            "401 Unauthorized (DENIED: requested access to the resource is denied): no credentials were found",
        ),
        (
            (
                403,
                r#"{"errors":[{"code":"DENIED","message":"account is locked"}]}"#,
            ),
            "403 Forbidden (DENIED: account is locked)",
        ),
        (
            (401, r#"{"details":"incorrect username or password"}"#),
            "401 Unauthorized (incorrect username or password)",
        ),
        (
            (
                400,
                r#"{"error":"invalid_grant","error_description":"the token was revoked"}"#,
            ),
            "400 Bad Request (invalid_grant: the token was revoked)",
        ),
        (
            (400, r#"{"error":"unsupported"}"#),
            "400 Bad Request (unsupported)",
        ),
        ((400, r#"{"message":"bad scope"}"#), "400 Bad Request (bad scope)"),
        ((404, "not here"), "404 Not Found (not here)"),
        (
            (500, "the database is away"),
            "500 Internal Server Error (the database is away) (tried 3 times)",
        ),
        (
            (502, "<html><title>nginx</title></html>"),
            "502 Bad Gateway (tried 3 times)",
        ),
        ((200, "<html>please log in</html>"), "whose answer has none"),
        ((200, "{}"), "whose answer has none"),
        ((200, r#"{"token":""}"#), "whose answer has none"),
    ] {
        let tokens = TokenServer::start(move |_| answer);
        let origin = Origin::new(tokens.registry().start().unwrap());
        let error = error_of(&origin.server.host(), &quick()).await;
        let wants = format!("wants a token from {}", tokens.host());
        assert!(
            error.contains(expected) && error.contains(&wants),
            "{answer:?}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_busy_is_asked_again() {
    for busy in [429, 500, 503] {
        let tokens = TokenServer::start(move |asked| if asked.nth == 0 { (busy, "") } else { TOKEN });
        let origin = Origin::new(tokens.registry().start().unwrap());
        pull(&origin.server.host(), &quick()).await.unwrap();
        assert_eq!(tokens.asked().len(), 2, "{busy}");
    }
}

/// A registry with TLS that sends its clients' passwords to a token server without.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_go_nowhere_unencrypted() {
    let tokens = TokenServer::start(|_| TOKEN);
    let origin = Origin::new(tokens.registry().tls().start().unwrap());
    let host = origin.server.host();
    let verifying = |options: Options| Options {
        tls_verify: true,
        ca_cert: origin.server.ca().map(Path::to_path_buf),
        ..options
    };
    let error = error_of(&host, &verifying(origin.with(&host, &password(PASSWORD)))).await;
    assert!(
        error.contains("wants the credentials sent unencrypted to"),
        "{error}"
    );
    assert!(tokens.asked().is_empty());
    // Without a password there is nothing to lose.
    pull(&host, &verifying(quick())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_away() {
    let gone = TokenServer::start(|_| TOKEN);
    let realm = serde_json::json!({
        "realm": "http://127.0.0.1:1/token",
        "service": SERVICE,
        "issuer": "nobody",
        "rootcertbundle": gone.authority(),
    });
    let server = Server::builder().set("/auth/token", realm).start().unwrap();
    let error = error_of(&Origin::new(server).server.host(), &quick()).await;
    assert!(
        error.contains("wants a token from 127.0.0.1:1, which refuses connections"),
        "{error}"
    );
}
