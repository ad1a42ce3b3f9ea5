//! What an image will take once it is unpacked, before any of it is pulled.
//!
//! A gzip blob ends with the size of its last member modulo 2^32 (RFC 1952), a zstd frame may begin with its
//! size (RFC 8878): a few bytes of each layer. A cache that doesn't have a blob yet fetches all of it for
//! those bytes, and some give all of it. So the smallest layer is asked for first, alone; where that doesn't
//! work, no other is.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::console::text::size;
use crate::image::layer::{MAX_FRAME_HEADER_BYTES, beyond_shared_bytes};
use crate::image::oci::image::MAX_IMAGE_BYTES;
use crate::image::oci::media_type::Compression;
use crate::image::oci::{Image, Layer};
use crate::image::source::Source;

/// How many requests ask for sizes at the same time.
const PARALLEL_REQUESTS: usize = 8;

/// For all requests together: an estimate is not worth more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes come of a compressed one, where nothing better is known.
const USUAL_RATIO: u64 = 3;

/// How large something is once it is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// What it is likely to take, in bytes.
    #[serde(rename = "unpacked_bytes_estimate")]
    pub likely_bytes: u64,
    /// What it surely has, in bytes.
    #[serde(rename = "unpacked_bytes_at_least")]
    pub at_least_bytes: u64,
    /// Whether some of that is the usual ratio, and nothing that the blobs say.
    #[serde(rename = "unpacked_bytes_is_a_guess")]
    pub is_guess: bool,
    /// What its largest zstd window takes while it is pulled, beyond what all windows share, in bytes.
    #[serde(skip)]
    pub window_bytes: u64,
}

/// An estimate of what `image` takes when it is unpacked, likely with what a file system adds to the files.
/// Where the blobs don't say anything that can be true, or the source gives no parts of them, it is a guess.
pub async fn estimate_unpacked(source: &dyn Source, image: &Image) -> Estimate {
    let asking = &Asking {
        source,
        deadline: Instant::now() + PATIENCE,
        refused: AtomicBool::new(false),
    };
    let mut layers: Vec<&Layer> = image.layers.iter().collect();
    layers.sort_by_key(|layer| layer.blob.size());
    let first = layers
        .iter()
        .position(|layer| layer.compression != Compression::None);
    let first = first.map(|index| layers.remove(index));
    let mut total = match first {
        Some(layer) => asking.unpacked(layer).await,
        None => Estimate::default(),
    };
    let others = layers.into_iter().map(|layer| asking.unpacked(layer));
    let mut others = stream::iter(others).buffer_unordered(PARALLEL_REQUESTS);
    while let Some(layer) = others.next().await {
        total = total.and(layer);
    }
    // What a frame says is the word of whoever made it.
    Estimate {
        at_least_bytes: total.at_least_bytes.min(MAX_IMAGE_BYTES),
        likely_bytes: with_filesystem(total.likely_bytes.min(MAX_IMAGE_BYTES)),
        ..total
    }
}

/// What files of `bytes` take in a file system. Measured on tmpfs: 3 % for the rest of each file's last page,
/// 5 % for inodes.
pub fn with_filesystem(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 100 * 8)
}

impl Estimate {
    /// What the blob itself says.
    fn said(bytes: u64) -> Self {
        Self {
            at_least_bytes: bytes,
            likely_bytes: bytes,
            ..Self::default()
        }
    }

    /// Of a blob that says nothing but its size.
    fn guess(likely_bytes: u64, compressed: u64) -> Self {
        Self {
            at_least_bytes: least_unpacked_bytes(compressed),
            likely_bytes,
            is_guess: true,
            window_bytes: 0,
        }
    }

    /// Both sizes as people read them, and what is added to those that come of a guess.
    pub fn beside(self, compressed_bytes: u64) -> (String, &'static str) {
        let guess = if self.is_guess { " (a guess)" } else { "" };
        let (compressed, unpacked) = (size(compressed_bytes), size(self.likely_bytes));
        (
            format!("{compressed} compressed, about {unpacked} unpacked{guess}"),
            guess,
        )
    }

    fn and(self, other: Self) -> Self {
        Self {
            at_least_bytes: self.at_least_bytes.saturating_add(other.at_least_bytes),
            likely_bytes: self.likely_bytes.saturating_add(other.likely_bytes),
            is_guess: self.is_guess || other.is_guess,
            window_bytes: self.window_bytes.max(other.window_bytes),
        }
    }
}

struct Asking<'a> {
    source: &'a dyn Source,
    deadline: Instant,
    /// Whether a part was not to be had.
    refused: AtomicBool,
}

