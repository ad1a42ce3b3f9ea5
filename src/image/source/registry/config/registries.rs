//! containers-registries.conf(5), version 2: which places have an image, in the order in which they are
//! asked.
//!
//! One `[[registry]]` table counts for an image: the one with the longest prefix of its name. Drop-ins
//! replace tables of the same prefix. The rules are those of containers/image's `sysregistriesv2`.

mod parse;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::parse::Table;
pub use self::parse::{RegistriesConf, parse};
use super::places::RegistriesFiles;
use crate::image::oci::Reference;

/// No configuration file is larger than this, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A place that has an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What the image is called there.
    pub reference: Reference,
    /// Whether any certificate will do there, and plain HTTP.
    pub insecure: bool,
}

impl RegistriesConf {
    pub fn load(files: &RegistriesFiles) -> Result<Self> {
        let mut conf = Self::default();
        if let Some((path, required)) = &files.main {
            conf.update(read(path, *required)?);
        }
        for directory in &files.drop_ins {
            for path in drop_ins(directory)? {
                conf.update(read(&path, false)?);
            }
        }
        Ok(conf)
    }

    /// Adds `newer`, whose tables replace those of the same prefix.
    fn update(&mut self, newer: Self) {
        self.tables.extend(newer.tables);
        if newer.credential_helpers.is_some() {
            self.credential_helpers = newer.credential_helpers;
        }
    }

    /// The places that have `reference`, first those at `mirrors` (`HOST[/PATH]`), then the mirrors that are
    /// configured, last the image's own.
    pub fn locations(&self, reference: &Reference, mirrors: &[String]) -> Result<Vec<Location>> {
        let name = full_name(reference);
        let mut locations = Vec::new();
        for mirror in mirrors {
            let renamed = rename(&name, reference.registry().len(), mirror)?;
            let insecure = self.table_for(&renamed).is_some_and(|(_, table)| table.insecure);
            locations.push(Location {
                insecure,
                reference: renamed,
            });
        }
        let Some((prefix, table)) = self.table_for(reference) else {
            locations.push(Location {
                reference: reference.clone(),
                insecure: false,
            });
            return self.without_blocked(locations, reference);
        };
        let matched = matching(&name, prefix).expect("it was chosen for that");
        let doing = || format!("following {} for {reference}", table.file.display());
        for mirror in table
            .mirrors
            .iter()
            .filter(|mirror| mirror.pulls.allow(reference))
        {
            locations.push(Location {
                reference: rename(&name, matched, &mirror.location).with_context(doing)?,
                insecure: mirror.insecure,
            });
        }
        if !table.blocked {
            let own = if table.location.is_empty() {
                reference.clone()
            } else {
                rename(&name, matched, &table.location).with_context(doing)?
            };
            locations.push(Location {
                reference: own,
                insecure: table.insecure,
            });
        }
        self.without_blocked(locations, reference)
    }

    /// A place may be blocked under its own name, too.
    fn without_blocked(&self, locations: Vec<Location>, asked: &Reference) -> Result<Vec<Location>> {
        let blocking = |name: &Reference| self.table_for(name).filter(|(_, table)| table.blocked);
        let mut blocked = blocking(asked);
        let mut left = Vec::new();
        for location in locations {
            match blocking(&location.reference) {
                Some(found) if location.reference != *asked => blocked = Some(found),
                _ => left.push(location),
            }
        }
        match blocked {
            Some((prefix, table)) if left.is_empty() => bail!(
                "pulling {asked} is blocked by {} (prefix {prefix}), and there is no mirror",
                table.file.display()
            ),
            _ => Ok(left),
        }
    }

    /// The table with the longest prefix of `reference`, and that prefix.
    fn table_for(&self, reference: &Reference) -> Option<(&str, &Table)> {
        let name = full_name(reference);
        let fitting = self
            .tables
            .iter()
            .filter(|(prefix, _)| matching(&name, prefix).is_some());
        let longest = fitting.max_by_key(|(prefix, _)| prefix.len());
        longest.map(|(prefix, table)| (prefix.as_str(), table))
    }
}

/// The name that prefixes are compared with. Of tag and digest only the latter counts.
fn full_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => format!("{}:{}", reference.name(), reference.selector()),
    }
}

/// How many bytes of `name` match `prefix`; they end where a port, path, tag or digest begins. (A port may
/// follow: `reg.lab` stands for `reg.lab:5000`, too, as with containers/image.)
fn matching(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) => {
            let start = name.find(domain)?;
            (!name[..start].contains('/')).then_some(start + domain.len())?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(end), None | Some(b':' | b'/' | b'@')).then_some(end)
}

/// `name` with `location` in the place of its first `matched` bytes.
fn rename(name: &str, matched: usize, location: &str) -> Result<Reference> {
    let renamed = format!("{location}{}", &name[matched..]);
    let named = renamed.parse();
    named.with_context(|| format!("{location:?} is not the location of a registry: write HOST[:PORT][/PATH]"))
}

fn read(path: &Path, required: bool) -> Result<RegistriesConf> {
    let doing = || format!("reading {}", path.display());
    let text = match fs::metadata(path).and_then(|metadata| Ok((metadata.len(), fs::read_to_string(path)?))) {
        Ok((size, text)) => {
            ensure!(
                size <= MAX_BYTES,
                "{}: it is larger than {} MiB",
                doing(),
                MAX_BYTES >> 20
            );
            text
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !required => return Ok(Default::default()),
        Err(error) => return Err(error).with_context(doing),
    };
    parse(&text, path).with_context(doing)
}

/// The `*.conf` files of a directory that may not exist, in the order of their names.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("reading the directory {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(doing),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(doing)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
