//! containers-policy.json(5): which images this machine accepts.
//!
//! What counts for an image is what the file says of its narrowest scope, as containers/image chooses it.
//! `reject` and `insecureAcceptAnything` are obeyed. A rule that requires a signature refuses the image:
//! signatures can't be checked yet.

mod parse;
mod scope;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::parse::{MAX_BYTES, Requirement, Rules, parse};
use self::scope::Scopes;
use super::name::ImageName;
use super::registry::Places;

/// A policy, and the file that it's in.
#[derive(Debug)]
pub struct Policy {
    file: PathBuf,
    rules: Rules,
}

impl Policy {
    /// Reads the file that the user chose, else the user's own, else the machine's; `None` where there is
    /// none.
    pub fn load(places: &Places, chosen: Option<&Path>) -> Result<Option<Self>> {
        if let Some(file) = chosen {
            let shown = file.display();
            let policy = Self::read(file)?;
            ensure!(
                policy.is_some(),
                "policy {shown} does not exist: name another with --policy"
            );
            return Ok(policy);
        }
        let mut policies = places.policies().into_iter();
        policies
            .find_map(|file| Self::read(&file).transpose())
            .transpose()
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let doing = || format!("reading the policy {}", path.display());
        let file = match File::open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            file => file.with_context(doing)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(doing)?;
        Ok(Some(Self {
            file: path.into(),
            rules: parse(&bytes).with_context(doing)?,
        }))
    }

    /// Refuses an image that this policy does not accept. `image` is what was asked for, whichever registry
    /// it will come from; `at` is where its file is, if not where it says.
    pub fn check(&self, image: &ImageName, at: Option<&Path>) -> Result<()> {
        let scopes = Scopes::of(image, at)?;
        let (scope, requirements) = self.rules.of(&scopes);
        let file = self.file.display();
        for requirement in requirements {
            match requirement {
                Requirement::InsecureAcceptAnything => {}
                Requirement::Reject => bail!("{file} rejects {image} (rule: {scope})"),
                Requirement::Signature(kind) => bail!(
                    "{file} requires a signature for {image} ({kind}, rule: {scope}), but signatures cannot \
                     be checked yet: give a policy that accepts this image with --policy"
                ),
            }
        }
        Ok(())
    }
}

impl Rules {
    /// What counts for an image, and which scope that was said of.
    fn of(&self, scopes: &Scopes) -> (String, &[Requirement]) {
        let Some(rules) = self.transports.get(scopes.transport) else {
            return ("default".into(), &self.default);
        };
        let mut named = scopes.from_narrow_to_wide.iter();
        let named = named.find_map(|scope| Some((format!("{scope:?}"), rules.get(scope)?)));
        let whole = || Some((format!("all of {}", scopes.transport), rules.get("")?));
        match named.or_else(whole) {
            Some((scope, requirements)) => (scope, requirements),
            None => ("default".into(), &self.default),
        }
    }
}

#[cfg(test)]
mod tests;
