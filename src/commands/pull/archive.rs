//! A layout in a tar archive, written from front to back: its length says where to continue.

use std::fs::{self, File};
use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::target::{layers, not_made, refuse_too_large};
use super::{fetch, index};
use crate::console::progress::{Event, Progress, Wait};
use crate::image::root::FoundImage;
use crate::image::source::file::Named;
use crate::image::source::layout::blob_path;
use crate::sys::blocking::apart;
use crate::sys::regular::open_or_create_regular;

/// Every part of an archive takes a multiple of this many bytes (POSIX.1, pax).
const BLOCK_BYTES: u64 = 512;

/// Writes the image as an archive to `path`, which must not exist. What is not complete yet is beside it.
pub async fn write(found: &FoundImage, target: &Named, name: &str, progress: &Progress) -> Result<()> {
    let path = &target.path;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Ok(_) => bail!("it exists: remove it, or choose another name"),
        Err(error) => return Err(error.into()),
    }
    let partial = partial(path);
    let file = open_or_create_regular(&partial).map_err(|error| not_made(error, target))?;
    let mut archive = Archive::new(file, partial)?;
    refuse_too_large(&archive.path, found.image.compressed_bytes())?;
    archive.write(found, name, progress).await?;
    let (file, complete) = (archive.file.into_std().await, archive.path);
    let _writing = progress.waiting(Wait::new("waiting until everything is on the disk"));
    let path = path.to_owned();
    let finish = move || -> std::io::Result<()> {
        file.sync_all()?;
        fs::rename(&complete, path)
    };
    Ok(apart(finish).await?)
}

/// `FILE.partial`.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// An archive that is being written.
struct Archive {
    file: tokio::fs::File,
    path: PathBuf,
    /// How many bytes are there from an earlier try; they may be right.
    there_bytes: u64,
    /// Where the next part begins.
    at: u64,
}

impl Archive {
    fn new(file: File, path: PathBuf) -> Result<Self> {
        file.try_lock()
            .context("another pull is writing it: wait until it is done")?;
        let there_bytes = file.metadata()?.len();
        Ok(Self {
            file: file.into(),
            path,
            there_bytes,
            at: 0,
        })
    }

    async fn write(&mut self, found: &FoundImage, name: &str, progress: &Progress) -> Result<()> {
        let image = &*found.image;
        let index = serde_json::to_vec(&index::with(index::empty(), image, name)?)?;
        let documents: [(&str, &[u8]); 4] = [
            ("oci-layout", index::OCI_LAYOUT.as_bytes()),
            ("index.json", &index),
            (&blob_path(&image.digest), &image.manifest),
            (&blob_path(image.config_descriptor.digest()), &image.config),
        ];
        for (name, bytes) in documents {
            let mut part = header(name, bytes.len() as u64)?;
            part.extend_from_slice(bytes);
            part.resize(part.len().next_multiple_of(BLOCK_BYTES as usize), 0);
            self.part(&part).await?;
        }
        for (layer, blob) in layers(image) {
            let header = header(&blob_path(blob.digest()), blob.size())?;
            self.part(&header).await?;
            let have = self.there_bytes.saturating_sub(self.at);
            fetch::complete(&*found.source, blob, &mut self.file, (self.at, have), progress)
                .await
                .with_context(|| format!("pulling layer {} ({})", layer + 1, blob.digest()))?;
            self.at += blob.size();
            let padding_bytes = self.at.next_multiple_of(BLOCK_BYTES) - self.at;
            self.part(&vec![0; padding_bytes as usize]).await?;
            progress.tell(Event::LayerDone { index: layer });
        }
        self.part(&[0; 2 * BLOCK_BYTES as usize]).await?;
        self.file.set_len(self.at).await.context("ftruncate")
    }

    /// Writes a small part, unless it's there already. One that is there and differs is of another image:
    /// nothing that follows it counts any longer.
    async fn part(&mut self, part: &[u8]) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.at)).await?;
        let mut there = vec![0; part.len()];
        let end = self.at + part.len() as u64;
        let same = end <= self.there_bytes && {
            self.file.read_exact(&mut there).await?;
            there == part
        };
        if !same {
            self.there_bytes = 0;
            self.file.set_len(self.at).await?;
            self.file.seek(SeekFrom::Start(self.at)).await?;
            self.file.write_all(part).await?;
            self.file.flush().await?;
        }
        self.at = end;
        Ok(())
    }
}

/// The header of a file, the same for the same image every time.
fn header(name: &str, size: u64) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(name)
        .with_context(|| format!("{name} does not fit into an archive"))?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}
