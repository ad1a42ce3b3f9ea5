//! One blob into one stretch of a file: what is there already is hashed, the rest is asked for.

use std::io::SeekFrom;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::console::progress::{Event, Progress};
use crate::image::oci::Descriptor;
use crate::image::oci::blob::{BlobCheck, BlobError};
use crate::image::source::Source;

/// How much is hashed at once of what is there already, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Completes `blob` in `file`, where it begins at byte `start` and `have` bytes of it may be there already.
/// It is an error if what is there in the end is not what the descriptor says.
pub async fn complete(
    source: &dyn Source,
    blob: &Descriptor,
    file: &mut File,
    (start, have): (u64, u64),
    progress: &Progress,
) -> Result<()> {
    let mut have = have.min(blob.size());
    loop {
        match attempt(source, blob, file, (start, have), progress).await? {
            Ok(()) => return Ok(()),
            Err(_) if have > 0 => {
                progress.note(format!(
                    "the stored part of {} is damaged; pulling it again",
                    blob.digest()
                ));
                have = 0;
            }
            Err(_) if source.distrust(blob) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tries once; says what is wrong with what was there or came.
async fn attempt(
    source: &dyn Source,
    blob: &Descriptor,
    file: &mut File,
    (start, have): (u64, u64),
    progress: &Progress,
) -> Result<Result<(), BlobError>> {
    let mut check = BlobCheck::new(blob)?;
    file.seek(SeekFrom::Start(start)).await.context("lseek")?;
    add(file, have, &mut check).await?;
    progress.tell(Event::Received(have));
    let mut stream = source.blob(blob, have).await?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if let Err(error) = check.update(&chunk) {
            return Ok(Err(error));
        }
        file.write_all(&chunk).await.context("write")?;
        progress.tell(Event::Received(chunk.len() as u64));
    }
    file.flush().await.context("write")?;
    Ok(check.finish().map(drop))
}

/// Adds the next `count` bytes of `file` to what is checked.
pub async fn add(file: &mut File, count: u64, check: &mut BlobCheck) -> Result<()> {
    let mut left = count;
    let mut chunk = Vec::new();
    while left > 0 {
        chunk.clear();
        let mut part = file.take(left.min(CHUNK_BYTES));
        let read = part.read_to_end(&mut chunk).await.context("read")?;
        anyhow::ensure!(read > 0, "the file became shorter while it was read");
        check.update(&chunk)?;
        left -= read as u64;
    }
    Ok(())
}
