//! All layers of an image, from its source into a store: verified, unpacked, settled.
//!
//! Each layer is one stream: the network side is asynchronous, the rest runs in threads behind a bounded
//! channel, so memory is bounded too. The largest layers begin first, so that no core waits for one of them
//! at the end. The future can be dropped at any time: the threads stop at their next chunk, and the store
//! waits for them.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nix::errno::Errno;
use tokio::sync::mpsc;

use crate::console::progress::{Event, Progress, Wait};
use crate::image::layer::{self, Chunks, LayerError, UnpackedLayer, Windows};
use crate::image::oci::{Digest, Image, Layer};
use crate::image::source::{Source, url};
use crate::image::store::{Store, User};
use crate::sys::blocking::apart;

/// How many chunks of a blob wait between the network and the threads. A chunk is what the source gives, up
/// to some hundred KiB.
const CHANNEL_CHUNKS: usize = 4;

/// The most layers at the same time by default: each takes some MiB, and some forty file descriptors of
/// usually 1024.
const MAX_PARALLEL: usize = 16;

/// An archive may be this much larger than the room that it is unpacked into: an entry may replace another.
const ARCHIVE_PER_ROOM: u64 = 2;

/// How to pull.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many layers are pulled at the same time.
    pub parallel: usize,
    /// An estimate of the unpacked size of all layers, in bytes: what the budget leaves besides is for copies
    /// of blobs. `None`: no copies are kept.
    pub unpacked_bytes: Option<u64>,
}

impl Default for Options {
    /// A layer for each core and some that wait for the network; no copies.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            parallel: (cores + 2).min(MAX_PARALLEL),
            unpacked_bytes: None,
        }
    }
}

/// Pulls all layers of `image` into `store`. They come from the bottom, and are settled.
pub(crate) async fn pull(
    source: Arc<dyn Source>,
    image: &Image,
    store: &Store,
    options: &Options,
    progress: &Progress,
) -> Result<Vec<UnpackedLayer>> {
    progress.tell(Event::PullStarted {
        layers: image.layers.len(),
        compressed_bytes: image.compressed_bytes(),
    });
    let mut order: Vec<&Layer> = image.layers.iter().collect();
    order.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size()));
    let windows = &Windows::default();
    let copies = &choose_copies(&order, store.budget_bytes(), options.unpacked_bytes);
    let one = |layer| {
        let pull = LayerPull {
            source: &source,
            layer,
            store,
            windows,
            progress,
        };
        async move {
            let digest = layer.blob.digest();
            let unpacked = pull.run(copies.contains(digest)).await;
            unpacked.with_context(|| {
                let (number, count, name) = (layer.index + 1, image.layers.len(), image.reference.name());
                format!("unpacking layer {number} of {count} ({digest}) of {name}")
            })
        }
    };
    let pulls = stream::iter(order.into_iter().map(one)).buffer_unordered(options.parallel.max(1));
    let mut layers: Vec<UnpackedLayer> = pulls.try_collect().await?;
    layers.sort_by_key(|unpacked| unpacked.layer().index);
    warn_of_skipped(&layers, progress);
    let _settling = progress.waiting(Wait::new("putting the layers together"));
    let user = store.user();
    apart(move || {
        layer::settle(&layers, &|| user.is_wanted())?;
        Ok(layers)
    })
    .await
}

/// Pulls `image` and makes `to`, which must not exist or be empty, its merged root file system. It is there
/// complete or not at all; the work is done in a hidden directory beside it.
pub async fn unpack_to(
    source: Arc<dyn Source>,
    image: &Image,
    to: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let to = std::path::absolute(to).with_context(|| format!("{to:?} is not a path"))?;
    let parent = to.parent().context("the root directory is not empty")?;
    ensure_empty(&to)?;
    tell_of_left_behind(parent, progress)?;
    let store = Store::plain(parent)?;
    let layers = pull(source, image, &store, options, progress).await?;
    let _merging = progress.waiting(Wait::new("merging the layers"));
    let (merged, target, user) = (store.merged_path(), to.clone(), store.user());
    let merge = move || {
        std::fs::create_dir(&merged).with_context(|| format!("mkdir({merged:?}) failed"))?;
        layer::merge(layers, &merged, &|| user.is_wanted())?;
        std::fs::rename(&merged, &target).with_context(|| format!("rename({merged:?}, {target:?}) failed"))
    };
    apart(merge).await?;
    store.close()
}

struct LayerPull<'a> {
    source: &'a Arc<dyn Source>,
    layer: &'a Layer,
    store: &'a Store,
    windows: &'a Windows,
    progress: &'a Progress,
}

