//! zstd frames one after the other (RFC 8878), each decoded only when there is memory for its window.

use std::io::{self, BufRead as _, Read};

use zstd::stream::raw::{DParameter, Decoder, Operation as _};

use super::chunks::{ChunkReader, Chunks};
use super::windows::{SHARED_BYTES, Window, Windows};

/// The largest window, as a power of two: 128 MiB, the most that `zstd -d` takes without being told to.
const WINDOW_LOG_MAX: u32 = 27;

/// A frame header is at most this long (RFC 8878, 3.1.1.1).
pub const MAX_HEADER_BYTES: usize = 18;

const MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// Whether these are the first bytes of a frame.
pub fn is_frame(head: &[u8]) -> bool {
    let word = head.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic));
    word == MAGIC || word & !0xf == SKIPPABLE_MAGIC
}

/// Reads what the frames of a blob hold.
pub struct Frames<C> {
    blob: ChunkReader<C>,
    windows: Windows,
    decoder: Option<(Decoder<'static>, Window)>,
    in_frame: bool,
}

impl<C: Chunks> Frames<C> {
    /// Decodes `blob`, with a share of `windows`.
    pub fn new(blob: ChunkReader<C>, windows: Windows) -> Self {
        Self {
            blob,
            windows,
            decoder: None,
            in_frame: false,
        }
    }

    pub fn into_inner(self) -> ChunkReader<C> {
        self.blob
    }

    /// The decoder for the frame that begins here, or goes on; `None` at the end of the blob.
    fn decoder(&mut self) -> io::Result<Option<&mut Decoder<'static>>> {
        if !self.in_frame {
            let head = self.blob.peek(MAX_HEADER_BYTES)?;
            if head.is_empty() {
                return Ok(None);
            }
            let bytes = room_for(head);
            if self
                .decoder
                .as_ref()
                .is_none_or(|(_, window)| window.bytes < bytes)
            {
                // The smaller one first: who has one must not wait for another.
                self.decoder = None;
                let window = self.windows.open(bytes);
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                self.decoder = Some((decoder, window));
            }
            self.in_frame = true;
        }
        Ok(self.decoder.as_mut().map(|(decoder, _)| decoder))
    }
}

impl<C: Chunks> Read for Frames<C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.decoder()?.is_some() {
            let Some((decoder, _)) = &mut self.decoder else {
                break;
            };
            let input = self.blob.fill_buf()?;
            let done = decoder.run_on_buffers(input, into)?;
            if input.is_empty() && done.remaining > 0 && done.bytes_written == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.blob.consume(done.bytes_read);
            self.in_frame = done.remaining > 0;
            if done.bytes_written > 0 || into.is_empty() {
                return Ok(done.bytes_written);
            }
        }
        Ok(0)
    }
}

/// What the window of a frame that begins so takes beyond what all windows share, in bytes.
pub fn beyond_shared_bytes(head: &[u8]) -> u64 {
    room_for(head).saturating_sub(SHARED_BYTES)
}

/// What a decoder keeps of the output of a frame that begins so, in bytes. What is larger is refused by the
/// decoder.
fn room_for(head: &[u8]) -> u64 {
    window_bytes(head).unwrap_or(0).min(1 << WINDOW_LOG_MAX)
}

/// The size of the window that a frame asks for, in bytes; `None` where there is no whole frame header. (RFC
/// 8878, 3.1.1.1)
fn window_bytes(head: &[u8]) -> Option<u64> {
    if head.first_chunk() != Some(&MAGIC.to_le_bytes()) {
        return None;
    }
    let descriptor = *head.get(4)?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let (exponent, mantissa) = (head.get(5)? >> 3, u64::from(head.get(5)? & 7));
        let base = 1u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    // All of the content is the window.
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = head.get(5 + dictionary_bytes..)?;
    match descriptor >> 6 {
        0 => size.first().map(|byte| u64::from(*byte)),
        1 => size
            .first_chunk()
            .map(|bytes| u64::from(u16::from_le_bytes(*bytes)) + 256),
        2 => size
            .first_chunk()
            .map(|bytes| u64::from(u32::from_le_bytes(*bytes))),
        _ => size.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};
    use std::thread;

    use super::*;
    use crate::image::layer::chunks::ReadChunks;

    /// A frame that asks for a window of this size.
    fn frame(window_log: u32, content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn frames(blob: Vec<u8>, windows: &Windows) -> Frames<ReadChunks<Cursor<Vec<u8>>>> {
        let chunks = ReadChunks::new(Cursor::new(blob), 7);
        Frames::new(ChunkReader::new(chunks), windows.clone())
    }

    #[test]
    fn windows_are_those_of_the_frame_headers() {
        for log in [10, 20, 27] {
            assert_eq!(window_bytes(&frame(log, b"text")), Some(1 << log));
        }
        for size in [0, 255, 256, 70_000, 300_000] {
            let whole = zstd::bulk::compress(&vec![0; size], 1).unwrap();
            assert_eq!(window_bytes(&whole), Some(size as u64), "of one segment");
        }
        assert_eq!(
            window_bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0, (1 << 3) | 3]),
            Some(2048 + 3 * 256)
        );
        for head in [
            &b""[..],
            b"\x28\xb5\x2f\xfd",
            b"\x28\xb5\x2f\xfd\xe0\0\0",
            &[0x50, 0x2a, 0x4d, 0x18, 9, 9],
        ] {
            assert_eq!(window_bytes(head), None);
        }
    }

    /// Four layers of `zstd --long=27` took 520 MiB.
    #[test]
    fn large_windows_are_open_one_at_a_time() {
        let windows = Windows::default();
        let mut first = frames(frame(27, b"first"), &windows);
        first.read_exact(&mut [0]).unwrap();
        let others: Vec<_> = (0..3)
            .map(|_| {
                let mut other = frames(frame(27, b"other"), &windows);
                thread::spawn(move || {
                    let mut text = String::new();
                    other.read_to_string(&mut text).map(|_| text)
                })
            })
            .collect();
        while windows.waiting() < others.len() {
            assert!(
                !others.iter().any(thread::JoinHandle::is_finished),
                "it did not wait"
            );
            thread::yield_now();
        }
        drop(first);
        for other in others {
            assert_eq!(other.join().unwrap().unwrap(), "other");
        }
    }

    /// Two that grow at the same time would wait for each other, if they kept what they have.
    #[test]
    fn a_frame_with_a_larger_window_waits_without_its_smaller_one() {
        let windows = Windows::default();
        let blob = || [frame(25, b"small, "), frame(25, b"small, "), frame(26, b"large")].concat();
        let mut grow: Vec<_> = (0..2).map(|_| frames(blob(), &windows)).collect();
        for each in &mut grow {
            each.read_exact(&mut [0; 14]).unwrap();
        }
        let grown = grow.into_iter().map(|mut each| {
            thread::spawn(move || {
                let mut text = String::new();
                each.read_to_string(&mut text).map(|_| text)
            })
        });
        for each in grown.collect::<Vec<_>>() {
            assert_eq!(each.join().unwrap().unwrap(), "large");
        }
        assert_eq!(windows.waiting(), 0);
    }

    #[test]
    fn small_windows_are_open_together() {
        let windows = Windows::default();
        let mut open: Vec<_> = (0..8).map(|_| frames(frame(23, b"text"), &windows)).collect();
        for each in &mut open {
            each.read_exact(&mut [0; 4]).unwrap();
        }
    }
}
