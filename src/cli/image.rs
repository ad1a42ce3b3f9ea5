//! An image, and how to get it: what all commands that pull have in common.

use std::path::PathBuf;

use clap::Args;

use crate::oci::Platform;
use crate::source::name::ImageName;

/// An image and how to get it.
#[derive(Args, Clone, Debug)]
pub struct Image {
    /// Image: REGISTRY/REPOSITORY[:TAG][@DIGEST], or without a registry oci:DIR[:NAME|@DIGEST], oci-archive:FILE[:NAME] or
    /// docker-archive:FILE[:NAME], where LABEL=STICK/PATH is a path on the file system with that label
    pub image: ImageName,
    /// Platform to choose from an index (default: this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Credentials, as in containers-auth.json(5)
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Whether the registry must prove who it is; `false` also allows plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
    /// Certificates (PEM) of authorities to trust, besides the usual ones
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Memory that may be used (default: what is available), e.g. 3GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_budget: Option<u64>,
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
