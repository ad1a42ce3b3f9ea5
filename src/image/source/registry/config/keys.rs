//! Credentials for one repository: where they may be, and which come first.
//!
//! ```text
//! --pull-secret (for the image's own registry alone)
//! then what `credential-helpers` of registries.conf says, and without that:
//! --authfile or REGISTRY_AUTH_FILE, if given; else auth.json (login, user), docker's config.json, .dockercfg
//! ```
//!
//! Files are read at once, programs are run when a registry asks for credentials.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::auth_file::{self, AuthFile, Login};
use super::credentials::Known;
use super::helper;
use super::places::Places;
use crate::image::source::registry::error::Cause;

/// The word in `credential-helpers` that stands for the files.
const THE_FILES: &str = "containers-auth.json";

/// What may have credentials.
#[derive(Debug)]
enum Candidate {
    Known(Known),
    /// The program `docker-credential-NAME`, and what asks for it.
    Helper {
        name: String,
        origin: String,
    },
}

/// The credentials for one repository, as far as they were looked for.
#[derive(Debug)]
pub struct Keys {
    registry: String,
    candidates: Vec<Candidate>,
    found: OnceCell<Option<Known>>,
    /// Files in usual places that this user may not read: somebody else's.
    pub left_out: Vec<PathBuf>,
}

/// Where credentials are looked for.
pub struct Search<'a> {
    /// The file that the user named.
    pub authfile: Option<&'a Path>,
    /// What registries.conf says.
    pub helpers: Option<&'a [String]>,
    pub places: &'a Places,
}

impl Keys {
    /// No credentials but these.
    pub fn only(registry: &str, known: Known) -> Self {
        Self::of(registry, vec![Candidate::Known(known)])
    }

    /// Looks for credentials for `repository` at `registry` (`HOST[:PORT]`).
    pub fn search(registry: &str, repository: &str, search: &Search<'_>) -> Result<Self> {
        let files = [THE_FILES.to_owned()];
        let helpers = search.helpers.filter(|helpers| !helpers.is_empty());
        let (mut candidates, mut left_out) = (Vec::new(), Vec::new());
        for helper in helpers.unwrap_or(&files) {
            if helper == THE_FILES {
                candidates.extend(in_files(registry, repository, search, &mut left_out)?);
            } else {
                candidates.push(Candidate::Helper {
                    name: helper.clone(),
                    origin: "registries.conf (credential-helpers)".into(),
                });
            }
        }
        Ok(Self {
            left_out,
            ..Self::of(registry, candidates)
        })
    }

    fn of(registry: &str, candidates: Vec<Candidate>) -> Self {
        Self {
            registry: registry.into(),
            candidates,
            found: OnceCell::new(),
            left_out: Vec::new(),
        }
    }

    /// The credentials. Asks programs for them, if need be.
    pub async fn find(&self) -> Result<Option<&Known>, Cause> {
        let found = self.found.get_or_try_init(|| self.look());
        Ok(found.await?.as_ref())
    }

    async fn look(&self) -> Result<Option<Known>, Cause> {
        let mut failures = Vec::new();
        for candidate in &self.candidates {
            match candidate {
                Candidate::Known(known) => return Ok(Some(known.clone())),
                Candidate::Helper { name, origin } => match helper::get(name, &self.registry).await {
                    Ok(Some(credentials)) => {
                        let origin = format!("docker-credential-{name}, configured in {origin}");
                        return Ok(Some(Known::new(credentials, &origin)));
                    }
                    Ok(None) => {}
                    Err(error) => failures.push(format!("{error:#} (configured in {origin})")),
                },
            }
        }
        if failures.is_empty() {
            Ok(None)
        } else {
            Err(Cause::Credentials(failures.join("; ")))
        }
    }

    /// For messages: whose credentials were found so far.
    pub fn described(&self) -> Option<String> {
        let known = self.found.get()?.as_ref()?;
        Some(known.described.clone())
    }
}

/// What the files have, up to the first that has credentials themselves.
fn in_files(
    registry: &str,
    repository: &str,
    search: &Search<'_>,
    left_out: &mut Vec<PathBuf>,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for (path, file) in files(search, left_out)? {
        let found = file
            .lookup(registry, repository)
            .with_context(|| reading(&path))?;
        match found {
            Some(Login::Helper(name)) => candidates.push(Candidate::Helper {
                name: name.into(),
                origin: path.display().to_string(),
            }),
            Some(Login::Credentials(key, credentials)) => {
                let known = Known::new(credentials, &format!("{key} in {}", path.display()));
                candidates.push(Candidate::Known(known));
                break;
            }
            None => {}
        }
    }
    Ok(candidates)
}

