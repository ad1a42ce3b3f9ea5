//! The uncompressed archive against its diff ID (image-spec `config.md`), and against a bound for its size.

use std::io;

use anyhow::{Result, bail};
use bytes::Bytes;

use super::chunks::Chunks;
use crate::image::oci::Digest;
use crate::image::oci::digest::{Hasher, UnsupportedAlgorithm};

/// The uncompressed archive is another than the one that the config names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the layer's diff ID is {found}, the image config says {expected}: the image is malformed")]
pub struct DiffIdMismatch {
    /// What the config says.
    pub expected: Digest,
    /// What the bytes hash to.
    pub found: Digest,
}

/// The archive is longer than the place for it allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the uncompressed layer is larger than {limit_bytes} bytes, more than there is room for")]
pub struct ArchiveTooLong {
    /// The bound, in bytes.
    pub limit_bytes: u64,
}

/// Passes the archive's bytes on and hashes them.
#[must_use = "nothing is verified before finish()"]
pub struct DiffIdHasher<C> {
    chunks: C,
    hasher: Hasher,
    seen_bytes: u64,
    limit_bytes: u64,
}

impl<C: Chunks> DiffIdHasher<C> {
    /// Hashes `chunks` as `diff_id` is hashed; more than `limit_bytes` of them are an error.
    pub fn new(chunks: C, diff_id: &Digest, limit_bytes: u64) -> Result<Self, UnsupportedAlgorithm> {
        Ok(Self {
            chunks,
            hasher: Hasher::like(diff_id)?,
            seen_bytes: 0,
            limit_bytes,
        })
    }

    /// Reads what is left and compares it all with `expected`. Gives the archive's size in bytes.
    pub fn finish(&mut self, expected: &Digest) -> Result<u64> {
        while !self.next_chunk()?.is_empty() {}
        let found = self.hasher.clone().finish();
        if found != *expected {
            bail!(DiffIdMismatch {
                expected: expected.clone(),
                found
            });
        }
        Ok(self.seen_bytes)
    }

    /// The stage before.
    pub fn into_inner(self) -> C {
        self.chunks
    }
}

impl<C: Chunks> Chunks for DiffIdHasher<C> {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        let chunk = self.chunks.next_chunk()?;
        self.seen_bytes = self.seen_bytes.saturating_add(chunk.len() as u64);
        if self.seen_bytes > self.limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                ArchiveTooLong {
                    limit_bytes: self.limit_bytes,
                },
            ));
        }
        self.hasher.update(&chunk);
        Ok(chunk)
    }
}
