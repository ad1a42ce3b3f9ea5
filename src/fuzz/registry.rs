//! What registries are configured by, files for podman and skopeo, and what they say beside images.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::shown::one_line;
use crate::image::oci::Reference;
use crate::image::source::registry::challenge::{Challenge, refuses_token};
use crate::image::source::registry::config::auth_file::AuthFile;
use crate::image::source::registry::config::{pull_secret, registries};
use crate::image::source::registry::error::{clean, parse_error_body};

/// Whose credentials are looked for.
const PLACES: [(&str, &str); 4] = [
    ("reg.lab", "os/web"),
    ("reg.lab:5000", "os/web/deep/er"),
    ("docker.io", "library/web"),
    ("[::1]:5000", "web"),
];

/// A file of credentials, or a pull secret. What is wrong with it is told in one line that shows nothing of a
/// value.
pub fn auth_file(data: &[u8]) {
    match AuthFile::parse(data) {
        Ok(file) => {
            for (registry, repository) in PLACES {
                if let Err(error) = file.lookup(registry, repository) {
                    one_line(&format_args!("{error:#}"));
                }
            }
        }
        Err(error) => one_line(&format_args!("{error:#}")),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        match pull_secret::parse(text) {
            Ok(credentials) => one_line(&format_args!("{credentials:?}")),
            Err(error) => one_line(&format_args!("{error:#}")),
        }
    }
}

/// A registries.conf: whatever it says, an image is at places with names that are right, the last of them not
/// a mirror.
pub fn registries_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let conf = match registries::parse(text, Path::new("registries.conf")) {
        Ok(conf) => conf,
        Err(error) => return one_line(&format_args!("{error:#}")),
    };
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    for name in [
        "reg.lab/os/web:1",
        "a.b.reg.lab:5000/web",
        &format!("reg.lab/os/web@{digest}"),
    ] {
        let reference: Reference = name.parse().expect("a reference");
        match conf.locations(&reference, &["mirror.lab/cache".into()]) {
            Ok(locations) => {
                assert!(!locations.is_empty(), "{name} is nowhere");
                for location in locations {
                    let shown = location.reference.to_string();
                    assert_eq!(shown.parse().as_ref(), Ok(&location.reference), "{shown:?}");
                }
            }
            Err(error) => one_line(&format_args!("{error:#}")),
        }
    }
}

/// `WWW-Authenticate`, as several headers: one a line.
pub fn challenge(data: &[u8]) {
    let values = data.split(|byte| *byte == b'\n');
    let values = values.filter_map(|value| HeaderValue::from_bytes(value).ok());
    let headers: HeaderMap = values.map(|value| (WWW_AUTHENTICATE, value)).collect();
    let challenge = Challenge::from_headers(&headers);
    let asks = |scheme: &[u8]| {
        let mut windows = data.windows(scheme.len());
        windows.any(|window| window.eq_ignore_ascii_case(scheme))
    };
    match challenge {
        Some(Challenge::Basic) => assert!(asks(b"basic")),
        Some(Challenge::Bearer { .. }) => assert!(asks(b"bearer") && asks(b"realm")),
        None => {}
    }
    assert!(!refuses_token(&headers) || asks(b"invalid_token") || data.contains(&b'\\'));
}

/// The body of an answer that is an error. Of a stranger's words not many are shown, in one line, and no more
/// once they are clean.
pub fn error_body(data: &[u8]) {
    let (_, said) = parse_error_body(data);
    one_line(&said);
    assert!(said.chars().count() <= 301, "{said}");
    assert!(!said.contains(char::is_control), "{said:?}");
    let _ = clean(&said);
}

