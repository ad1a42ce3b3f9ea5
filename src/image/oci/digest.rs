//! Hashing for digests (image-spec, `descriptor.md#digests`): SHA-256 and SHA-512.

use oci_spec::image::{Digest, DigestAlgorithm};
use ring::digest::{Context, SHA256, SHA512};

#[derive(Debug, thiserror::Error)]
#[error("digest algorithm {0} is not supported (sha256 and sha512 are)")]
pub struct UnsupportedAlgorithm(String);

/// A running hash of one of the registered algorithms.
#[derive(Clone)]
pub struct Hasher {
    name: &'static str,
    context: Context,
}

impl Hasher {
    /// A hasher of the algorithm that `digest` names.
    pub fn like(digest: &Digest) -> Result<Self, UnsupportedAlgorithm> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::sha256()),
            DigestAlgorithm::Sha512 => Ok(Self {
                name: "sha512",
                context: Context::new(&SHA512),
            }),
            other => Err(UnsupportedAlgorithm(other.to_string())),
        }
    }

    /// A SHA-256 hasher.
    pub fn sha256() -> Self {
        Self {
            name: "sha256",
            context: Context::new(&SHA256),
        }
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything that was added.
    pub fn finish(self) -> Digest {
        let text = format!("{}:{}", self.name, hex(self.context.finish().as_ref()));
        text.parse().expect("a hash of the right length is a digest")
    }
}

/// The SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_are_what_their_standard_says() {
        for expected in [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ] {
            let digest: Digest = expected.parse().unwrap();
            let mut hasher = Hasher::like(&digest).unwrap();
            hasher.update(b"abc");
            assert_eq!(hasher.finish(), digest);
        }
    }

    #[test]
    fn an_unsupported_algorithm_is_an_error() {
        let digest: Digest = format!("sha384:{}", "0".repeat(96)).parse().unwrap();
        assert!(Hasher::like(&digest).is_err());
    }
}
