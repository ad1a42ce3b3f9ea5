//! What flows through the pipeline: chunks of bytes, shared between the stages and never copied.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::error::Result;

/// A stage of the pipeline, or its beginning: gives bytes piece by piece.
pub trait Chunks {
    /// The next piece; an empty one is the end, and stays the end.
    fn next_chunk(&mut self) -> Result<Bytes>;
}

/// Any reader, in pieces.
pub struct ReadChunks<R> {
    reader: R,
    pool: Pool,
}

impl<R: io::Read> ReadChunks<R> {
    /// Reads pieces of at most `chunk_bytes`.
    pub fn new(reader: R, chunk_bytes: usize) -> Self {
        Self {
            reader,
            pool: Pool::new(chunk_bytes),
        }
    }

    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: io::Read> Chunks for ReadChunks<R> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        let mut buffer = self.pool.take();
        let mut filled = 0;
        while filled < buffer.bytes.len() {
            match self.reader.read(&mut buffer.bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Bytes::from_owner(buffer).slice(..filled))
    }
}

/// Chunks as a reader, for decoders that want one.
pub struct ChunkReader<C> {
    chunks: C,
    current: Bytes,
}

impl<C: Chunks> ChunkReader<C> {
    pub fn new(chunks: C) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
        }
    }

    /// What is left of the current chunk, or else the next one; empty at the end.
    pub fn chunk(&mut self) -> Result<&mut Bytes> {
        if self.current.is_empty() {
            self.current = self.chunks.next_chunk()?;
        }
        Ok(&mut self.current)
    }

    /// The first `count` bytes, or all there are, without consuming them.
    pub fn peek(&mut self, count: usize) -> Result<&[u8]> {
        while self.current.len() < count {
            let next = self.chunks.next_chunk()?;
            if next.is_empty() {
                break;
            }
            self.current = [&self.current[..], &next].concat().into();
        }
        Ok(&self.current[..count.min(self.current.len())])
    }

    /// The chunks that were not read yet.
    pub fn into_inner(self) -> C {
        self.chunks
    }
}

impl<C: Chunks> io::BufRead for ChunkReader<C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.chunk()?)
    }

    fn consume(&mut self, count: usize) {
        let _ = self.current.split_to(count);
    }
}

impl<C: Chunks> io::Read for ChunkReader<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let chunk = self.chunk()?;
        let count = chunk.len().min(into.len());
        into[..count].copy_from_slice(&chunk.split_to(count));
        Ok(count)
    }
}

/// Buffers of one size that come back when their last reader is done with them.
#[derive(Clone)]
struct Pool {
    chunk_bytes: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

struct Buffer {
    bytes: Vec<u8>,
    home: Pool,
}

impl Pool {
    fn new(chunk_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            free: Arc::default(),
        }
    }

    fn take(&self) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; self.chunk_bytes]),
            home: self.clone(),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bytes);
    }
}
