//! A blob against its descriptor (image-spec `descriptor.md`): size and digest.
//!
//! Only [`BlobCheck::finish`] makes a [`VerifiedBlob`]; that a reader has seen the end proves nothing.

use oci_spec::image::{Descriptor, Digest};

use super::digest::{Hasher, UnsupportedAlgorithm};

/// Why a blob is not what its descriptor says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    #[error(
        "the blob ends after {found} of {expected} bytes: the source's copy or the connection is damaged"
    )]
    TooShort { expected: u64, found: u64 },
    #[error("the blob is longer than its {expected} bytes: the source's copy is damaged")]
    TooLong { expected: u64 },
    #[error("the blob's digest is {found}, not {expected}: the source's copy is damaged")]
    Digest { expected: Digest, found: Digest },
}

/// Proof that a blob's bytes were what was asked for.
#[derive(Clone, Debug)]
pub struct VerifiedBlob {
    digest: Digest,
}

impl VerifiedBlob {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Counts and hashes a blob's bytes as they pass by.
#[must_use = "nothing is verified before finish()"]
pub struct BlobCheck {
    hasher: Hasher,
    expected: Digest,
    size_bytes: Option<u64>,
    seen_bytes: u64,
}

impl BlobCheck {
    pub fn new(blob: &Descriptor) -> Result<Self, UnsupportedAlgorithm> {
        Self::of(blob.digest(), Some(blob.size()))
    }

    /// Compares with a digest, and with a size where that is known.
    pub fn of(digest: &Digest, size_bytes: Option<u64>) -> Result<Self, UnsupportedAlgorithm> {
        Ok(Self {
            hasher: Hasher::like(digest)?,
            expected: digest.clone(),
            size_bytes,
            seen_bytes: 0,
        })
    }

    /// Adds the next bytes. An error as soon as there are more than there should be.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.seen_bytes = self.seen_bytes.saturating_add(bytes.len() as u64);
        if let Some(expected) = self.size_bytes.filter(|expected| self.seen_bytes > *expected) {
            return Err(BlobError::TooLong { expected });
        }
        self.hasher.update(bytes);
        Ok(())
    }

    pub fn seen_bytes(&self) -> u64 {
        self.seen_bytes
    }

    /// Whether everything together was the blob.
    pub fn finish(self) -> Result<VerifiedBlob, BlobError> {
        let found = self.seen_bytes;
        if let Some(expected) = self.size_bytes.filter(|expected| found < *expected) {
            return Err(BlobError::TooShort { expected, found });
        }
        let (expected, found) = (self.expected, self.hasher.finish());
        if found == expected {
            Ok(VerifiedBlob { digest: found })
        } else {
            Err(BlobError::Digest { expected, found })
        }
    }

    /// Whether `bytes`, which are all there are, are the blob.
    pub fn whole(mut self, bytes: &[u8]) -> Result<VerifiedBlob, BlobError> {
        self.update(bytes)?;
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::digest::sha256;

    /// Pieces of two bytes: the end falls on, before and after the border of a piece.
    fn verify(bytes: &[u8], size: Option<u64>, digest: &Digest) -> Result<Digest, BlobError> {
        let mut check = BlobCheck::of(digest, size).unwrap();
        for piece in bytes.chunks(2) {
            check.update(piece)?;
        }
        check.finish().map(|verified| verified.digest)
    }

    #[test]
    fn short_long_and_wrong_are_three_errors() {
        let (expected, digest) = (4, sha256(b"abcd"));
        let wrong = |bytes| BlobError::Digest {
            expected: digest.clone(),
            found: sha256(bytes),
        };
        for (bytes, size, verified) in [
            (b"abcd".as_slice(), Some(4), Ok(digest.clone())),
            (b"abcd", None, Ok(digest.clone())),
            (b"abc", Some(4), Err(BlobError::TooShort { expected, found: 3 })),
            (b"", Some(4), Err(BlobError::TooShort { expected, found: 0 })),
            (b"abcde", Some(4), Err(BlobError::TooLong { expected })),
            (b"abcdef", Some(4), Err(BlobError::TooLong { expected })),
            (b"abcD", Some(4), Err(wrong(b"abcD"))),
            (b"abc", None, Err(wrong(b"abc"))),
        ] {
            assert_eq!(verify(bytes, size, &digest), verified, "{bytes:?} {size:?}");
        }
    }
}
