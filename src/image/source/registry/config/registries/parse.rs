//! The text of a registries.conf: pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::image::oci::Reference;

/// The contents of a registries.conf, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    /// By prefix.
    pub tables: BTreeMap<String, Table>,
    /// Where credentials are looked for; `None` where nothing is said of that.
    pub credential_helpers: Option<Vec<String>>,
}

/// A `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Empty where the prefix has a wildcard and names aren't rewritten.
    pub location: String,
    pub insecure: bool,
    pub blocked: bool,
    pub mirrors: Vec<Mirror>,
    /// The file that it is in.
    pub file: PathBuf,
}

/// A `[[registry.mirror]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub location: String,
    pub insecure: bool,
    pub pulls: Pulls,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulls {
    All,
    ByDigest,
    ByTag,
}

impl Pulls {
    /// Whether a mirror is asked for `reference`.
    pub fn allow(self, reference: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::ByDigest => reference.digest().is_some(),
            Self::ByTag => reference.digest().is_none(),
        }
    }
}

/// What of a file means something to us. `unqualified-search-registries`, `short-name-mode`, `aliases` and
/// `additional-layer-store-auth-helper` don't.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    registry: Vec<RawRegistry>,
    credential_helpers: Option<Vec<String>>,
    /// Version 1.
    registries: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawRegistry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<RawMirror>,
    pull_from_mirror: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMirror {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// Parses the text of a registries.conf; `file` is for messages.
pub fn parse(text: &str, file: &Path) -> Result<RegistriesConf> {
    let raw: RawFile = toml::from_str(text).map_err(|error| in_one_line(&error, text))?;
    ensure!(
        raw.registries.is_none(),
        "it has version 1 ([registries.search] and the like), which is not supported: write [[registry]] \
         tables, as in containers-registries.conf(5)"
    );
    let mut conf = RegistriesConf {
        credential_helpers: raw.credential_helpers,
        ..Default::default()
    };
    for registry in raw.registry {
        let (prefix, table) = table(registry, file)?;
        check_conflicts(&conf, &prefix, &table)?;
        // The first of several with the same prefix counts.
        conf.tables.entry(prefix).or_insert(table);
    }
    Ok(conf)
}

fn table(raw: RawRegistry, file: &Path) -> Result<(String, Table)> {
    let location = address(&raw.location)?;
    let prefix = match address(&raw.prefix)? {
        prefix if prefix.is_empty() => location.clone(),
        prefix => prefix,
    };
    ensure!(
        !prefix.is_empty(),
        "a [[registry]] has neither `location` nor `prefix`"
    );
    let doing = || format!("in the [[registry]] for {prefix:?}");
    if let Some(domain) = prefix.strip_prefix("*.") {
        ensure!(
            !domain.contains(['/', '@', ':', '*']) && !domain.is_empty(),
            "{}: a prefix with a wildcard must be of the form *.example.com",
            doing()
        );
    } else {
        ensure!(!location.is_empty(), "{}: it has no `location`", doing());
        ensure!(
            !prefix.contains('*'),
            "{}: a wildcard can only be at the beginning: *.example.com",
            doing()
        );
    }
    ensure!(
        raw.pull_from_mirror.is_none(),
        "{}: `pull-from-mirror` is for a [[registry.mirror]]",
        doing()
    );
    let by_digest_only = raw.mirror_by_digest_only;
    let mirrors = raw.mirror.into_iter().map(|raw| mirror(raw, by_digest_only));
    let mirrors = mirrors.collect::<Result<_>>().with_context(doing)?;
    let table = Table {
        location,
        insecure: raw.insecure,
        blocked: raw.blocked,
        mirrors,
        file: file.into(),
    };
    Ok((prefix, table))
}

fn mirror(raw: RawMirror, by_digest_only: bool) -> Result<Mirror> {
    let location = address(&raw.location)?;
    ensure!(!location.is_empty(), "a mirror has no `location`");
    ensure!(
        !by_digest_only || raw.pull_from_mirror.is_empty(),
        "`mirror-by-digest-only` and the `pull-from-mirror` of mirror {location:?} cannot both be set"
    );
    let pulls = match raw.pull_from_mirror.as_str() {
        "" if by_digest_only => Pulls::ByDigest,
        "" | "all" => Pulls::All,
        "digest-only" => Pulls::ByDigest,
        "tag-only" => Pulls::ByTag,
        other => {
            bail!(
                "`pull-from-mirror` of mirror {location:?} is {other:?}: it can be all, digest-only or tag-only"
            )
        }
    };
    Ok(Mirror {
        location,
        insecure: raw.insecure,
        pulls,
    })
}

/// A prefix or a location without what has no meaning at its end.
fn address(text: &str) -> Result<String> {
    ensure!(
        !text.starts_with("http://") && !text.starts_with("https://"),
        "{text:?} is a URL: write HOST[:PORT][/PATH]"
    );
    Ok(text.trim_end_matches('/').into())
}

/// A place that is named several times must be as safe everywhere.
fn check_conflicts(conf: &RegistriesConf, prefix: &str, table: &Table) -> Result<()> {
    let place = |prefix: &str, table: &Table| match table.location.as_str() {
        "" => prefix.to_owned(),
        location => location.to_owned(),
    };
    let own = place(prefix, table);
    let same = |(prefix, other): &(&String, &Table)| place(prefix, other) == own;
    for (_, other) in conf.tables.iter().filter(same) {
        let conflict = [
            ("insecure", other.insecure != table.insecure),
            ("blocked", other.blocked != table.blocked),
        ];
        if let Some((key, _)) = conflict.iter().find(|(_, differs)| *differs) {
            bail!("{own} appears several times with conflicting `{key}`");
        }
    }
    Ok(())
}

/// The parser's own message has a picture of the place.
fn in_one_line(error: &toml::de::Error, text: &str) -> anyhow::Error {
    let message = error.message().replace('\n', " ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before.map(|before| before.lines().count().max(1)) {
        Some(line) => anyhow!("line {line}: {message}"),
        None => anyhow!(message),
    }
}
