//! From a blob to its archive: gzip (RFC 1952, any number of members), zstd (RFC 8878, any number of frames),
//! or as it is.
//!
//! What the bytes are is told by their first four, as podman does it; media types are sometimes wrong, and
//! the diff ID decides in the end. Both decoders read to the end of the blob: what follows and is no member
//! or frame is an error.

use std::io::{self, Read};

use bytes::Bytes;

use super::chunks::{ChunkReader, Chunks, ReadChunks};
use super::error::{Result, malformed};
use super::frames::{Frames, is_frame};
use super::windows::Windows;

/// How many uncompressed bytes go to the next stage at a time: small enough for a core's cache.
pub const CHUNK_BYTES: usize = 128 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The uncompressed bytes of a blob.
pub struct Decompressor<C: Chunks> {
    state: State<C>,
    windows: Windows,
}

enum State<C: Chunks> {
    Start(ChunkReader<C>),
    Running(ReadChunks<Decoder<C>>),
    /// The decoder could not be made; nothing can be read any more.
    Broken,
}

enum Decoder<C: Chunks> {
    Plain(ChunkReader<C>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<ChunkReader<C>>>),
    Zstd(Box<Frames<C>>),
}

impl<C: Chunks> Decompressor<C> {
    /// Decompresses `blob`, with a share of `windows`.
    pub fn new(blob: C, windows: Windows) -> Self {
        Self {
            state: State::Start(ChunkReader::new(blob)),
            windows,
        }
    }

    /// The stage before; `None` if no decoder could be made.
    pub fn into_inner(self) -> Option<C> {
        let reader = match self.state {
            State::Start(reader) => reader,
            State::Running(chunks) => match chunks.into_inner() {
                Decoder::Plain(reader) => reader,
                Decoder::Gzip(decoder) => decoder.into_inner(),
                Decoder::Zstd(decoder) => decoder.into_inner(),
            },
            State::Broken => return None,
        };
        Some(reader.into_inner())
    }

    fn start(mut blob: ChunkReader<C>, windows: &Windows) -> Result<Decoder<C>> {
        let magic = blob.peek(4)?;
        if magic.starts_with(&GZIP_MAGIC) {
            Ok(Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(
                blob,
            ))))
        } else if is_frame(magic) {
            Ok(Decoder::Zstd(Box::new(Frames::new(blob, windows.clone()))))
        } else {
            Ok(Decoder::Plain(blob))
        }
    }
}

impl<C: Chunks> Chunks for Decompressor<C> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        if let State::Start(reader) = &mut self.state {
            // An error of the stages before comes out here, while the blob is still in its place.
            reader.peek(4)?;
            let State::Start(reader) = std::mem::replace(&mut self.state, State::Broken) else {
                unreachable!("just seen")
            };
            let decoder = Self::start(reader, &self.windows)?;
            self.state = State::Running(ReadChunks::new(decoder, CHUNK_BYTES));
        }
        match &mut self.state {
            State::Running(chunks) => chunks.next_chunk(),
            State::Start(_) | State::Broken => Err(malformed("the decoder could not be started")),
        }
    }
}

impl<C: Chunks> Read for Decoder<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// Pieces of three bytes: no magic number lies in one piece.
    fn decompress(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        ChunkReader::new(Decompressor::new(ReadChunks::new(blob, 3), Windows::default()))
            .read_to_end(&mut out)
            .map(|_| out)
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        for blob in [
            b"abcdef".to_vec(),
            gzip(b"abcdef"),
            [gzip(b"abc"), gzip(b""), gzip(b"def")].concat(),
            zstd(b"abcdef"),
            [zstd(b"abc"), skippable.to_vec(), zstd(b"def")].concat(),
            [skippable.to_vec(), zstd(b"abcdef")].concat(),
        ] {
            assert_eq!(decompress(&blob).unwrap(), b"abcdef");
        }
        assert_eq!(decompress(b"").unwrap(), b"");
    }

    #[test]
    fn what_is_cut_or_followed_by_something_is_an_error() {
        for whole in [gzip(b"abcdef"), zstd(b"abcdef")] {
            for length in 4..whole.len() {
                assert!(
                    decompress(&whole[..length]).is_err(),
                    "{length} of {}",
                    whole.len()
                );
            }
            for tail in [b"garbage".as_slice(), &[0; 512]] {
                assert!(decompress(&[&whole, tail].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused_before_it_is_allocated() {
        // RFC 8878, 3.1.1.1: no single segment, no content size; the window is 2^(10 + exponent).
        let frame = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
        assert_eq!(decompress(&frame(17)).unwrap(), b"");
        let error = decompress(&frame(18)).unwrap_err().to_string();
        assert!(error.contains("too much memory"), "{error}");
    }
}
