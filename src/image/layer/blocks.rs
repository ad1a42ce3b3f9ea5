//! An archive as blocks of 512 bytes, and the data of one entry in whole blocks among them.

use bytes::Bytes;

use super::chunks::{ChunkReader, Chunks};
use super::error::Result;
use super::header::BLOCK_BYTES;
use super::malformed::Malformed;

/// Reads blocks, and the data that some of them announce; see `archive` for what they mean.
pub struct Archive<C> {
    input: ChunkReader<C>,
    /// Of the current entry, how much data and padding has not been read yet.
    data_bytes: u64,
    padding_bytes: u64,
}

impl<C: Chunks> Archive<C> {
    pub fn new(chunks: C) -> Self {
        Self {
            input: ChunkReader::new(chunks),
            data_bytes: 0,
            padding_bytes: 0,
        }
    }

    /// The next piece of the current entry's data, at most `limit` bytes, empty at its end. Holes are not in
    /// it.
    pub fn data_up_to(&mut self, limit: u64) -> Result<Bytes> {
        let wanted = self.data_bytes.min(limit);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let piece = self.input_up_to(wanted)?;
        self.data_bytes -= piece.len() as u64;
        Ok(piece)
    }

    /// Says that `size` bytes of data follow, and their padding.
    pub fn begin_data(&mut self, size: u64) -> Result<()> {
        self.data_bytes = size;
        self.padding_bytes = size
            .checked_next_multiple_of(BLOCK_BYTES as u64)
            .ok_or(Malformed::Range)?
            - size;
        Ok(())
    }

    /// Reads what is left of the current entry.
    pub fn skip_data(&mut self) -> Result<()> {
        while !self.data_up_to(u64::MAX)?.is_empty() {}
        while self.padding_bytes > 0 {
            let piece = self.input_up_to(self.padding_bytes)?;
            self.padding_bytes -= piece.len() as u64;
        }
        Ok(())
    }

    /// The next block; `None` if the input ends before it.
    pub fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let chunk = self.input.chunk()?;
            let count = chunk.len().min(BLOCK_BYTES - filled);
            match (count, filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(Malformed::Cut.into()),
                _ => {}
            }
            block[filled..filled + count].copy_from_slice(&chunk.split_to(count));
            filled += count;
        }
        Ok(Some(block))
    }

    fn input_up_to(&mut self, limit: u64) -> Result<Bytes> {
        let chunk = self.input.chunk()?;
        if chunk.is_empty() {
            return Err(Malformed::Cut.into());
        }
        let count = usize::try_from(limit).map_or(chunk.len(), |limit| limit.min(chunk.len()));
        Ok(chunk.split_to(count))
    }

    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The stage before, wherever the archive is.
    pub fn into_inner(self) -> C {
        self.input.into_inner()
    }
}
