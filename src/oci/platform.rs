//! Platforms: what an index chooses by (image-spec, `image-index.md`).

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, Os};

/// `OS/ARCHITECTURE[/VARIANT]`, in GOOS and GOARCH words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The operating system; bootable containers are `linux`.
    pub os: Os,
    /// The architecture, e.g. `amd64`.
    pub architecture: Arch,
    /// The variant of the architecture, e.g. `v8`; `None` matches any.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        Self {
            os: Os::Linux,
            architecture: Arch::default(),
            variant: None,
        }
    }

    /// Whether something made for `candidate` runs on this platform.
    pub fn accepts(&self, candidate: &Platform) -> bool {
        self.os == candidate.os
            && self.architecture == candidate.architecture
            && (self.variant.is_none() || self.variant == candidate.variant)
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        Self {
            os: platform.os().clone(),
            architecture: platform.architecture().clone(),
            variant: platform.variant().clone(),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split('/');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self {
                    os: Os::from(os),
                    architecture: Arch::from(architecture),
                    variant: variant.map(Into::into),
                })
            }
            _ => Err(format!(
                "{text:?} is not a platform: write OS/ARCHITECTURE[/VARIANT], e.g. linux/amd64"
            )),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(out, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_matches() {
        let arm: Platform = "linux/arm64".parse().unwrap();
        let arm_v8: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(arm.accepts(&arm_v8));
        assert!(!arm_v8.accepts(&arm));
        assert_eq!(arm_v8.to_string(), "linux/arm64/v8");
        assert!("amd64".parse::<Platform>().is_err());
        assert!(Platform::host().accepts(&Platform::host()));
    }
}
