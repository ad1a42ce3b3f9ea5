//! A copy of the blob on its way, to serve it again later.

use std::fs::File;
use std::io::Write as _;

use bytes::Bytes;

use super::chunks::Chunks;
use super::error::Result;

/// Passes a blob's bytes on and writes them into a file. A copy that fails is given up: the blob can be had
/// again.
pub struct Tee<C> {
    chunks: C,
    copy: Option<File>,
}

impl<C: Chunks> Tee<C> {
    pub fn new(chunks: C, copy: Option<File>) -> Self {
        Self { chunks, copy }
    }

    /// Whether there is a copy of everything that was passed on.
    pub fn is_complete(&self) -> bool {
        self.copy.is_some()
    }
}

impl<C: Chunks> Chunks for Tee<C> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        let chunk = self.chunks.next_chunk()?;
        if let Some(copy) = &mut self.copy
            && copy.write_all(&chunk).is_err()
        {
            // Its memory is needed more elsewhere.
            let _ = copy.set_len(0);
            self.copy = None;
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::chunks::ReadChunks;

    #[test]
    fn a_copy_that_fails_is_given_up_and_the_blob_goes_on() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let whole = tempfile::tempfile().unwrap();
        for (file, complete) in [(full, false), (whole, true)] {
            let mut tee = Tee::new(ReadChunks::new(b"abc".as_slice(), 2), Some(file));
            assert_eq!(tee.next_chunk().unwrap(), "ab");
            assert_eq!(tee.next_chunk().unwrap(), "c");
            assert_eq!(tee.is_complete(), complete);
        }
    }
}
