//! An image, and how to get it: what all commands that pull have in common.

use std::path::PathBuf;

use clap::Args;

use super::macros::arguments;
use crate::image::oci::{Platform, Reference};
use crate::image::root::Wanted;
use crate::image::source::name::ImageName;
use crate::image::source::registry::{self, Policy};

arguments! {
    Wanted {
        /// Image: REGISTRY/REPOSITORY[:TAG][@DIGEST], or without a registry oci:DIR[:NAME|@DIGEST],
        /// oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]; LABEL=STICK/PATH is a path on the file
        /// system with that label
        #[arg(id = "image")]
        name: ImageName,
        /// Platform to choose from an index (default: this machine's)
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        /// Policy that says which images are accepted, as in containers-policy.json(5) (default: podman's);
        /// not used by `inspect`
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Memory that may be used, e.g. 3GiB (default: what is available)
        #[arg(long = "memory-budget", value_name = "SIZE", value_parser = parse_size)]
        memory_budget_bytes: Option<u64>,
        /// How to speak to whatever has it
        #[command(flatten)]
        source: Source,
    }
}

/// How to speak to whatever has an image.
#[derive(Args)]
struct Source {
    /// Credentials file, as in containers-auth.json(5) (default: those of podman and docker)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// File with the secret for the image's registry: USER:PASSWORD (plain or base64) or a token; `-` is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pull_secret: Option<PathBuf>,
    /// Configuration of registries and mirrors, as in containers-registries.conf(5) (default: podman's)
    #[arg(long, value_name = "FILE")]
    registries_conf: Option<PathBuf>,
    /// Mirror to try before the configured ones (may be repeated)
    #[arg(long = "mirror", value_name = "HOST[:PORT][/PATH]", value_parser = parse_mirror)]
    mirrors: Vec<String>,
    /// How often to retry a request that makes no progress
    #[arg(long, value_name = "NUMBER", default_value_t = Policy::default().retries)]
    retries: u32,
    /// Whether to verify registries' TLS certificates; `false` also allows plain HTTP (default: true, except
    /// for registries configured as insecure)
    #[arg(long, value_name = "BOOL")]
    tls_verify: Option<bool>,
    /// Additional CA certificates (PEM) to trust
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

impl From<Source> for registry::Options {
    fn from(typed: Source) -> Self {
        Self {
            authfile: typed.authfile,
            pull_secret: typed.pull_secret,
            registries_conf: typed.registries_conf,
            mirrors: typed.mirrors,
            ca_cert: typed.ca_cert,
            tls_verify: typed.tls_verify != Some(false),
            heed_insecure: typed.tls_verify.is_none(),
            policy: Policy {
                retries: typed.retries,
                ..Policy::default()
            },
            ..Self::default()
        }
    }
}

/// Parses the place of a mirror.
fn parse_mirror(text: &str) -> Result<String, String> {
    let place = text.trim_end_matches('/');
    match format!("{place}/image").parse::<Reference>() {
        Ok(reference) if reference.tag().is_none() && !place.contains("://") => Ok(place.into()),
        _ => Err(format!(
            "{text:?} is not a mirror location: write HOST[:PORT][/PATH]"
        )),
    }
}

/// Parses a size such as `3GiB`, `512M` or `1000000`; the prefixes are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{text:?} has an unknown unit: write e.g. 3GiB or 512MiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a size: write e.g. 3GiB or 512MiB"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors() {
        for (text, place) in [
            ("near.lab", Some("near.lab")),
            ("near.lab:5000/cache/", Some("near.lab:5000/cache")),
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("https://near.lab", None),
            ("docker://near.lab", None),
            ("near", None),
            ("near.lab/os:1", None),
            ("", None),
        ] {
            assert_eq!(parse_mirror(text).ok().as_deref(), place, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("7", Some(7)),
            ("2k", Some(2048)),
            ("3GiB", Some(3 << 30)),
            ("1MB", Some(1 << 20)),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
        for text in ["", "x", "3 GiB", "1.5G", "3Q", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
