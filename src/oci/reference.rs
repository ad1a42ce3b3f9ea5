//! Image names: `REGISTRY/REPOSITORY[:TAG][@DIGEST]`, as the distribution spec has them.

use std::{fmt, str::FromStr};

use oci_spec::distribution::Reference as Parsed;
use oci_spec::image::Digest;

/// The name of an image in a registry. The registry is always spelled out: a bare `fedora` means different things
/// on different machines, and an installation is no place to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text has no registry in front.
    #[error(
        "image name {0:?} names no registry, and none is guessed (no alias or unqualified-search registry of a \
         registries.conf is used): write REGISTRY/REPOSITORY[:TAG][@DIGEST]"
    )]
    NoRegistry(String),
    /// The text is not of the form of an image name.
    #[error("{0:?} is not an image name ({1}): write REGISTRY/REPOSITORY[:TAG][@DIGEST]")]
    Malformed(String, String),
}

/// What selects a manifest in a repository. A digest wins over a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A tag: whatever the registry says it is now.
    Tag(String),
    /// A digest: these bytes and no others.
    Digest(Digest),
}

impl Reference {
    /// The registry's host, with the port where one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `REGISTRY/REPOSITORY`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, where one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest if given, else the tag, else the tag `latest`.
    pub fn selector(&self) -> Selector {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Selector::Digest(digest.clone()),
            (None, Some(tag)) => Selector::Tag(tag.clone()),
            (None, None) => Selector::Tag("latest".into()),
        }
    }

    /// The name by tag, as an installed system follows it for updates: `REGISTRY/REPOSITORY:TAG`, or by digest where
    /// the user gave only that.
    pub fn update_name(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.name()),
            (None, Some(digest)) => format!("{}@{digest}", self.name()),
            (None, None) => format!("{}:latest", self.name()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses a name, also with Ironic's `docker://` or `oci://` in front.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let name = ["docker://", "oci://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .unwrap_or(text);
        let host = name.split_once('/').map(|(host, _)| host);
        if !host.is_some_and(|host| host.contains(['.', ':']) || host == "localhost") {
            return Err(ReferenceError::NoRegistry(text.into()));
        }
        let malformed = |why: String| ReferenceError::Malformed(text.into(), why);
        let parsed = Parsed::try_from(name).map_err(|error| malformed(error.to_string()))?;
        let digest = parsed.digest().map(str::parse::<Digest>).transpose();
        Ok(Self {
            registry: parsed.registry().into(),
            repository: parsed.repository().into(),
            // The parser makes up a tag where there is neither tag nor digest.
            tag: parsed
                .tag()
                .filter(|tag| name.contains(&format!(":{tag}")))
                .map(Into::into),
            digest: digest.map_err(|error| malformed(error.to_string()))?,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => out.write_str(tag),
            Self::Digest(digest) => write!(out, "{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_in_every_form() {
        for (text, shown, selector, update) in [
            (
                "reg.lab:5000/os/web:1.4",
                "reg.lab:5000/os/web:1.4",
                "1.4",
                "reg.lab:5000/os/web:1.4",
            ),
            (
                "docker://reg.lab/web",
                "reg.lab/web",
                "latest",
                "reg.lab/web:latest",
            ),
            ("oci://localhost/web:a", "localhost/web:a", "a", "localhost/web:a"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(reference.selector().to_string(), selector);
            assert_eq!(reference.update_name(), update);
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag_and_the_tag_is_kept_for_updates() {
        let reference: Reference = format!("reg.lab/web:1@{DIGEST}").parse().unwrap();
        assert_eq!(reference.selector().to_string(), DIGEST);
        assert_eq!(reference.update_name(), "reg.lab/web:1");
        let reference: Reference = format!("reg.lab/web@{DIGEST}").parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.update_name(), format!("reg.lab/web@{DIGEST}"));
    }

    #[test]
    fn what_is_not_a_name_is_refused_in_one_line() {
        for text in [
            "",
            "web",
            "library/web:1",
            "reg.lab/",
            "reg.lab/Web",
            "reg.lab/web:",
            "reg.lab/web@sha256:12",
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("REGISTRY/REPOSITORY"), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }
}
