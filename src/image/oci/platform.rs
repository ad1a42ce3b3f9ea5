//! Platforms: what an index chooses by (image-spec, `image-index.md`).

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, Os};

use super::one_line;

/// `OS/ARCHITECTURE[/VARIANT]`, in GOOS and GOARCH words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The operating system; bootable containers are `linux`.
    pub os: Os,
    /// The architecture, e.g. `amd64`.
    pub architecture: Arch,
    /// The variant of the architecture, e.g. `v8`; `None` is this machine's, or else the oldest.
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

    /// How well something made for `candidate` suits this platform: the more the better; `None` if it doesn't
    /// run there.
    pub fn suits(&self, candidate: &Platform) -> Option<u32> {
        if self.os != candidate.os || self.architecture != candidate.architecture {
            return None;
        }
        match (self.level(own_level), candidate.level(|_| None)) {
            (Some(own), Some(needed)) => (needed <= own).then_some(needed),
            // Words without an order.
            _ => (self.variant.is_none() || self.variant == candidate.variant).then_some(0),
        }
    }

    /// The number of the variant; each can do all that those below it can. `fallback` gives it where none is
    /// named, before the architecture's own first one.
    fn level(&self, fallback: impl Fn(&Arch) -> Option<u32>) -> Option<u32> {
        let first = match self.architecture {
            Arch::Amd64 => 1,
            Arch::ARM64 => 8,
            Arch::ARM => 7,
            _ => return None,
        };
        match &self.variant {
            Some(name) => name.strip_prefix('v')?.parse().ok(),
            None => Some(fallback(&self.architecture).unwrap_or(first)),
        }
    }
}

/// What this machine's processor can do, where that is known (x86-64 psABI, micro-architecture levels).
fn own_level(architecture: &Arch) -> Option<u32> {
    #[cfg(target_arch = "x86_64")]
    if *architecture == Arch::Amd64 {
        return Some(x86_level());
    }
    let _ = architecture;
    None
}

#[cfg(target_arch = "x86_64")]
fn x86_level() -> u32 {
    macro_rules! all {
        ($($feature:tt)*) => { true $(&& is_x86_feature_detected!($feature))* };
    }
    let levels = [
        all!("cmpxchg16b" "popcnt" "sse3" "ssse3" "sse4.1" "sse4.2"),
        all!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe"),
        all!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl"),
    ];
    1 + levels.iter().take_while(|has| **has).count() as u32
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
        let (os, architecture) = (one_line(&self.os), one_line(&self.architecture));
        write!(out, "{os}/{architecture}")?;
        match &self.variant {
            Some(variant) => write!(out, "/{}", one_line(variant)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(arm.to_string(), "linux/arm64/v8");
        assert!("amd64".parse::<Platform>().is_err());
        assert!(Platform::host().suits(&Platform::host()).is_some());
    }

    #[test]
    fn what_runs_where() {
        for (own, candidate, runs) in [
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v9", false),
            ("linux/arm64/v9", "linux/arm64/v8", true),
            ("linux/amd64/v1", "linux/amd64/v2", false),
            ("linux/amd64/v3", "linux/amd64/v2", true),
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v99", false),
            ("linux/amd64/v3", "linux/amd64/odd", false),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/mips64le", "linux/mips64le/hardfloat", true),
            ("linux/mips64le/softfloat", "linux/mips64le/hardfloat", false),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
        ] {
            let suits = own
                .parse::<Platform>()
                .unwrap()
                .suits(&candidate.parse().unwrap());
            assert_eq!(suits.is_some(), runs, "{candidate} on {own}");
        }
    }
}