impl LayerPull<'_> {
    async fn run(&self, copy: bool) -> Result<UnpackedLayer> {
        let mut copy = copy;
        let unpacked = loop {
            match self.attempt(copy).await {
                // Copies are a cache: a layer needs their memory more.
                Err(LayerError::Refused(Errno::ENOSPC, _)) if self.store.drop_blobs()? => copy = false,
                Err(LayerError::Blob(_)) if self.source.distrust(&self.layer.blob) => {}
                other => break other,
            }
        };
        let unpacked = unpacked.map_err(|error| self.explain(error))?;
        self.progress.tell(Event::LayerDone {
            index: self.layer.index,
        });
        Ok(unpacked)
    }

    async fn attempt(&self, copy: bool) -> Result<UnpackedLayer, LayerError> {
        let (sender, receiver) = mpsc::channel(CHANNEL_CHUNKS);
        let mut job = std::pin::pin!(self.start(receiver, copy));
        tokio::select! {
            // A layer that has failed waits for nothing more from the network.
            done = &mut job => done,
            () = self.feed(sender) => job.await,
        }
    }

    fn start(
        &self,
        receiver: mpsc::Receiver<Result<Bytes>>,
        copy: bool,
    ) -> impl Future<Output = Result<UnpackedLayer, LayerError>> + use<> {
        let (layer, path) = (self.layer.clone(), self.store.layer_path(self.layer.index));
        let blob_path = self.store.blob_path(layer.blob.digest());
        let room_bytes = self.store.room_bytes();
        let windows = self.windows.clone();
        let (user, threads_user) = (self.store.user(), self.store.user());
        apart(move || {
            let _user = user;
            let blob = Received {
                receiver,
                ended: false,
                _user: threads_user,
            };
            // The same blob can be in an image twice; the second needs no copy.
            let copy = copy.then(|| File::create_new(&blob_path).ok()).flatten();
            let copies = copy.is_some();
            let options = layer::Options {
                copy,
                archive_limit_bytes: room_bytes.map(|room| room.saturating_mul(ARCHIVE_PER_ROOM)),
                windows,
            };
            let unpacked = layer::unpack(blob, &layer, &path, options);
            if copies && !unpacked.as_ref().is_ok_and(UnpackedLayer::has_copy) {
                // It may be gone already, for its memory.
                let _ = std::fs::remove_file(&blob_path);
            }
            unpacked
        })
    }

    /// Passes the blob on, as long as anyone wants it.
    async fn feed(&self, sender: mpsc::Sender<Result<Bytes>>) {
        let mut blob = match self.source.blob(&self.layer.blob, 0).await {
            Ok(blob) => blob,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
        loop {
            let chunk = match blob.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(chunk) => chunk.map_err(Error::from),
                None => Ok(Bytes::new()),
            };
            let size = chunk.as_ref().map_or(0, Bytes::len);
            if sender.send(chunk).await.is_err() || size == 0 {
                return;
            }
            self.progress.tell(Event::Received(size as u64));
        }
    }

    fn explain(&self, error: LayerError) -> Error {
        let elsewhere = self.layer.blob.urls().iter().flatten().next();
        let why = match (&error, elsewhere, self.store.budget_bytes()) {
            (LayerError::Source(_), Some(url), _) => {
                let place =
                    url::parse(url).map_or("elsewhere".into(), |url| format!("at {}", url::shown(&url)));
                format!(
                    "this layer is not distributed with the image but {place}: put it into the registry too"
                )
            }
            (LayerError::Refused(Errno::ENOSPC, _), _, Some(budget)) => format!(
                "the image does not fit into {} MiB of memory: raise the memory budget, or use a machine with more",
                budget >> 20
            ),
            _ => return error.into(),
        };
        Error::new(error).context(why)
    }
}

/// The threads' end of the channel.
struct Received {
    receiver: mpsc::Receiver<Result<Bytes>>,
    ended: bool,
    /// The threads outlive a future that is dropped, and write copies of blobs.
    _user: User,
}

impl Chunks for Received {
    fn next_chunk(&mut self) -> Result<Bytes, LayerError> {
        if self.ended {
            return Ok(Bytes::new());
        }
        match self.receiver.blocking_recv() {
            Some(Ok(chunk)) => {
                self.ended = chunk.is_empty();
                Ok(chunk)
            }
            Some(Err(error)) => Err(LayerError::Source(error)),
            None => Err(LayerError::Stopped),
        }
    }
}

/// Which blobs are copied: the largest that fit beside the layers.
fn choose_copies(
    by_size: &[&Layer],
    budget_bytes: Option<u64>,
    unpacked_bytes: Option<u64>,
) -> HashSet<Digest> {
    let (Some(budget), Some(unpacked)) = (budget_bytes, unpacked_bytes) else {
        return HashSet::new();
    };
    let mut left = budget.saturating_sub(unpacked);
    let mut chosen = HashSet::new();
    for layer in by_size {
        let blob = &layer.blob;
        if !chosen.contains(blob.digest()) && blob.size() <= left {
            left -= blob.size();
            chosen.insert(blob.digest().clone());
        }
    }
    chosen
}

fn ensure_empty(to: &Path) -> Result<()> {
    match std::fs::read_dir(to) {
        Ok(mut entries) => {
            ensure!(
                entries.next().is_none(),
                "{to:?} is not empty: name a new directory"
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::new(error).context(format!("reading {to:?}"))),
    }
}

/// An error where `parent` is not there: it may be that what belongs there is not mounted.
fn tell_of_left_behind(parent: &Path, progress: &Progress) -> Result<()> {
    let left = Store::left_behind(parent).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "directory {} does not exist: create it, or mount what belongs there",
            parent.display()
        ),
        _ => Error::new(error).context(format!("reading {parent:?}")),
    })?;
    for path in left {
        progress.note(format!(
            "{} was left behind by a killed landfall: remove it",
            path.display()
        ));
    }
    Ok(())
}

fn warn_of_skipped(layers: &[UnpackedLayer], progress: &Progress) {
    let skipped: u64 = layers.iter().map(UnpackedLayer::skipped_xattrs).sum();
    if skipped > 0 {
        progress.warn(format!(
            "{skipped} extended attributes were left out: the file system does not support them"
        ));
    }
}

#[cfg(test)]
pub(super) mod tests;
