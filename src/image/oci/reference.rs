//! Image names: `REGISTRY/REPOSITORY[:TAG][@DIGEST]`, as the distribution spec has them.
//!
//! `oci_spec` has a parser for them, too, whose regular expression takes 12 MiB of memory: here it is what
//! this one is compared with.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use oci_spec::image::Digest;

use super::digest::Hasher;

const MAX_REPOSITORY_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// The name of an image in a registry. The registry is always spelled out: a bare `fedora` means different
/// things on different machines, and an installation is no place to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "image name {0:?} names no registry, and none is guessed (aliases and unqualified-search registries \
         are not used): write REGISTRY/REPOSITORY[:TAG][@DIGEST]"
    )]
    NoRegistry(String),
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

    /// The name by tag, as an installed system follows it for updates: `REGISTRY/REPOSITORY:TAG`, or by
    /// digest where the user gave only that.
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
        let malformed = |why: &str| ReferenceError::Malformed(text.into(), why.into());
        let (host, rest) = name
            .split_once('/')
            .filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost")
            .ok_or_else(|| ReferenceError::NoRegistry(text.into()))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest).map_err(malformed)?)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_host(host)
            .and_then(|()| check_path(path))
            .and_then(|()| tag.map_or(Ok(()), check_tag))
            .map_err(malformed)?;
        let registry = if host == "index.docker.io" {
            "docker.io"
        } else {
            host
        };
        let repository = match registry {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path.into(),
        };
        if repository.len() > MAX_REPOSITORY_BYTES {
            return Err(malformed("the repository's path has more than 255 characters"));
        }
        Ok(Self {
            registry: registry.into(),
            repository,
            tag: tag.map(Into::into),
            digest,
        })
    }
}

/// A domain's name, an IPv4 address, or an IPv6 address in brackets, and a port where there is one.
fn check_host(host: &str) -> Result<(), &'static str> {
    let (is_host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (domain, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            (domain.split('.').all(is_label), port)
        }
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_host {
        Err("the registry is not a host name")
    } else if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_number) {
        Err("the registry's port is not a number")
    } else {
        Ok(())
    }
}

fn is_label(label: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.bytes().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
}

/// Components of lower case letters and digits, with one dot, one or two underscores or any number of hyphens
/// between.
fn check_path(path: &str) -> Result<(), &'static str> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_component = |component: &str| {
        let mut separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        component.bytes().next().is_some_and(is_word)
            && component.bytes().next_back().is_some_and(is_word)
            && separators
                .all(|each| matches!(each, "." | "_" | "__") || each.bytes().all(|byte| byte == b'-'))
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Err("the repository has upper-case letters")
    } else if !path.split('/').all(is_component) {
        Err("the repository is not a path of lower-case letters, digits and single separators")
    } else {
        Ok(())
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_inside = |byte: u8| is_word(byte) || byte == b'.' || byte == b'-';
    if tag.len() <= MAX_TAG_BYTES && tag.bytes().all(is_inside) && tag.bytes().next().is_some_and(is_word) {
        Ok(())
    } else {
        Err("the tag is not 1 to 128 letters, digits, dots, hyphens and underscores")
    }
}

fn parse_digest(digest: &str) -> Result<Digest, &'static str> {
    let digest: Digest = digest.parse().map_err(|_| "the digest is malformed")?;
    Hasher::like(&digest).map_err(|_| "the digest's algorithm is unknown")?;
    Ok(digest)
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
    use oci_spec::distribution::Reference as Known;

    use super::*;
    use crate::sys::random::Random;

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
            (
                "[fd00:1101::3]:5000/web:a",
                "[fd00:1101::3]:5000/web:a",
                "a",
                "[fd00:1101::3]:5000/web:a",
            ),
            ("[::1]/web", "[::1]/web", "latest", "[::1]/web:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(reference.selector().to_string(), selector);
            assert_eq!(reference.update_name(), update);
        }
    }

    #[test]
    fn the_grammar_is_that_of_oci_spec() {
        let digest = format!("@{DIGEST}");
        let upper = digest.to_uppercase().replace("SHA", "sha");
        let hosts = [
            "reg.lab",
            "reg.lab:5000",
            "localhost",
            "docker.io",
            "index.docker.io",
            "R-1.lab:1",
        ];
        let pieces = [
            "a",
            "b2",
            "B",
            ".",
            "..",
            "-",
            "--",
            "_",
            "__",
            "___",
            "/",
            ":",
            ":v1",
            "@",
            "%",
            " ",
            "\n",
            "sha256:12",
            &digest,
            &upper,
        ];
        let mut random = Random::new(7);
        let mut names = 0;
        for _ in 0..50_000 {
            let mut text = (*random.pick(&hosts)).to_string();
            if !random.one_in(8) {
                text.push('/');
            }
            for _ in 0..random.below(7) {
                text.push_str(random.pick::<&str>(&pieces));
            }
            let known = Known::try_from(text.as_str()).ok().filter(|known| {
                // It takes digests in upper case, which match nothing.
                text.contains('/')
                    && known
                        .digest()
                        .is_none_or(|digest| digest.parse::<Digest>().is_ok())
            });
            let ours = text.parse::<Reference>().ok();
            assert_eq!(
                ours.as_ref().map(Reference::name),
                known
                    .as_ref()
                    .map(|known| format!("{}/{}", known.registry(), known.repository())),
                "{text:?}"
            );
            let (Some(ours), Some(known)) = (ours, known) else {
                continue;
            };
            names += 1;
            assert_eq!(ours.digest().map(Digest::as_ref), known.digest(), "{text:?}");
            // It makes up a tag where there is neither tag nor digest.
            let tag = ours.tag().or(ours.digest().is_none().then_some("latest"));
            assert_eq!(tag, known.tag(), "{text:?}");
        }
        assert!(names > 1000, "{names} of them are names");
    }

    #[test]
    fn lengths_are_bounded() {
        for (text, good) in [
            (format!("reg.lab/{}", "a".repeat(255)), true),
            (format!("reg.lab/{}", "a".repeat(256)), false),
            (format!("docker.io/{}", "a".repeat(247)), true),
            (format!("docker.io/{}", "a".repeat(248)), false),
            (format!("reg.lab/a:{}", "v".repeat(128)), true),
            (format!("reg.lab/a:{}", "v".repeat(129)), false),
        ] {
            assert_eq!(text.parse::<Reference>().is_ok(), good, "{text}");
            assert_eq!(Known::try_from(text.as_str()).is_ok(), good, "{text}");
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
            "reg.lab:/web",
            "reg.lab:5x/web",
            "::1/web",
            "[::1]5000/web",
            "[reg.lab]/web",
            "[fe80::1%eth0]/web",
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
