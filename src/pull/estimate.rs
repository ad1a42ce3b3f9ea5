//! What an image will take once it is unpacked, before any of it is pulled.
//!
//! A gzip blob ends with the size of its last member modulo 2^32 (RFC 1952), a zstd frame may begin with its size (RFC
//! 8878): a few bytes of each layer. A cache that doesn't have a blob yet fetches all of it for those bytes, and some give
//! all of it. So the smallest layer is asked for first, alone; where that doesn't work, no other is.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use crate::oci::image::MAX_IMAGE_BYTES;
use crate::oci::media_type::Compression;
use crate::oci::{Image, Layer};
use crate::source::Source;

/// How many requests ask for sizes at the same time.
const PARALLEL_REQUESTS: usize = 8;

/// For all requests together: an estimate is not worth more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes come of a compressed one, where nothing better is known.
const USUAL_RATIO: u64 = 3;

/// An estimate of what `image` takes when it is unpacked, in bytes, with what a file system adds to the files. Where the
/// blobs don't say anything that can be true, or the source gives no parts of them, it is the usual ratio.
pub async fn estimate_unpacked_bytes(source: &dyn Source, image: &Image) -> u64 {
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
        Some(layer) => asking.unpacked_bytes(layer).await,
        None => 0,
    };
    let others = layers.into_iter().map(|layer| asking.unpacked_bytes(layer));
    let mut others = stream::iter(others).buffer_unordered(PARALLEL_REQUESTS);
    while let Some(size) = others.next().await {
        total = total.saturating_add(size);
    }
    // What a frame says is the word of whoever made it.
    let total = total.min(MAX_IMAGE_BYTES);
    // Measured on tmpfs: 3 % for the rest of each file's last page, 5 % for inodes.
    total + total / 100 * 8
}

/// The questions of one estimate.
struct Asking<'a> {
    source: &'a dyn Source,
    deadline: Instant,
    /// Whether a part was not to be had.
    refused: AtomicBool,
}

impl Asking<'_> {
    async fn unpacked_bytes(&self, layer: &Layer) -> u64 {
        let size = layer.blob.size();
        let said = match layer.compression {
            Compression::None => Some(size),
            Compression::Gzip => self.gzip_size(layer).await,
            Compression::Zstd => self.zstd_size(layer).await,
        };
        said.unwrap_or(size.saturating_mul(USUAL_RATIO))
    }

    async fn gzip_size(&self, layer: &Layer) -> Option<u64> {
        let compressed = layer.blob.size();
        let tail = self.part(layer, compressed.checked_sub(4)?, 4).await?;
        let size = u64::from(u32::from_le_bytes(tail.try_into().ok()?));
        plausible_gzip_size(size, compressed)
    }

    async fn zstd_size(&self, layer: &Layer) -> Option<u64> {
        // RFC 8878, 3.1.1: a frame header is at most 18 bytes long.
        let head = self.part(layer, 0, layer.blob.size().min(18) as usize).await?;
        let size = zstd::zstd_safe::get_frame_content_size(&head).ok()??;
        // Less than the blob is the size of the first of several frames.
        (size >= layer.blob.size()).then_some(size)
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

/// The size that a gzip blob's last four bytes stand for. Smaller than the blob, they are cut off at 32 bits, or those of
/// the last of several members; the former is for large blobs alone.
fn plausible_gzip_size(size: u64, compressed: u64) -> Option<u64> {
    const WRAP: u64 = 1 << 32;
    // Deflate makes a byte of at most 1032 (zlib's manual); more isn't a size at all.
    const MAX_RATIO: u64 = 1032;
    if size >= compressed {
        return (size / MAX_RATIO <= compressed).then_some(size);
    }
    let wraps = (compressed - size).div_ceil(WRAP);
    (compressed >= WRAP / 4).then(|| size + wraps * WRAP)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::Result;
    use futures_util::future::BoxFuture;
    use oci_spec::image::MediaType;

    use super::*;
    use crate::oci::Descriptor;
    use crate::oci::digest::sha256;
    use crate::oci::reference::Selector;
    use crate::pull::tests::image_of;
    use crate::source::{BlobStream, RawDocument};

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
        for (given, expected, asked) in [
            (
                true,
                7000 + 100 + 5000 + 7000,
                vec![(1000, 0, 18), (2000, 1996, 4), (3000, 2996, 4)],
            ),
            // The smallest is enough to see that.
            (false, 9000 + 100 + 3000 + 6000, vec![(1000, 0, 18)]),
        ] {
            let source = Parts {
                given,
                asked: Mutex::default(),
            };
            let estimate = estimate_unpacked_bytes(&source, &image).await;
            assert_eq!(estimate, expected + expected / 100 * 8);
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
        let estimate = estimate_unpacked_bytes(&Boaster, &image(&[(Compression::Zstd, 18); 3])).await;
        assert_eq!(estimate, MAX_IMAGE_BYTES + MAX_IMAGE_BYTES / 100 * 8);
    }

    #[test]
    fn the_last_four_bytes_of_a_gzip_blob() {
        const GIB: u64 = 1 << 30;
        for (size, compressed, expected) in [
            (2_000, 1_000, Some(2_000)),
            (1_000, 1_000, Some(1_000)),
            (1_034_000, 1_000, None),
            // The last of several members.
            (999, 1_000, None),
            (0, GIB - 1, None),
            // Cut off at 32 bits.
            (0, GIB, Some(4 * GIB)),
            (GIB, 2 * GIB, Some(5 * GIB)),
            (GIB, 5 * GIB, Some(5 * GIB)),
            (GIB, 5 * GIB + 1, Some(9 * GIB)),
        ] {
            assert_eq!(
                plausible_gzip_size(size, compressed),
                expected,
                "{size} {compressed}"
            );
        }
    }
}
