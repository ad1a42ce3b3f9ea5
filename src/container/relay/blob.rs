//! The bytes of a blob on their way to the client: from a cached file, or from the source and verified on the
//! way.

use std::io;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use oci_spec::image::Descriptor;

use crate::image::oci::blob::BlobCheck;
use crate::image::source::{BlobStream, Source, file};

/// The bytes `range` of a cached file that holds `blob`, if it is there. It was verified when it was written,
/// and nobody but us can write there; a wrong size means that it is not ours.
pub async fn from_file(path: &Path, blob: &Descriptor, range: Range<u64>) -> Option<BlobStream> {
    let file = file::open(path).await.ok()?;
    let size = file.metadata().await.ok()?.len();
    if size != blob.size() {
        return None;
    }
    file::stream(file, range).await.ok()
}

/// The bytes `range` of `blob` from `source`. All of the blob is read, whatever the range: its last bytes are
/// given out only when the digest is right.
pub async fn from_source(source: &dyn Source, blob: &Descriptor, range: Range<u64>) -> Result<BlobStream> {
    let verifier = Verifier {
        inner: source.blob(blob, 0).await?,
        check: Some(BlobCheck::new(blob)?),
        range,
        held: None,
    };
    let doing = format!("relaying blob {}", blob.digest());
    let next = move |mut verifier: Verifier| {
        let doing = doing.clone();
        async move {
            let chunk = verifier.next().await.context(doing);
            let chunk = chunk.map_err(|error| io::Error::other(format!("{error:#}")))?;
            Ok(chunk.map(|chunk| (chunk, verifier)))
        }
    };
    Ok(Box::pin(stream::try_unfold(verifier, next)))
}

struct Verifier {
    inner: BlobStream,
    /// Gone when the blob is verified.
    check: Option<BlobCheck>,
    range: Range<u64>,
    /// Wanted bytes that wait for the next ones, or for the digest.
    held: Option<Bytes>,
}

impl Verifier {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(check) = &mut self.check {
            let Some(chunk) = self.inner.next().await else {
                // Only when that is right is the last piece free.
                self.check.take().map(BlobCheck::finish).transpose()?;
                break;
            };
            let chunk = chunk?;
            let wanted = part(&chunk, check.seen_bytes(), &self.range);
            check.update(&chunk)?;
            if !wanted.is_empty()
                && let Some(before) = self.held.replace(wanted)
            {
                return Ok(Some(before));
            }
        }
        Ok(self.held.take())
    }
}

/// Of `chunk`, which begins at byte `at` of the blob, what lies in `range`.
fn part(chunk: &Bytes, at: u64, range: &Range<u64>) -> Bytes {
    let within = |position: u64| position.saturating_sub(at).min(chunk.len() as u64) as usize;
    chunk.slice(within(range.start)..within(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_chunk_that_is_wanted() {
        let chunk = Bytes::from_static(b"0123456789");
        for (at, range, expected) in [
            (0, 0..10, "0123456789"),
            (0, 3..5, "34"),
            (0, 10..20, ""),
            (100, 0..100, ""),
            (100, 0..101, "0"),
            (100, 109..110, "9"),
            (100, 105..500, "56789"),
        ] {
            assert_eq!(part(&chunk, at, &range), expected.as_bytes(), "{at} {range:?}");
        }
    }
}