fn files(search: &Search<'_>, left_out: &mut Vec<PathBuf>) -> Result<Vec<(PathBuf, AuthFile)>> {
    if let Some(path) = search.authfile.or(search.places.named_auth_file()) {
        let bytes = auth_file::read(path).with_context(|| reading(path))?;
        let bytes = bytes.with_context(|| format!("{}: there is no such file", reading(path)))?;
        let file = AuthFile::parse(&bytes).with_context(|| reading(path))?;
        return Ok(vec![(path.into(), file)]);
    }
    let mut files = Vec::new();
    let paths = search.places.auth_files();
    for path in &paths {
        let bytes = match auth_file::read(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                left_out.push(path.clone());
                continue;
            }
            bytes => bytes.with_context(|| reading(path))?,
        };
        let is_old = paths.last() == Some(path);
        let parse = if is_old {
            AuthFile::parse_old
        } else {
            AuthFile::parse
        };
        let file = bytes.map(|bytes| parse(&bytes)).transpose();
        let file = file.with_context(|| reading(path))?;
        files.extend(file.map(|file| (path.clone(), file)));
    }
    Ok(files)
}

fn reading(path: &Path) -> String {
    format!("reading credentials from {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    fn places(root: &Path) -> Places {
        Places::new(root, 0, |_| None)
    }

    fn write(root: &Path, path: &str, entries: &[(&str, &str)]) {
        let entries: Vec<String> = entries
            .iter()
            .map(|(key, secret)| format!(r#""{key}": {{"auth": "{}"}}"#, STANDARD.encode(secret)))
            .collect();
        let inner = format!("{{{}}}", entries.join(","));
        let old = path.ends_with(".dockercfg");
        let text = if old {
            inner
        } else {
            format!(r#"{{"auths":{inner}}}"#)
        };
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    async fn found(registry: &str, search: &Search<'_>) -> Option<String> {
        let keys = Keys::search(registry, "os/web", search).unwrap();
        let known = keys.find().await.unwrap().cloned();
        assert_eq!(
            keys.described(),
            known.as_ref().map(|known| known.described.clone())
        );
        known.map(|known| known.described)
    }

    #[tokio::test]
    async fn the_first_file_that_has_them_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (path, entries) in [
            ("run/containers/0/auth.json", &[("a.lab", "a:1")][..]),
            (
                "root/.config/containers/auth.json",
                &[("a.lab", "b:1"), ("b.lab/os", "b:2")],
            ),
            ("root/.docker/config.json", &[("b.lab", "c:1"), ("c.lab", "c:2")]),
            ("root/.dockercfg", &[("https://d.lab/v1/", "d:1")]),
        ] {
            write(root, path, entries);
        }
        let places = places(root);
        let usual = Search {
            authfile: None,
            helpers: None,
            places: &places,
        };
        for (registry, expected) in [
            (
                "a.lab",
                Some("user \"a\" (a.lab in ROOT/run/containers/0/auth.json)"),
            ),
            (
                "b.lab",
                Some("user \"b\" (b.lab/os in ROOT/root/.config/containers/auth.json)"),
            ),
            (
                "c.lab",
                Some("user \"c\" (c.lab in ROOT/root/.docker/config.json)"),
            ),
            ("d.lab", Some("user \"d\" (d.lab in ROOT/root/.dockercfg)")),
            ("e.lab", None),
        ] {
            let described = found(registry, &usual).await;
            let shown = described.map(|text| text.replace(root.to_str().unwrap(), "ROOT"));
            let expected = expected.map(|text| format!("the credentials of {text}"));
            assert_eq!(shown, expected, "{registry}");
        }

        let named = root.join("named.json");
        write(root, "named.json", &[("c.lab", "n:1")]);
        let only = Search {
            authfile: Some(&named),
            ..usual
        };
        assert!(found("c.lab", &only).await.unwrap().contains("named.json"));
        assert_eq!(found("a.lab", &only).await, None);
        let missing = Search {
            authfile: Some(Path::new("/nonexistent/auth.json")),
            ..only
        };
        let error = Keys::search("a.lab", "x", &missing).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/auth.json"), "{error}");
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named_with_what_asks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root/.docker/config.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, r#"{"credsStore":"landfall-has-no-such"}"#).unwrap();
        let places = places(folder.path());
        let search = Search {
            authfile: None,
            helpers: None,
            places: &places,
        };
        let keys = Keys::search("a.lab", "x", &search).unwrap();
        let error = keys.find().await.unwrap_err().to_string();
        assert!(
            error.contains("docker-credential-landfall-has-no-such") && error.contains("config.json"),
            "{error}"
        );
    }
}
