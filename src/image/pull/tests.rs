//! Pulls from sources that are made up.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use oci_spec::image::MediaType;

use super::*;
use crate::image::oci::Descriptor;
use crate::image::oci::digest::sha256;
use crate::image::oci::media_type::Compression;
use crate::image::oci::reference::Selector;
use crate::image::source::{BlobStream, RawDocument};
use crate::sys::random::Random;

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
    let mut random = Random::new(1);
    (0..count).map(|_| random.below(256) as u8).collect()
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
    (image_of(layers), source)
}

/// Pulls as it is usual.
async fn pull_into(store: &Store, source: Memory, image: &Image) -> Result<Vec<UnpackedLayer>> {
    let (options, progress) = (Options::default(), Progress::silent());
    pull(Arc::new(source), image, store, &options, &progress).await
}

/// An image that is made of `layers`.
pub fn image_of(layers: Vec<Layer>) -> Image {
    Image {
        reference: "reg.lab/os:1".parse().unwrap(),
        digest: sha256(b"manifest"),
        manifest: vec![],
        manifest_media_type: String::new(),
        config_descriptor: Descriptor::new(MediaType::ImageConfig, 0u64, sha256(b"")),
        config: vec![],
        platform: "linux/amd64".parse().unwrap(),
        environment: vec![],
        layers,
    }
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
        let copy = store.blob_path(layer.layer().blob.digest());
        assert_eq!(
            (layer.has_copy(), copy.exists()),
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
        let error = pull_into(&store, source, &image).await;
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
        let pulled = pull_into(&store, source, &image).await;
        assert_eq!(pulled.is_ok(), there);
        if let Err(error) = pulled {
            let error = format!("{error:#}");
            assert!(
                error.contains("not distributed with the image but at https://files.lab/a:")
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

/// Zeros after an archive's end take no room, but endless time.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_blob_expands_to_is_bounded_by_what_the_file_system_has_left() {
    let base = tempfile::tempdir().unwrap();
    let disk = Store::mount(base.path(), 4 * MIB).unwrap();
    for (zeros, fits) in [(6 * MIB, true), (9 * MIB, false)] {
        let mut archive = file("a", b"1");
        archive.resize(zeros as usize, 0);
        let (image, source) = image(&[archive]);
        let (to, options) = (disk.path().join("root"), Options::default());
        let unpacked = unpack_to(Arc::new(source), &image, &to, &options, &Progress::silent()).await;
        match unpacked {
            Ok(()) => std::fs::remove_dir_all(&to).unwrap(),
            Err(ref error) => assert!(
                format!("{error:#}").contains("more than there is room for"),
                "{error:#}"
            ),
        }
        assert_eq!(unpacked.is_ok(), fits, "{zeros}");
    }
    disk.close().unwrap();
}
