//! All layers of an image, from its source into a store: verified, unpacked, settled.
//!
//! Each layer is one stream: the network side is asynchronous, the rest runs in threads behind a bounded channel, so
//! memory is bounded too. The largest layers begin first, so that no core waits for one of them at the end. The
//! future can be dropped at any time: the threads stop at their next chunk, and the store waits for them.

mod estimate;

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
use tokio::task::{JoinHandle, spawn_blocking};

use crate::layer::{self, BlobError, Chunks, SourceFailed, UnpackedLayer};
use crate::oci::{Digest, Image, Layer};
use crate::progress::{Event, Progress};
use crate::source::{Source, url};
use crate::store::{Store, User};

pub use estimate::estimate_unpacked_bytes;

/// How many chunks of a blob wait between the network and the threads. A chunk is what the source gives, up to some
/// hundred KiB.
const CHANNEL_CHUNKS: usize = 4;

/// The most layers at the same time by default: each takes some MiB, and some forty file descriptors of usually 1024.
const MAX_PARALLEL: usize = 16;

/// An archive may be this much larger than the store that it is unpacked into: an entry may replace another.
const ARCHIVE_PER_BUDGET: u64 = 2;

/// How to pull.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many layers are pulled at the same time.
    pub parallel: usize,
    /// An estimate of the unpacked size of all layers, in bytes: what the budget leaves besides is for copies of blobs.
    /// `None`: no copies are kept.
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
pub async fn pull(
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
    let copies = &choose_copies(&order, store.budget_bytes(), options.unpacked_bytes);
    let one = |layer| {
        let pull = LayerPull {
            source: &source,
            layer,
            store,
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
    let user = store.user();
    let settled = spawn_blocking(move || {
        let _user = user;
        layer::settle(&layers).map(|()| layers)
    });
    finished(settled.await)
}

/// Pulls `image` and makes `to`, which must not exist or be empty, its merged root file system. It is there complete or
/// not at all; the work is done in a hidden directory beside it.
pub async fn unpack_to(
    source: Arc<dyn Source>,
    image: &Image,
    to: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let to = std::path::absolute(to).with_context(|| format!("{to:?} is no path"))?;
    let parent = to.parent().context("the root directory is not empty")?;
    ensure_empty(&to)?;
    let store = Store::plain(parent)?;
    let layers = pull(source, image, &store, options, progress).await?;
    let (merged, target, user) = (store.merged_path(), to.clone(), store.user());
    let done = spawn_blocking(move || {
        let _user = user;
        std::fs::create_dir(&merged).with_context(|| format!("mkdir({merged:?}) failed"))?;
        layer::merge(layers, &merged)?;
        std::fs::rename(&merged, &target).with_context(|| format!("rename({merged:?}, {target:?}) failed"))
    });
    finished(done.await)?;
    store.close()
}

struct LayerPull<'a> {
    source: &'a Arc<dyn Source>,
    layer: &'a Layer,
    store: &'a Store,
    progress: &'a Progress,
}

impl LayerPull<'_> {
    async fn run(&self, copy: bool) -> Result<UnpackedLayer> {
        let mut copy = copy;
        let unpacked = loop {
            match self.attempt(copy).await {
                // Copies are a cache: a layer needs their memory more.
                Err(error) if is_full(&error) && self.store.drop_blobs()? => copy = false,
                Err(error) if error.is::<BlobError>() && self.source.distrust(&self.layer.blob) => {}
                other => break other,
            }
        };
        let unpacked = unpacked.map_err(|error| self.explain(error))?;
        self.progress.tell(Event::LayerDone {
            index: self.layer.index,
        });
        Ok(unpacked)
    }

    async fn attempt(&self, copy: bool) -> Result<UnpackedLayer> {
        let (sender, receiver) = mpsc::channel(CHANNEL_CHUNKS);
        let mut job = self.start(receiver, copy);
        tokio::select! {
            // A layer that has failed waits for nothing more from the network.
            done = &mut job => finished(done),
            () = self.feed(sender) => finished(job.await),
        }
    }

    fn start(
        &self,
        receiver: mpsc::Receiver<Result<Bytes>>,
        copy: bool,
    ) -> JoinHandle<Result<UnpackedLayer>> {
        let (layer, path) = (self.layer.clone(), self.store.layer_path(self.layer.index));
        let blob_path = self.store.blob_path(layer.blob.digest());
        let budget_bytes = self.store.budget_bytes();
        let (user, threads_user) = (self.store.user(), self.store.user());
        spawn_blocking(move || {
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
                archive_limit_bytes: budget_bytes.map(|budget| budget.saturating_mul(ARCHIVE_PER_BUDGET)),
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

    fn explain(&self, error: Error) -> Error {
        let elsewhere = self.layer.blob.urls().iter().flatten().next();
        if let (true, Some(url)) = (error.is::<SourceFailed>(), elsewhere) {
            let host = url::parse(url).map_or("elsewhere".into(), |url| format!("at {}", url::shown(&url)));
            return error.context(format!(
                "this layer is not distributed with the image, but {host}: put it into the registry, too"
            ));
        }
        match self.store.budget_bytes() {
            Some(budget) if is_full(&error) => error.context(format!(
                "the image does not fit into {} MiB of memory: raise the memory budget, or use a machine with more",
                budget >> 20
            )),
            _ => error,
        }
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
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        if self.ended {
            return Ok(Bytes::new());
        }
        match self.receiver.blocking_recv() {
            Some(Ok(chunk)) => {
                self.ended = chunk.is_empty();
                Ok(chunk)
            }
            Some(Err(error)) => Err(io::Error::other(SourceFailed(error))),
            None => Err(io::Error::other(SourceFailed(anyhow!("the pull was stopped")))),
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

fn warn_of_skipped(layers: &[UnpackedLayer], progress: &Progress) {
    let skipped: u64 = layers.iter().map(UnpackedLayer::skipped_xattrs).sum();
    if skipped > 0 {
        progress.warn(format!(
            "{skipped} extended attributes were left out: the kernel's file system does not know them"
        ));
    }
}

fn is_full(error: &Error) -> bool {
    error.downcast_ref::<Errno>() == Some(&Errno::ENOSPC)
}

fn finished<T>(done: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match done {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use oci_spec::image::MediaType;

    use super::*;
    use crate::oci::Descriptor;
    use crate::oci::digest::sha256;
    use crate::oci::media_type::Compression;
    use crate::oci::reference::Selector;
    use crate::source::{BlobStream, RawDocument};

    /// How a source gives a blob.
    #[derive(Clone)]
    enum Given {
        Whole(Vec<u8>),
        /// Some of it, and then an error.
        Cut(Vec<u8>),
        /// Some of it, and then nothing, ever.
        Stalled(Vec<u8>),
        Refused,
    }

    #[derive(Default)]
    struct Memory(HashMap<String, Given>);

    impl Source for Memory {
        fn document<'a>(&'a self, _: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
            unreachable!("the image is resolved")
        }

        fn blob<'a>(&'a self, blob: &'a Descriptor, offset: u64) -> BoxFuture<'a, Result<BlobStream>> {
            let given = self.0[&blob.digest().to_string()].clone();
            let chunks = move |bytes: Vec<u8>| {
                let bytes = Bytes::from(bytes).slice(offset as usize..);
                let pieces: Vec<_> = bytes
                    .chunks(1000)
                    .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                    .collect();
                stream::iter(pieces)
            };
            let stream: Result<BlobStream> = match given {
                Given::Whole(bytes) => Ok(chunks(bytes).boxed()),
                Given::Cut(bytes) => {
                    let error = stream::iter([Err(io::Error::other("connection reset"))]);
                    Ok(chunks(bytes).chain(error).boxed())
                }
                Given::Stalled(bytes) => Ok(chunks(bytes).chain(stream::pending()).boxed()),
                Given::Refused => Err(anyhow!("reg.lab answered 403")),
            };
            async { stream }.boxed()
        }
    }

    fn file(name: &str, data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut bytes = [header.as_bytes(), data].concat();
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    }

    /// Bytes that cannot be compressed.
    fn noise(count: u64) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// An image of `archives`, gzip and zstd in turn, and a source that has it.
    fn image(archives: &[Vec<u8>]) -> (Image, Memory) {
        let mut source = Memory::default();
        let mut layers = Vec::new();
        for (index, archive) in archives.iter().enumerate() {
            let (blob, compression) = match index % 2 {
                0 => (gzip(archive), Compression::Gzip),
                _ => (
                    zstd::encode_all(archive.as_slice(), 1).unwrap(),
                    Compression::Zstd,
                ),
            };
            layers.push(Layer {
                index,
                blob: Descriptor::new(MediaType::ImageLayer, blob.len() as u64, sha256(&blob)),
                diff_id: sha256(archive),
                compression,
            });
            source.0.insert(sha256(&blob).to_string(), Given::Whole(blob));
        }
        let image = Image {
            reference: "reg.lab/os:1".parse().unwrap(),
            digest: sha256(b"manifest"),
            manifest: vec![],
            manifest_media_type: String::new(),
            config_descriptor: Descriptor::new(MediaType::ImageConfig, 0u64, sha256(b"")),
            config: vec![],
            platform: "linux/amd64".parse().unwrap(),
            environment: vec![],
            layers,
        };
        (image, source)
    }

    fn spoil(source: &mut Memory, layer: &Layer, how: impl Fn(Vec<u8>) -> Given) {
        let given = source.0.get_mut(&layer.blob.digest().to_string()).unwrap();
        if let Given::Whole(bytes) = given {
            *given = how(std::mem::take(bytes));
        }
    }

    fn names(path: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into())
            .collect();
        names.sort();
        names
    }

    const MIB: u64 = 1 << 20;

    #[tokio::test(flavor = "multi_thread")]
    async fn layers_come_in_their_order_and_blobs_are_kept_as_far_as_they_fit() {
        let base = tempfile::tempdir().unwrap();
        let (image, source) = image(&[file("a", b"1"), file("b", &noise(2 * MIB)), file("a", b"2")]);
        let store = Store::mount(base.path(), 8 * MIB).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let progress = Progress::to(move |event| seen.lock().unwrap().push(event));
        let options = Options {
            unpacked_bytes: Some(8 * MIB - 1000),
            ..Options::default()
        };
        let layers = pull(Arc::new(source), &image, &store, &options, &progress)
            .await
            .unwrap();
        let contents: Vec<_> = layers
            .iter()
            .map(|layer| (layer.layer().index, names(layer.path())))
            .collect();
        assert_eq!(
            contents,
            [
                (0, vec!["a".into()]),
                (1, vec!["b".into()]),
                (2, vec!["a".into()])
            ]
        );
        assert_eq!(std::fs::read(layers[2].path().join("a")).unwrap(), b"2");
        for layer in &layers {
            // Only the small ones fit into 1,000 bytes.
            let copy = store.blob(layer.blob().digest());
            assert_eq!(
                (layer.has_copy(), copy.is_some()),
                (layer.layer().index != 1, layer.layer().index != 1)
            );
        }
        let events = events.lock().unwrap();
        let received: u64 = events
            .iter()
            .map(|event| {
                if let Event::Received(count) = event {
                    *count
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(received, image.compressed_bytes());
        assert_eq!(
            events
                .iter()
                .filter(|event| matches!(event, Event::LayerDone { .. }))
                .count(),
            3
        );
        drop(layers);
        store.close().unwrap();
        assert!(names(base.path()).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failure_names_the_layer_and_its_cause() {
        for (how, expected) in [
            (Given::Refused, "reg.lab answered 403"),
            (Given::Cut(vec![]), "connection reset"),
            (Given::Whole(vec![1]), "the blob ends after 1 of"),
        ] {
            let base = tempfile::tempdir().unwrap();
            let (image, mut source) = image(&[file("a", b"1"), file("b", b"2"), file("c", b"3")]);
            spoil(&mut source, &image.layers[1], |bytes| match &how {
                Given::Cut(_) => Given::Cut(bytes[..bytes.len() / 2].to_vec()),
                other => other.clone(),
            });
            let store = Store::mount(base.path(), 8 * MIB).unwrap();
            let error = pull(
                Arc::new(source),
                &image,
                &store,
                &Options::default(),
                &Progress::silent(),
            )
            .await;
            let error = format!("{:#}", error.unwrap_err());
            let digest = image.layers[1].blob.digest();
            assert!(
                error.starts_with(&format!("unpacking layer 2 of 3 ({digest}) of reg.lab/os: ")),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
            store.close().unwrap();
            assert!(names(base.path()).is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_layer_that_is_not_distributed_is_taken_from_the_registry_or_explained() {
        for there in [true, false] {
            let base = tempfile::tempdir().unwrap();
            let (mut image, mut source) = image(&[file("a", b"1")]);
            let layer = &mut image.layers[0];
            layer
                .blob
                .set_urls(Some(vec!["https://files.lab/a?token=s3cret".into()]));
            if !there {
                spoil(&mut source, layer, |_| Given::Refused);
            }
            let store = Store::mount(base.path(), 8 * MIB).unwrap();
            let pulled = pull(
                Arc::new(source),
                &image,
                &store,
                &Options::default(),
                &Progress::silent(),
            )
            .await;
            assert_eq!(pulled.is_ok(), there);
            if let Err(error) = pulled {
                let error = format!("{error:#}");
                assert!(
                    error.contains("not distributed with the image, but at https://files.lab/a:")
                        && error.contains("reg.lab answered 403")
                        && !error.contains("s3cret"),
                    "{error}"
                );
            }
            store.close().unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pull_that_is_dropped_leaves_a_store_that_can_be_closed() {
        let base = tempfile::tempdir().unwrap();
        // One goes through one thread, the other through all.
        let (image, mut source) = image(&[file("a", b"1"), file("b", &noise(2 * MIB))]);
        for layer in &image.layers {
            spoil(&mut source, layer, Given::Stalled);
        }
        let store = Store::mount(base.path(), 8 * MIB).unwrap();
        let (sender, mut received) = mpsc::unbounded_channel();
        let progress = Progress::to(move |event| drop(sender.send(event)));
        let options = Options {
            unpacked_bytes: Some(0),
            ..Options::default()
        };
        let ready = async {
            let mut bytes = 0;
            while bytes < MIB {
                if let Some(Event::Received(count)) = received.recv().await {
                    bytes += count;
                }
            }
        };
        tokio::select! {
            pulled = pull(Arc::new(source), &image, &store, &options, &progress) => panic!("{pulled:?}"),
            () = ready => {}
        }
        store.close().unwrap();
        assert!(names(base.path()).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_layer_that_does_not_fit_takes_the_place_of_copies_and_else_says_so() {
        for (archives, fits) in [
            // The copy and the layers don't fit together, the layers alone do.
            (
                vec![file("a", &noise(3 * MIB)), file("b", &vec![0; 3 * MIB as usize])],
                true,
            ),
            (
                vec![file("a", &noise(3 * MIB)), file("b", &vec![0; 9 * MIB as usize])],
                false,
            ),
        ] {
            let base = tempfile::tempdir().unwrap();
            let (image, source) = image(&archives);
            let store = Store::mount(base.path(), 8 * MIB).unwrap();
            let options = Options {
                parallel: 1,
                unpacked_bytes: Some(MIB),
            };
            let pulled = pull(Arc::new(source), &image, &store, &options, &Progress::silent()).await;
            match pulled {
                Ok(layers) => {
                    assert!(fits);
                    assert_eq!(layers.len(), 2);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(
                        !fits && error.contains("the image does not fit into 8 MiB of memory"),
                        "{error}"
                    );
                }
            }
            store.close().unwrap();
            assert!(names(base.path()).is_empty());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_is_there_complete_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let pull_to = async |name: &str, good: bool| {
            let (image, mut source) = image(&[file("a", b"1"), file("b", b"2"), file("a", b"3")]);
            if !good {
                spoil(&mut source, &image.layers[2], |_| Given::Refused);
            }
            let to = base.path().join(name);
            unpack_to(
                Arc::new(source),
                &image,
                &to,
                &Options::default(),
                &Progress::silent(),
            )
            .await
        };
        std::fs::create_dir(base.path().join("empty")).unwrap();
        std::fs::create_dir(base.path().join("full")).unwrap();
        std::fs::write(base.path().join("full/x"), "x").unwrap();
        for (name, good) in [("new", true), ("empty", true), ("broken", false)] {
            assert_eq!(pull_to(name, good).await.is_ok(), good, "{name}");
        }
        let error = pull_to("full", true).await.unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        for name in ["new", "empty"] {
            assert_eq!(names(&base.path().join(name)), [PathBuf::from("a"), "b".into()]);
            assert_eq!(std::fs::read(base.path().join(name).join("a")).unwrap(), b"3");
        }
        assert_eq!(
            names(base.path()),
            [PathBuf::from("empty"), "full".into(), "new".into()]
        );
    }
}