impl Asking<'_> {
    async fn unpacked(&self, layer: &Layer) -> Estimate {
        let size = layer.blob.size();
        let guess = || Estimate::guess(size.saturating_mul(USUAL_RATIO), size);
        match layer.compression {
            Compression::None => Estimate::said(size),
            Compression::Gzip => self.gzip_size(layer).await.unwrap_or_else(guess),
            Compression::Zstd => {
                let head_bytes = size.min(MAX_FRAME_HEADER_BYTES as u64) as usize;
                let head = self.part(layer, 0, head_bytes).await.unwrap_or_default();
                Estimate {
                    window_bytes: beyond_shared_bytes(&head),
                    ..zstd_size(&head, size).unwrap_or_else(guess)
                }
            }
        }
    }

    async fn gzip_size(&self, layer: &Layer) -> Option<Estimate> {
        let compressed = layer.blob.size();
        let tail = self.part(layer, compressed.checked_sub(4)?, 4).await?;
        let size = u64::from(u32::from_le_bytes(tail.try_into().ok()?));
        plausible_gzip_size(size, compressed)
    }

    async fn part(&self, layer: &Layer, offset: u64, count: usize) -> Option<Vec<u8>> {
        if self.refused.load(Relaxed) {
            return None;
        }
        let asked = timeout_at(self.deadline, self.source.part(&layer.blob, offset, count));
        let part = asked.await.ok().flatten();
        if part.is_none() {
            self.refused.store(true, Relaxed);
        }
        part
    }
}

/// The least that a blob can come from. What can't be made smaller becomes a little larger: by zstd and most
/// writers of gzip by 5 bytes in 16 KiB or less (blocks that are stored as they are), by the quickest ones to
/// nine bits a byte (RFC 1951, section 3.2.6). gzip's own frame has 18 bytes.
fn least_unpacked_bytes(compressed: u64) -> u64 {
    compressed.saturating_sub(18) / 9 * 8
}

/// The size that a zstd blob's first frame says, if that can be all of it: less is the size of the first of
/// several frames.
fn zstd_size(head: &[u8], compressed: u64) -> Option<Estimate> {
    let size = zstd::zstd_safe::get_frame_content_size(head).ok()??;
    (size >= least_unpacked_bytes(compressed)).then(|| Estimate::said(size))
}

