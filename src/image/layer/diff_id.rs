//! The uncompressed archive against its diff ID (image-spec `config.md`), and against a bound for its size.

use bytes::Bytes;

use super::chunks::Chunks;
use super::error::{LayerError, Result, malformed};
use crate::image::oci::Digest;
use crate::image::oci::blob::{BlobCheck, BlobError};

/// Passes the archive's bytes on and hashes them.
#[must_use = "nothing is verified before finish()"]
pub struct DiffIdHasher<C> {
    chunks: C,
    check: BlobCheck,
    limit_bytes: u64,
}

impl<C: Chunks> DiffIdHasher<C> {
    /// Compares `chunks` with `diff_id`; more than `limit_bytes` of them are an error.
    pub fn new(chunks: C, diff_id: &Digest, limit_bytes: u64) -> Result<Self> {
        Ok(Self {
            chunks,
            check: BlobCheck::of(diff_id, None).map_err(malformed)?,
            limit_bytes,
        })
    }

    /// Reads what is left, and gives the archive's size in bytes if it is the right one. Gives the stage
    /// before back, too.
    pub fn finish(mut self) -> (Result<u64>, C) {
        let bytes = self.read_rest();
        let verified = bytes.and_then(|bytes| match self.check.finish() {
            Err(BlobError::Digest { expected, found }) => Err(LayerError::DiffId { expected, found }),
            checked => Ok(checked.map(|_| bytes)?),
        });
        (verified, self.chunks)
    }

    pub fn into_inner(self) -> C {
        self.chunks
    }

    fn read_rest(&mut self) -> Result<u64> {
        while !self.next_chunk()?.is_empty() {}
        Ok(self.check.seen_bytes())
    }
}

impl<C: Chunks> Chunks for DiffIdHasher<C> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        let chunk = self.chunks.next_chunk()?;
        self.check.update(&chunk)?;
        if self.check.seen_bytes() > self.limit_bytes {
            return Err(LayerError::TooLarge(self.limit_bytes));
        }
        Ok(chunk)
    }
}
