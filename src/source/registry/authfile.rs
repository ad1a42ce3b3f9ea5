//! Credentials from a containers-auth.json(5): the `auths` map, looked up by repository, then by its parents, then by
//! the registry alone; docker's spellings of the same keys are understood.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

/// No list of credentials is larger than this, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// What proves who we are. Wiped from memory when dropped; never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A token that a token server exchanges for others.
    IdentityToken(Zeroizing<String>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(out, "Password {{ user: {user:?}, password: [redacted] }}"),
            Self::IdentityToken(_) => out.write_str("IdentityToken([redacted])"),
        }
    }
}

/// The credentials of one file.
#[derive(Debug, Default)]
pub struct AuthFile {
    /// By `HOST[:PORT][/PATH]`.
    entries: BTreeMap<String, Credentials>,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    auths: BTreeMap<String, RawEntry>,
}

/// Fields beyond these (docker's `email`, for one) mean nothing to us.
#[derive(Deserialize)]
struct RawEntry {
    auth: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

impl AuthFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let doing = || format!("reading credentials from {}", path.display());
        let mut bytes = Zeroizing::new(Vec::new());
        let file = File::open(path).with_context(doing)?;
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(doing)?;
        Self::parse(&bytes).with_context(doing)
    }

    /// Parses the contents of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() as u64 <= MAX_BYTES,
            "it is larger than {} MiB",
            MAX_BYTES >> 20
        );
        // serde_json's errors name line and column, and for a wrong type the value: that may be a secret.
        let Ok(raw) = serde_json::from_slice::<RawFile>(bytes) else {
            bail!(
                r#"it is not of the form {{"auths": {{"HOST": {{"auth": "BASE64"}}}}}} (containers-auth.json)"#
            )
        };
        let mut entries = BTreeMap::new();
        for (key, entry) in raw.auths {
            if let Some(credentials) = credentials(&entry).with_context(|| format!("at {key:?}"))? {
                entries.insert(normalized(&key), credentials);
            }
        }
        Ok(Self { entries })
    }

    /// The credentials for `repository` at `registry` (`HOST[:PORT]`), and the key that they are filed under: the
    /// longest prefix wins.
    pub fn lookup(&self, registry: &str, repository: &str) -> Option<(&str, &Credentials)> {
        let registry = canonical_host(registry);
        let full = format!("{registry}/{repository}");
        let parents = std::iter::successors(Some(full.as_str()), |name| {
            name.rsplit_once('/').map(|(up, _)| up)
        });
        parents
            .filter_map(|name| self.entries.get_key_value(name))
            .map(|(key, value)| (key.as_str(), value))
            .next()
    }
}

fn credentials(entry: &RawEntry) -> Result<Option<Credentials>> {
    if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::IdentityToken(token.clone())));
    }
    entry
        .auth
        .as_ref()
        .filter(|auth| !auth.is_empty())
        .map(|auth| decode_auth(auth))
        .transpose()
}

/// Decodes the `auth` of an entry: base64 of `USER:PASSWORD`.
fn decode_auth(auth: &str) -> Result<Credentials> {
    const WANTED: &str = "`auth` is not base64 of USER:PASSWORD";
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).ok().context(WANTED)?);
    let text = std::str::from_utf8(&bytes).ok().context(WANTED)?;
    let (user, password) = text.split_once(':').context(WANTED)?;
    Ok(Credentials::Password {
        user: user.into(),
        // Docker once padded passwords with NULs.
        password: Zeroizing::new(password.trim_matches('\0').into()),
    })
}

/// A key as we look it up. Docker writes URLs there, whose path means nothing.
fn normalized(key: &str) -> String {
    let stripped = key.strip_prefix("https://").or(key.strip_prefix("http://"));
    let name = match stripped {
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key.trim_end_matches('/'),
    };
    let (host, path) = name
        .split_once('/')
        .map_or((name, None), |(host, path)| (host, Some(path)));
    let host = canonical_host(host);
    // Docker's own registry is filed under `index.docker.io/v1/`.
    match path {
        Some(path) if path != "v1" && path != "v2" => format!("{host}/{path}"),
        _ => host.into(),
    }
}

fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(found: Option<(&str, &Credentials)>) -> Option<String> {
        match found?.1 {
            Credentials::Password { user, password } => Some(format!("{user}:{}", password.as_str())),
            Credentials::IdentityToken(token) => Some(format!("token {}", token.as_str())),
        }
    }

    fn file(entries: &[(&str, &str)]) -> AuthFile {
        let entries: Vec<String> = entries
            .iter()
            .map(|(key, secret)| {
                format!(
                    r#""{key}": {{"auth": "{}", "email": "x"}}"#,
                    STANDARD.encode(secret)
                )
            })
            .collect();
        AuthFile::parse(format!(r#"{{"auths": {{{}}}}}"#, entries.join(",")).as_bytes()).unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let file = file(&[
            ("reg.lab", "host:1"),
            ("reg.lab:5000", "port:2"),
            ("reg.lab:5000/os", "space:3"),
            ("reg.lab:5000/os/web", "repository:4:with:colons"),
            ("https://index.docker.io/v1/", "docker:5"),
            ("https://old.lab/v2/", "url:6"),
            ("index.lab/v1/", "versioned:7"),
        ]);
        for (registry, repository, expected) in [
            ("reg.lab", "os/web", Some("host:1")),
            ("reg.lab:5000", "db", Some("port:2")),
            ("reg.lab:5000", "os/db", Some("space:3")),
            ("reg.lab:5000", "osx", Some("port:2")),
            ("reg.lab:5000", "os/web", Some("repository:4:with:colons")),
            ("reg.lab:5000", "os/web/deep/er", Some("repository:4:with:colons")),
            ("reg.lab:5001", "os/web", None),
            ("docker.io", "library/debian", Some("docker:5")),
            ("old.lab", "x", Some("url:6")),
            ("index.lab", "x", Some("versioned:7")),
            ("other.lab", "x", None),
        ] {
            assert_eq!(
                user(file.lookup(registry, repository)).as_deref(),
                expected,
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn identity_tokens_and_empty_entries() {
        let file = AuthFile::parse(
            br#"{"auths":{"a.lab":{"auth":"eDp5","identitytoken":"t0ken"},"b.lab":{},"c.lab":{"auth":""}},"credsStore":"x"}"#,
        )
        .unwrap();
        assert_eq!(user(file.lookup("a.lab", "x")).as_deref(), Some("token t0ken"));
        assert_eq!(user(file.lookup("b.lab", "x")), None);
        assert_eq!(user(file.lookup("c.lab", "x")), None);
    }

    #[test]
    fn what_is_malformed_is_named_without_its_secret() {
        for (text, expected) in [
            ("", "not of the form"),
            (r#"{"auths":{"a.lab":{"auth":5318008}}}"#, "not of the form"),
            (r#"{"auths":{"a.lab":{"auth":"5318008!"}}}"#, "\"a.lab\""),
            // base64 of text without a colon
            (r#"{"auths":{"a.lab":{"auth":"NTMxODAwOA=="}}}"#, "USER:PASSWORD"),
        ] {
            let error = format!("{:#}", AuthFile::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("5318008"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let file = file(&[("a.lab", "user:s3cret")]);
        assert!(!format!("{file:?}").contains("s3cret"));
    }
}
