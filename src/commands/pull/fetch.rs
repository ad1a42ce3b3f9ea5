//! One blob into one stretch of a file: what is there already is hashed, the rest is asked for.

use std::io::SeekFrom;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::console::progress::{Event, Progress};
use crate::image::layer::BlobError;
use crate::image::oci::Descriptor;
use crate::image::oci::digest::Hasher;
use crate::image::source::Source;

/// How much is hashed at once of what is there already, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Completes `blob` in `file`, where it begins at byte `start` and `have` bytes of it may be there already. It is an error
/// if what is there in the end is not what the descriptor says.
pub async fn complete(
    source: &dyn Source,
    blob: &Descriptor,
    file: &mut File,
    (start, have): (u64, u64),
    progress: &Progress,
) -> Result<()> {
    let mut have = have.min(blob.size());
    loop {
        match attempt(source, blob, file, (start, have), progress).await {
            Err(error) if have > 0 && error.is::<BlobError>() => {
                progress.note(format!(
                    "what was there of {} is damaged; pulling it again",
                    blob.digest()
                ));
                have = 0;
            }
            Err(error) if error.is::<BlobError>() && source.distrust(blob) => {}
            other => return other,
        }
    }
}

async fn attempt(
    source: &dyn Source,
    blob: &Descriptor,
    file: &mut File,
    (start, have): (u64, u64),
    progress: &Progress,
) -> Result<()> {
    let mut hasher = Hasher::like(blob.digest())?;
    file.seek(SeekFrom::Start(start)).await.context("lseek")?;
    hash(file, have, &mut hasher).await?;
    progress.tell(Event::Received(have));
    let (mut at, expected) = (have, blob.size());
    let mut stream = source.blob(blob, at).await?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        at += chunk.len() as u64;
        if at > expected {
            return Err(BlobError::TooLong { expected }.into());
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.context("write")?;
        progress.tell(Event::Received(chunk.len() as u64));
    }
    file.flush().await.context("write")?;
    if at < expected {
        return Err(BlobError::TooShort { expected, found: at }.into());
    }
    let (expected, found) = (blob.digest().clone(), hasher.finish());
    if found == expected {
        Ok(())
    } else {
        Err(BlobError::Digest { expected, found }.into())
    }
}

/// Adds the next `count` bytes of `file` to what is hashed.
pub async fn hash(file: &mut File, count: u64, hasher: &mut Hasher) -> Result<()> {
    let mut left = count;
    let mut chunk = Vec::new();
    while left > 0 {
        chunk.clear();
        let read = file
            .take(left.min(CHUNK_BYTES))
            .read_to_end(&mut chunk)
            .await
            .context("read")?;
        anyhow::ensure!(read > 0, "the file became shorter while it was read");
        hasher.update(&chunk);
        left -= read as u64;
    }
    Ok(())
}
