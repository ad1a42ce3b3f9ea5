//! A layout in a directory: blobs side by side, the index last. Other images that are there stay.

use std::fs::{self, DirBuilder, File};
use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use serde_json::Value;
use tokio::task::JoinSet;

use super::target::{layers, not_made, refuse_too_large};
use super::{fetch, index};
use crate::console::progress::{Event, Progress, Wait};
use crate::console::text::size;
use crate::image::oci::blob::BlobCheck;
use crate::image::oci::{Descriptor, Digest};
use crate::image::root::FoundImage;
use crate::image::source::Source;
use crate::image::source::file::{self, Named};
use crate::image::source::layout::blob_path;
use crate::sys::blocking::apart;
use crate::sys::regular::{open_or_create_regular, open_regular};

/// How many blobs are pulled at the same time.
const PARALLEL: usize = 4;

/// Where blobs are until they are complete, below the layout.
const PARTIAL: &str = ".landfall-partial";

/// Makes `directory` a layout that has the image as `name`, or adds it to the one there.
pub async fn write(found: &FoundImage, target: &Named, name: &str, progress: &Progress) -> Result<()> {
    let layout = LayoutDirectory::open(target)?;
    let image = &*found.image;
    let documents = [
        (image.config_descriptor.digest(), &image.config),
        (&image.digest, &image.manifest),
    ];
    layout.check_space(&layers(image))?;
    layout.pull(found, progress).await?;
    for (digest, bytes) in documents {
        layout.replace(&blob_path(digest), bytes)?;
    }
    layout.name(found, name)
}

/// A directory that is becoming a layout. No other pull writes to it.
struct LayoutDirectory {
    directory: PathBuf,
    index: Value,
    _lock: Flock<File>,
}

impl LayoutDirectory {
    /// Makes the directory, if it isn't there, and none above it: that would be on another file system than
    /// was meant.
    fn open(target: &Named) -> Result<Self> {
        let directory = target.path.as_path();
        let make = |path: &Path| match DirBuilder::new().mode(0o755).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        make(directory).map_err(|error| not_made(error, target))?;
        let lock = Flock::lock(File::open(directory)?, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, _)| anyhow::anyhow!("another pull is writing there: wait until it is done"))?;
        let index = match open_regular(&directory.join("index.json")) {
            Ok(file) => {
                serde_json::from_reader(BufReader::new(file)).context("its index.json is not JSON")?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => index::empty(),
            Err(error) => return Err(error).context("reading index.json"),
        };
        if !fs::exists(directory.join("oci-layout"))?
            && fs::read_dir(directory)?.flatten().any(|entry| !ours(&entry))
        {
            bail!("it is neither empty nor an OCI image layout: choose another directory");
        }
        make(&directory.join(PARTIAL)).context("mkdir")?;
        Ok(Self {
            directory: directory.into(),
            index,
            _lock: lock,
        })
    }

    /// An error when the layers that are missing don't fit onto the file system.
    fn check_space(&self, layers: &[(usize, &Descriptor)]) -> Result<()> {
        let there = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let missing = layers.iter().map(|(_, blob)| {
            let have = there(self.path(blob.digest())).max(there(self.partial(blob.digest())));
            blob.size().saturating_sub(have)
        });
        let largest = layers.iter().map(|(_, blob)| blob.size()).max();
        refuse_too_large(&self.directory, largest.unwrap_or_default())?;
        let needed: u64 = missing.sum();
        let space = statvfs(&self.directory).context("statvfs")?;
        let free = space.blocks_available().saturating_mul(space.fragment_size());
        if needed > free {
            let (needed, free) = (size(needed), size(free));
            bail!("{needed} more is needed there, {free} is free: make room");
        }
        Ok(())
    }

    async fn pull(&self, found: &FoundImage, progress: &Progress) -> Result<()> {
        let mut waiting = layers(&found.image).into_iter();
        let mut under_way: JoinSet<Result<()>> = JoinSet::new();
        loop {
            while under_way.len() < PARALLEL
                && let Some((layer, blob)) = waiting.next()
            {
                let (path, partial) = (self.path(blob.digest()), self.partial(blob.digest()));
                let (source, blob, progress) = (Arc::clone(&found.source), blob.clone(), progress.clone());
                under_way.spawn(async move {
                    keep(&*source, &blob, &path, &partial, &progress)
                        .await
                        .with_context(|| format!("pulling layer {} ({})", layer + 1, blob.digest()))?;
                    progress.tell(Event::LayerDone { index: layer });
                    Ok(())
                });
            }
            match under_way.join_next().await {
                Some(done) => done.context("a task panicked")??,
                None => return Ok(()),
            }
        }
    }

    /// Gives the image its name: from here on it's there.
    fn name(&self, found: &FoundImage, name: &str) -> Result<()> {
        let index = index::with(self.index.clone(), &found.image, name)?;
        self.replace("oci-layout", index::OCI_LAYOUT.as_bytes())?;
        self.replace("index.json", &serde_json::to_vec(&index)?)?;
        // Blobs of images whose pull was never finished may be left, and are worth something then.
        let _ = fs::remove_dir(self.directory.join(PARTIAL));
        Ok(())
    }

    /// Writes a small file whole, or leaves the one that is there.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let new = self.directory.join(PARTIAL).join("document");
        let write = || -> std::io::Result<()> {
            let mut file = open_or_create_regular(&new)?;
            file.set_len(0)?;
            file.write_all(bytes)?;
            settle(&file, &new, &path)
        };
        write().with_context(|| format!("writing {name}"))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(blob_path(digest))
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.directory.join(PARTIAL).join(digest.digest())
    }
}

fn ours(entry: &fs::DirEntry) -> bool {
    // What file systems bring along is no content.
    [PARTIAL, "lost+found", "blobs"]
        .iter()
        .any(|name| entry.file_name() == *name)
}

/// Makes sure that `path` is `blob`: what is there is verified, what was begun in `partial` is continued.
async fn keep(
    source: &dyn Source,
    blob: &Descriptor,
    path: &Path,
    partial: &Path,
    progress: &Progress,
) -> Result<()> {
    if is_there(blob, path).await? {
        progress.tell(Event::Received(blob.size()));
        return Ok(());
    }
    let begun = partial.to_owned();
    let file = apart(move || open_or_create_regular(&begun)).await?;
    let mut file = tokio::fs::File::from_std(file);
    let have = file.metadata().await?.len();
    fetch::complete(source, blob, &mut file, (0, have), progress).await?;
    file.set_len(blob.size()).await?;
    let _writing = progress.waiting(Wait::new("waiting until a layer is on the disk"));
    let (file, partial, path) = (file.into_std().await, partial.to_owned(), path.to_owned());
    Ok(apart(move || settle(&file, &partial, &path)).await?)
}

/// Whether `path` is `blob` already. A damaged one is taken away.
async fn is_there(blob: &Descriptor, path: &Path) -> Result<bool> {
    let mut file = match file::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if file.metadata().await?.len() == blob.size() {
        let mut check = BlobCheck::new(blob)?;
        fetch::add(&mut file, blob.size(), &mut check).await?;
        if check.finish().is_ok() {
            return Ok(true);
        }
    }
    tokio::fs::remove_file(path).await?;
    Ok(false)
}

/// Gives a complete file its name, in an order that survives a stick that is pulled out.
fn settle(file: &File, from: &Path, to: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    let parent = to.parent().expect("a file of a layout is in a directory");
    fs::create_dir_all(parent)?;
    fs::rename(from, to)?;
    File::open(parent)?.sync_all()
}
