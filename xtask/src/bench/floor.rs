//! The floor: what no program can do without, each part alone and in one thread.

use std::fs::{self, File};
use std::io::{Read, Write as _};

use anyhow::{Context, Result};
use lab::image::Layout;
use ring::digest::{Context as Hash, SHA256};

use super::image::{blobs, decode};
use super::place::Place;

const CHUNK_BYTES: usize = 128 << 10;

/// CPU time of each part, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// The digests of all blobs.
    pub hash_blobs: f64,
    /// Inflating them.
    pub inflate: f64,
    /// The digests of all archives.
    pub hash_archives: f64,
    /// Writing the archives into files on a tmpfs, one file a layer.
    pub write: f64,
}

impl Floor {
    /// All parts together.
    pub fn total(&self) -> f64 {
        self.hash_blobs + self.inflate + self.hash_archives + self.write
    }
}

/// Measures an image's layers.
pub fn measure(layout: &Layout) -> Result<Floor> {
    let place = Place::new()?;
    let mut floor = Floor::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    for path in blobs(layout)? {
        let blob = fs::read(&path)?;
        floor.hash_blobs += timed(|| hash(blob.chunks(CHUNK_BYTES)))?;
        let mut archive_bytes = 0;
        let mut decoder = decode(blob.as_slice())?;
        floor.inflate += timed(|| -> Result<()> {
            while let count @ 1.. = decoder.read(&mut buffer)? {
                archive_bytes += count;
            }
            Ok(())
        })?;
        // The same few pages again and again, as a pipeline has them.
        let chunks = archive_bytes.div_ceil(CHUNK_BYTES);
        floor.hash_archives += timed(|| hash(std::iter::repeat_n(buffer.as_slice(), chunks)))?;
        let mut file = File::create(place.path().join("archive"))?;
        floor.write +=
            timed(|| -> Result<()> { (0..chunks).try_for_each(|_| Ok(file.write_all(&buffer)?)) })?;
    }
    Ok(floor)
}

fn hash<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let mut hash = Hash::new(&SHA256);
    chunks.for_each(|chunk| hash.update(chunk));
    std::hint::black_box(hash.finish());
    Ok(())
}

/// The CPU time of this thread for `work`, in seconds.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = on_cpu()?;
    work()?;
    Ok(on_cpu()? - before)
}

fn on_cpu() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("this kernel has no schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().context("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}