/// The size that a gzip blob's last four bytes stand for. Smaller than what the blob can come from, they are
/// cut off at 32 bits, or those of the last of several members; the former is for large blobs alone, and a
/// guess.
fn plausible_gzip_size(size: u64, compressed: u64) -> Option<Estimate> {
    const WRAP: u64 = 1 << 32;
    // Deflate makes a byte of at most 1032 (zlib's manual); more isn't a size at all.
    const MAX_RATIO: u64 = 1032;
    let least = least_unpacked_bytes(compressed);
    if size >= least {
        return (size / MAX_RATIO <= compressed).then(|| Estimate::said(size));
    }
    let wraps = (least - size).div_ceil(WRAP);
    (compressed >= WRAP / 4).then(|| Estimate::guess(size + wraps * WRAP, compressed))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use anyhow::Result;
    use flate2::write::GzEncoder;
    use futures_util::future::BoxFuture;
    use oci_spec::image::MediaType;

    use super::*;
    use crate::image::oci::Descriptor;
    use crate::image::oci::digest::sha256;
    use crate::image::oci::reference::Selector;
    use crate::image::pull::tests::image_of;
    use crate::image::source::{BlobStream, RawDocument};
    use crate::sys::random::Random;

    /// Gives parts of blobs, or none.
    struct Parts {
        given: bool,
        asked: Mutex<Vec<(u64, u64, usize)>>,
    }

    impl Source for Parts {
        fn document<'a>(&'a self, _: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
            unreachable!("the image is resolved")
        }

        fn blob<'a>(&'a self, _: &'a Descriptor, _: u64) -> BoxFuture<'a, Result<BlobStream>> {
            unreachable!("nothing is pulled")
        }

        fn part<'a>(
            &'a self,
            blob: &'a Descriptor,
            offset: u64,
            count: usize,
        ) -> BoxFuture<'a, Option<Vec<u8>>> {
            self.asked.lock().unwrap().push((blob.size(), offset, count));
            let whole = zstd::bulk::compress(&[0; 5000], 1).unwrap();
            let part = match offset {
                0 => whole[..count.min(whole.len())].to_vec(),
                _ => 7000u32.to_le_bytes().to_vec(),
            };
            Box::pin(async move { self.given.then_some(part) })
        }
    }

    fn image(layers: &[(Compression, u64)]) -> Image {
        let layer = |(index, (compression, size)): (usize, &(Compression, u64))| Layer {
            index,
            blob: Descriptor::new(MediaType::ImageLayer, *size, sha256(&[index as u8])),
            diff_id: sha256(b""),
            compression: *compression,
        };
        image_of(layers.iter().enumerate().map(layer).collect())
    }

    #[tokio::test]
    async fn sizes_are_read_from_the_blobs_themselves_where_parts_are_to_be_had() {
        use Compression::{Gzip, None, Zstd};
        let image = image(&[(Gzip, 3000), (None, 100), (Zstd, 1000), (Gzip, 2000)]);
        let said = 7000 + 100 + 5000 + 7000;
        let guessed = 9000 + 100 + 3000 + 6000;
        let least = [3000, 1000, 2000].map(least_unpacked_bytes).iter().sum::<u64>() + 100;
        for (given, expected, asked) in [
            (
                true,
                (said, said, false),
                vec![(1000, 0, 18), (2000, 1996, 4), (3000, 2996, 4)],
            ),
            // The smallest is enough to see that.
            (false, (least, guessed, true), vec![(1000, 0, 18)]),
        ] {
            let source = Parts {
                given,
                asked: Mutex::default(),
            };
            let estimate = estimate_unpacked(&source, &image).await;
            let (at_least_bytes, likely, is_guess) = expected;
            let expected = Estimate {
                at_least_bytes,
                likely_bytes: likely + likely / 100 * 8,
                is_guess,
                window_bytes: 0,
            };
            assert_eq!(estimate, expected);
            assert_eq!(source.asked.into_inner().unwrap(), asked);
        }
    }

    /// A zstd frame of a few bytes that says it has 2^63 (RFC 8878, section 3.1.1.1).
    struct Boaster;

    impl Source for Boaster {
        fn document<'a>(&'a self, _: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
            unreachable!("the image is resolved")
        }

        fn blob<'a>(&'a self, _: &'a Descriptor, _: u64) -> BoxFuture<'a, Result<BlobStream>> {
            let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0b1110_0000];
            frame.extend((1u64 << 63).to_le_bytes());
            frame.resize(18, 0);
            Box::pin(async move { Ok(stream::iter([Ok(frame.into())]).boxed()) })
        }
    }

    #[tokio::test]
    async fn a_size_that_nobody_has_is_bounded() {
        let estimate = estimate_unpacked(&Boaster, &image(&[(Compression::Zstd, 18); 3])).await;
        assert_eq!(estimate.at_least_bytes, MAX_IMAGE_BYTES);
        assert_eq!(estimate.likely_bytes, with_filesystem(MAX_IMAGE_BYTES));
    }

    /// A zstd frame with a window of 128 MiB that doesn't say how much it has.
    struct Long;

    impl Source for Long {
        fn document<'a>(&'a self, _: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
            unreachable!("the image is resolved")
        }

        fn blob<'a>(&'a self, _: &'a Descriptor, _: u64) -> BoxFuture<'a, Result<BlobStream>> {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(27).unwrap();
            encoder.write_all(b"text").unwrap();
            let frame = encoder.finish().unwrap();
            Box::pin(async move { Ok(stream::iter([Ok(frame.into())]).boxed()) })
        }
    }

    #[tokio::test]
    async fn the_largest_window_counts_once() {
        let layers = [
            (Compression::Zstd, 13),
            (Compression::None, 100),
            (Compression::Zstd, 13),
        ];
        let estimate = estimate_unpacked(&Long, &image(&layers)).await;
        assert!(estimate.is_guess);
        assert_eq!(estimate.window_bytes, 64 << 20);
    }

    #[test]
    fn the_last_four_bytes_of_a_gzip_blob() {
        const GIB: u64 = 1 << 30;
        let said = |bytes| Some(Estimate::said(bytes));
        let guess = |likely, compressed| Some(Estimate::guess(likely, compressed));
        for (size, compressed, expected) in [
            (2_000, 1_000, said(2_000)),
            (1_000, 1_000, said(1_000)),
            (1_034_000, 1_000, None),
            // It couldn't be made smaller: stored blocks, then nine bits a byte.
            (GIB, GIB + GIB / 16384 * 5 + 18, said(GIB)),
            (3 * GIB, 3 * GIB + 3 * GIB / 8 + 18, said(3 * GIB)),
            // The last of several members.
            (800, 1_000, None),
            (0, GIB - 1, None),
            // Cut off at 32 bits.
            (0, GIB, guess(4 * GIB, GIB)),
            (GIB, 2 * GIB, guess(5 * GIB, 2 * GIB)),
            (GIB, 5 * GIB, guess(5 * GIB, 5 * GIB)),
            (GIB, 5 * GIB + GIB / 2, guess(5 * GIB, 5 * GIB + GIB / 2)),
            (GIB, 6 * GIB, guess(9 * GIB, 6 * GIB)),
        ] {
            assert_eq!(
                plausible_gzip_size(size, compressed),
                expected,
                "{size} {compressed}"
            );
        }
    }

    #[test]
    fn no_encoder_makes_more_of_noise_than_is_allowed_for() {
        let mut random = Random::new(1);
        let noise: Vec<u8> = (0..1 << 20).map(|_| random.below(256) as u8).collect();
        let mut blobs: Vec<Vec<u8>> = (0..=9)
            .map(|level| {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level));
                encoder.write_all(&noise).unwrap();
                encoder.finish().unwrap()
            })
            .collect();
        blobs.push(zstd::bulk::compress(&noise, 1).unwrap());
        for blob in blobs {
            let size = blob.len() as u64;
            assert!(size > 1 << 20 && least_unpacked_bytes(size) <= 1 << 20, "{size}");
        }
    }
}
