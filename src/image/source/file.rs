//! Bytes of a file as a stream; and what a file is called.

use std::fmt;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::BytesMut;
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::BlobStream;
use crate::sys::blocking::apart;
use crate::sys::regular::open_regular;

/// How much is read at once, in bytes.
const CHUNK_BYTES: u64 = 256 << 10;

/// A file or directory, and what the user calls it.
#[derive(Clone, Debug)]
pub struct Named {
    pub path: PathBuf,
    pub shown: String,
}

impl Named {
    /// One that is called by its path.
    pub fn plain(path: &Path) -> Self {
        Self {
            path: path.into(),
            shown: path.display().to_string(),
        }
    }

    pub async fn open(&self) -> Result<File> {
        let file = open(&self.path).await;
        file.with_context(|| format!("opening {self}"))
    }

    pub fn join(&self, name: &str) -> Self {
        Self {
            path: self.path.join(name),
            shown: format!("{}/{name}", self.shown),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.shown)
    }
}

/// Opens a regular file; nothing else that may be at `path` is opened.
pub async fn open(path: &Path) -> io::Result<File> {
    let path = path.to_owned();
    let file = apart(move || open_regular(&path)).await?;
    Ok(File::from_std(file))
}

/// The bytes `range` of `file`. It is an error if the file ends before them.
pub async fn stream(mut file: File, range: Range<u64>) -> io::Result<BlobStream> {
    file.seek(SeekFrom::Start(range.start)).await?;
    let left = range.end.saturating_sub(range.start);
    Ok(Box::pin(stream::try_unfold(
        (file, left),
        |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut buffer = BytesMut::with_capacity(CHUNK_BYTES.min(left) as usize);
            let read = (&mut file).take(left).read_buf(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Some((buffer.freeze(), (file, left - read as u64))))
        },
    )))
}
