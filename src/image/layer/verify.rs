//! The blob against its descriptor (image-spec `descriptor.md`): so many bytes, with that digest.
//!
//! Only [`Verifier::finish`] makes a [`VerifiedBlob`]; that a reader has seen the end proves nothing.

use std::io;

use bytes::Bytes;

use super::chunks::Chunks;
use crate::image::oci::digest::{Hasher, UnsupportedAlgorithm};
use crate::image::oci::{Descriptor, Digest};

/// Why a blob is not what its descriptor says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// It ends early.
    #[error(
        "the blob ends after {found} of {expected} bytes: the registry's copy or the connection is damaged"
    )]
    TooShort {
        /// The size in the manifest, in bytes.
        expected: u64,
        /// How many bytes came.
        found: u64,
    },
    /// It goes on and on.
    #[error(
        "the blob is longer than the {expected} bytes that the manifest says: the registry's copy is damaged"
    )]
    TooLong {
        /// The size in the manifest, in bytes.
        expected: u64,
    },
    /// Its bytes are others.
    #[error("the blob's digest is {found}, the manifest says {expected}: the registry's copy is damaged")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
}

/// Proof that a blob's bytes were what its descriptor says.
#[derive(Clone, Debug)]
pub struct VerifiedBlob {
    digest: Digest,
    size_bytes: u64,
}

impl VerifiedBlob {
    /// The digest of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many there were.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// Passes a blob's bytes on, counts and hashes them, and never passes on more than the descriptor allows.
#[must_use = "nothing is verified before finish()"]
pub struct Verifier<C> {
    chunks: C,
    hasher: Hasher,
    expected: Digest,
    size_bytes: u64,
    seen_bytes: u64,
}

impl<C: Chunks> Verifier<C> {
    /// Compares `chunks` with what `blob` says.
    pub fn new(chunks: C, blob: &Descriptor) -> Result<Self, UnsupportedAlgorithm> {
        Ok(Self {
            chunks,
            hasher: Hasher::like(blob.digest())?,
            expected: blob.digest().clone(),
            size_bytes: blob.size(),
            seen_bytes: 0,
        })
    }

    /// Reads what is left, and says whether everything together was the blob. Gives the stage before back, too.
    pub fn finish(mut self) -> io::Result<(VerifiedBlob, C)> {
        while !self.next_chunk()?.is_empty() {}
        if self.seen_bytes < self.size_bytes {
            return Err(invalid(BlobError::TooShort {
                expected: self.size_bytes,
                found: self.seen_bytes,
            }));
        }
        let found = self.hasher.finish();
        if found == self.expected {
            let verified = VerifiedBlob {
                digest: found,
                size_bytes: self.size_bytes,
            };
            Ok((verified, self.chunks))
        } else {
            Err(invalid(BlobError::Digest {
                expected: self.expected,
                found,
            }))
        }
    }
}

impl<C: Chunks> Chunks for Verifier<C> {
    /// Asks for one chunk more after the last byte, so a blob that goes on is noticed.
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        let chunk = self.chunks.next_chunk()?;
        self.seen_bytes = self.seen_bytes.saturating_add(chunk.len() as u64);
        if self.seen_bytes > self.size_bytes {
            return Err(invalid(BlobError::TooLong {
                expected: self.size_bytes,
            }));
        }
        self.hasher.update(&chunk);
        Ok(chunk)
    }
}

fn invalid(error: BlobError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::chunks::ReadChunks;
    use crate::image::oci::digest::sha256;
    use oci_spec::image::MediaType;

    fn verify(bytes: &'static [u8], size: u64, digest: Digest) -> Result<VerifiedBlob, BlobError> {
        let descriptor = Descriptor::new(MediaType::ImageLayer, size, digest);
        // Pieces of two bytes: the end falls on, before and behind the border of a piece.
        let verifier = Verifier::new(ReadChunks::new(bytes, 2), &descriptor).unwrap();
        verifier
            .finish()
            .map(|(verified, _)| verified)
            .map_err(|error| error.downcast::<BlobError>().unwrap())
    }

    #[test]
    fn short_long_and_wrong_are_three_errors() {
        let digest = sha256(b"abcd");
        let verified = verify(b"abcd", 4, digest.clone()).unwrap();
        assert_eq!((verified.size_bytes(), verified.digest()), (4, &digest));
        for (bytes, expected) in [
            (
                b"abc".as_slice(),
                BlobError::TooShort {
                    expected: 4,
                    found: 3,
                },
            ),
            (
                b"",
                BlobError::TooShort {
                    expected: 4,
                    found: 0,
                },
            ),
            (b"abcde", BlobError::TooLong { expected: 4 }),
            (
                b"abcD",
                BlobError::Digest {
                    expected: digest.clone(),
                    found: sha256(b"abcD"),
                },
            ),
        ] {
            assert_eq!(verify(bytes, 4, digest.clone()).unwrap_err(), expected);
        }
    }

    #[test]
    fn nothing_beyond_the_size_is_passed_on() {
        let descriptor = Descriptor::new(MediaType::ImageLayer, 4u64, sha256(b"abcd"));
        let mut verifier = Verifier::new(ReadChunks::new(b"abcdef".as_slice(), 2), &descriptor).unwrap();
        assert_eq!(verifier.next_chunk().unwrap(), "ab");
        assert_eq!(verifier.next_chunk().unwrap(), "cd");
        assert!(verifier.next_chunk().is_err());
    }
}
