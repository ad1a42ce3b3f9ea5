//! A file of credentials: containers-auth.json(5), docker's `config.json`, or its older `.dockercfg`. Looked
//! up by repository, then by its parents, then by the registry alone; docker's spellings of the same keys are
//! understood.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credentials::Credentials;

/// No list of credentials is larger than this, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The contents of one file. Wiped from memory when dropped; what it holds is decoded only when it is asked
/// for, so that one bad entry isn't everybody's.
#[derive(Default)]
pub struct AuthFile {
    /// By `HOST[:PORT][/PATH]`.
    entries: BTreeMap<String, Entry>,
    /// Helpers, by `HOST[:PORT]`.
    helpers: BTreeMap<String, String>,
    /// The helper for all others.
    store: Option<String>,
}

/// What a file has for a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum Login<'a> {
    /// Credentials, and the key that they are filed under.
    Credentials(&'a str, Credentials),
    /// The name of the program that has them, behind `docker-credential-`.
    Helper(&'a str),
}

/// `config.json` and `auth.json`. Docker writes `null` where there is nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    auths: Option<Entries>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

type Entries = BTreeMap<String, Option<Entry>>;

/// Fields beyond these (docker's `email`, for one) mean nothing to us.
#[derive(Deserialize)]
struct Entry {
    auth: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
}

impl AuthFile {
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
        Ok(Self {
            entries: by_name(raw.auths.unwrap_or_default()),
            helpers: raw.cred_helpers.unwrap_or_default(),
            store: raw.creds_store.filter(|name| !name.is_empty()),
        })
    }

    /// Parses the contents of a file of docker's old form, which has nothing but the entries.
    pub fn parse_old(bytes: &[u8]) -> Result<Self> {
        let Ok(entries) = serde_json::from_slice(bytes) else {
            bail!(r#"it is not of the form {{"HOST": {{"auth": "BASE64"}}}}"#)
        };
        Ok(Self {
            entries: by_name(entries),
            ..Self::default()
        })
    }

    /// What there is for `repository` at `registry` (`HOST[:PORT]`): a helper of that registry, else the
    /// credentials under the longest prefix, else the helper for all.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Login<'_>>> {
        let registry = canonical_host(registry);
        let helper = self.helpers.iter().find(|(key, _)| normalized(key) == registry);
        if let Some((_, helper)) = helper {
            return Ok(Some(Login::Helper(helper)));
        }
        let full = format!("{registry}/{repository}");
        let parents = std::iter::successors(Some(full.as_str()), |name| {
            name.rsplit_once('/').map(|(up, _)| up)
        });
        for (key, entry) in parents.filter_map(|name| self.entries.get_key_value(name)) {
            if let Some(credentials) = entry.credentials().with_context(|| format!("at {key:?}"))? {
                return Ok(Some(Login::Credentials(key, credentials)));
            }
        }
        Ok(self.store.as_deref().map(Login::Helper))
    }
}

/// The contents of a file; `None` where there is none.
pub fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>> {
        let given = |text: &Option<Zeroizing<String>>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let Some(auth) = given(&self.auth) {
            return decode_auth(&auth).map(Some);
        }
        Ok(match (&self.username, given(&self.password)) {
            (Some(user), Some(password)) => Some(Credentials::Password {
                user: user.clone(),
                password,
            }),
            _ => None,
        })
    }
}

/// Decodes the `auth` of an entry: base64 of `USER:PASSWORD`.
fn decode_auth(auth: &str) -> Result<Credentials> {
    const WANTED: &str = "`auth` is not base64 of USER:PASSWORD";
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).ok().context(WANTED)?);
    let text = std::str::from_utf8(&bytes).ok().context(WANTED)?;
    Credentials::from_pair(text).context(WANTED)
}

/// Entries by the names that are looked up. A key that is spelled so already wins over one of docker's URLs.
fn by_name(raw: Entries) -> BTreeMap<String, Entry> {
    let given = raw.into_iter().filter_map(|(key, entry)| Some((key, entry?)));
    let (spelled, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        given.partition(|(key, _)| normalized(key) == *key);
    let mut entries = spelled;
    for (key, entry) in others {
        entries.entry(normalized(&key)).or_insert(entry);
    }
    entries
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

    fn user(found: Result<Option<Login<'_>>>) -> Option<String> {
        match found.unwrap()? {
            Login::Credentials(_, Credentials::Password { user, password }) => {
                Some(format!("{user}:{}", password.as_str()))
            }
            Login::Credentials(_, Credentials::IdentityToken(token)) => {
                Some(format!("token {}", token.as_str()))
            }
            Login::Credentials(_, Credentials::Bearer(_)) => unreachable!("no file has such"),
            Login::Helper(name) => Some(format!("helper {name}")),
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
    fn what_an_entry_may_hold() {
        let file = AuthFile::parse(
            br#"{"auths":{"a.lab":{"auth":"eDp5","identitytoken":"t0ken"},"b.lab":{},"c.lab":{"auth":""},
                "d.lab":{"username":"u","password":"p"},"d.lab/x":{},"docker.io":{"auth":"eDp5"},
                "https://index.docker.io/v1/":{"auth":"djp3"},"e.lab":{"auth":"never looked at"}}}"#,
        )
        .unwrap();
        for (registry, expected) in [
            ("a.lab", Some("token t0ken")),
            ("b.lab", None),
            ("c.lab", None),
            ("d.lab", Some("u:p")),
            ("docker.io", Some("x:y")),
        ] {
            assert_eq!(
                user(file.lookup(registry, "x")).as_deref(),
                expected,
                "{registry}"
            );
        }
    }

    #[test]
    fn nothing_is_written_in_several_ways() {
        for text in [
            "{}",
            r#"{"auths":null,"credHelpers":null,"credsStore":""}"#,
            r#"{"auths":{"a.lab":null}}"#,
        ] {
            let file = AuthFile::parse(text.as_bytes()).unwrap();
            assert_eq!(user(file.lookup("a.lab", "x")), None, "{text}");
        }
    }

    #[test]
    fn helpers_for_one_registry_and_for_all_others() {
        let file = AuthFile::parse(
            br#"{"auths":{"a.lab":{"auth":"eDp5"},"b.lab":{}},"credHelpers":{"a.lab":"one","https://index.docker.io/v1/":"two"},
                "credsStore":"all"}"#,
        )
        .unwrap();
        for (registry, expected) in [
            ("a.lab", "one"),
            ("b.lab", "all"),
            ("c.lab", "all"),
            ("docker.io", "two"),
        ] {
            let expected = format!("helper {expected}");
            assert_eq!(user(file.lookup(registry, "x")), Some(expected), "{registry}");
        }
    }

    #[test]
    fn dockers_old_form() {
        let file = AuthFile::parse_old(br#"{"https://a.lab/v1/":{"auth":"eDp5","email":"x"}}"#).unwrap();
        assert_eq!(user(file.lookup("a.lab", "x")).as_deref(), Some("x:y"));
        let error = AuthFile::parse_old(br#"["5318008"]"#).err().unwrap().to_string();
        assert!(
            error.contains("not of the form") && !error.contains("5318008"),
            "{error}"
        );
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
            let file = AuthFile::parse(text.as_bytes());
            let error = match &file {
                Err(error) => format!("{error:#}"),
                Ok(file) => format!("{:#}", file.lookup("a.lab", "x").unwrap_err()),
            };
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("5318008"), "{error}");
        }
    }
}
