//! The blob against its descriptor, on its way through the pipeline.

use bytes::Bytes;

use super::chunks::Chunks;
use super::error::{Result, malformed};
use crate::image::oci::Descriptor;
use crate::image::oci::blob::BlobCheck;

/// Passes a blob's bytes on, checks them, and never passes on more than the descriptor allows.
#[must_use = "nothing is verified before finish()"]
pub struct Verifier<C> {
    chunks: C,
    check: BlobCheck,
}

impl<C: Chunks> Verifier<C> {
    pub fn new(chunks: C, blob: &Descriptor) -> Result<Self> {
        let check = BlobCheck::new(blob).map_err(malformed)?;
        Ok(Self { chunks, check })
    }

    /// Reads what is left, and gives the stage before back if everything together was the blob.
    pub fn finish(mut self) -> Result<C> {
        while !self.next_chunk()?.is_empty() {}
        self.check.finish()?;
        Ok(self.chunks)
    }
}

impl<C: Chunks> Chunks for Verifier<C> {
    /// Asks for one chunk more after the last byte, so a blob that goes on is noticed.
    fn next_chunk(&mut self) -> Result<Bytes> {
        let chunk = self.chunks.next_chunk()?;
        self.check.update(&chunk)?;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::chunks::ReadChunks;
    use crate::image::oci::digest::sha256;
    use oci_spec::image::MediaType;

    #[test]
    fn nothing_beyond_the_size_is_passed_on() {
        let descriptor = Descriptor::new(MediaType::ImageLayer, 4u64, sha256(b"abcd"));
        let mut verifier = Verifier::new(ReadChunks::new(b"abcdef".as_slice(), 2), &descriptor).unwrap();
        assert_eq!(verifier.next_chunk().unwrap(), "ab");
        assert_eq!(verifier.next_chunk().unwrap(), "cd");
        assert!(verifier.next_chunk().is_err());
    }
}