pub fn auth_files() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("podman", r#"{"auths":{"reg.lab":{"auth":"Ym9iOnMzY3JldA=="},"reg.lab/os":{"auth":"YTpi"}}}"#),
        ("docker", r#"{"auths":{"https://index.docker.io/v1/":{"auth":"Ym9iOnMzY3JldA==","email":"x"}},"credsStore":"secretservice"}"#),
        ("helpers", r#"{"credHelpers":{"reg.lab":"osxkeychain","":""},"credsStore":""}"#),
        ("identity", r#"{"auths":{"reg.lab:5000":{"auth":"YTpi","identitytoken":"t0ken"}}}"#),
        ("plain", r#"{"auths":{"reg.lab":{"username":"bob","password":"s3cret"}}}"#),
        ("bad base64", r#"{"auths":{"reg.lab":{"auth":"s3cret!"}}}"#),
        ("wrong type", r#"{"auths":{"reg.lab":"s3cret"}}"#),
        ("pair", "bob:s3cret\n"),
        ("base64", "Ym9iOnMzY3JldA"),
        ("base64 twice", "WW05aU9uTXpZM0psZEE9PQ=="),
        ("token", "eyJhbGciOi.J9.x"),
        ("lines", "a b\nc"),
    ]
    .map(|(name, text)| (name, text.into()))
    .into()
}

pub fn registries_confs() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("mirrors", "[[registry]]\nprefix='reg.lab/os'\nlocation='in.lab:5000/x'\n[[registry.mirror]]\nlocation='m.lab'\ninsecure=true\npull-from-mirror='digest-only'"),
        ("wildcard", "[[registry]]\nprefix='*.reg.lab:5000'\nblocked=true"),
        ("rewritten wildcard", "[[registry]]\nprefix='*.lab'\nlocation='other.lab/a/b'"),
        ("by digest", "[[registry]]\nlocation='reg.lab'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='reg.lab/os/web/deeper'"),
        ("nothing left", "[[registry]]\nprefix='reg.lab/os/web'\nlocation='in.lab'"),
        ("no name", "[[registry]]\nprefix='reg.lab'\nlocation='//'"),
        ("spaces", "[[registry]]\nprefix='reg.lab'\nlocation='a b/\u{fc}'"),
        ("upper case", "[[registry]]\nprefix='reg.lab/os'\nlocation='IN.LAB/OS'"),
        ("tag in a prefix", "[[registry]]\nprefix='reg.lab/os/web:1'\nlocation='in.lab/web:2'"),
        ("conflict", "[[registry]]\nlocation='a'\n[[registry]]\nprefix='b'\nlocation='a'\ninsecure=true"),
        ("version 1", "[registries.search]\nregistries=['x']"),
        ("helpers", "credential-helpers=['containers-auth.json','x']\nunqualified-search-registries=['docker.io']"),
        ("broken", "[[registry]\nlocation=\"\"\"x\n"),
    ]
    .map(|(name, text)| (name, text.into()))
    .into()
}

pub fn challenges() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("basic", r#"Basic realm="Registry", charset="UTF-8""#),
        ("bearer", r#"Bearer realm="https://auth.lab/t",service="reg.lab",scope="repository:a/b:pull,push",error="invalid_token""#),
        ("both", r#"Basic realm="x", Bearer realm="https://a/t""#),
        ("two lines", "Basic realm=\"x\"\nBEARER realm=https"),
        ("escaped", r#"Bearer realm="a\\\"b",error="inv\\alid_token""#),
        ("open", r#"Bearer realm="unclosed"#),
        ("token68", "Negotiate dG9rZW4="),
        ("commas", ",,Basic ,, realm=\"\",,"),
        ("not text", "Basic realm=\"\u{e4}\""),
    ]
    .map(|(name, text)| (name, text.into()))
    .into()
}

pub fn error_bodies() -> Vec<(&'static str, Vec<u8>)> {
    [
        (
            "OCI",
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
        ),
        ("no errors", r#"{"errors":[]}"#),
        ("details", r#"{"details":"incorrect username or password"}"#),
        (
            "OAuth2",
            r#"{"error":"invalid_grant","error_description":"Bearer eyJhbGciOi"}"#,
        ),
        ("HTML", "<html>nginx</html>"),
        (
            "a signed address",
            "see https://s3.lab/b?X-Amz-Signature=1 \u{1b}[31m\r\nnow",
        ),
        ("not ASCII", "\u{e4}\u{2028}\u{2029}\u{85}"),
    ]
    .map(|(name, text)| (name, text.into()))
    .into()
}
