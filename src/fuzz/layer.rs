//! The target `layer`: a blob becomes a directory.

mod corpus;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use oci_spec::image::MediaType;

use crate::image::layer::notation::{archive, list};
use crate::image::layer::{
    Chunks as _, Decompressor, LayerError, Options, ReadChunks, UnpackedLayer, Windows, merge, remove_all,
    settle, unpack,
};
use crate::image::oci::digest::{Hasher, sha256};
use crate::image::oci::media_type::Compression;
use crate::image::oci::{Descriptor, Digest, Layer};

pub use corpus::seeds;

/// The largest archive: small, so that bombs go off at once.
const ARCHIVE_LIMIT_BYTES: u64 = 4 << 20;

/// Where everything happens; a tmpfs that nobody else sees.
const PLACE: &str = "/run";

/// What must stay as it is.
const CANARY: &str = r#"
    dir . 0751 1:2 @3.000000004 {trusted.k=v}
    file file 0640 5:6 @7 "untouched"
    symlink link @8 -> file
    dir dir 1777 @9
    fifo pipe 0600 @10
    block disk 0600 7:0 @11
"#;

/// What the layer comes on top of.
const BASE: &str = r#"
    dir . @1
    dir a 0700 1:1 @2 {trusted.a=1}
    dir a/b 0711 @3
    file a/b/c "c"
    hard a/d = a/b/c
    symlink l -> a/b
    symlink out -> ../canary
    file f "f"
"#;

thread_local! {
    static CANARY_BEFORE: String = prepare();
}

pub fn run(data: &[u8]) {
    let before = CANARY_BEFORE.with(String::clone);
    let place = Path::new(PLACE);
    match unpack_blob(checksummed(data), 1) {
        Ok(layer) => {
            let base = unpack_blob(archive(BASE), 0).expect("the layer below is an honest one");
            stack(vec![base, layer]);
        }
        Err(error) => {
            let error = format!("{error:#}");
            assert!(!error.contains('\n'), "an error of many lines: {error}");
        }
    }
    let left: Vec<_> = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["canary"], "something is left");
    assert_eq!(canary(), before, "something outside was changed");
}

/// What could be unpacked can be settled and merged, unless there is no room.
fn stack(layers: Vec<UnpackedLayer>) {
    let place = Path::new(PLACE);
    let paths: Vec<_> = layers.iter().map(|layer| layer.path().to_path_buf()).collect();
    let merged = place.join("merged");
    fs::create_dir(&merged).unwrap();
    if let Err(error) = settle(&layers, &|| true).and_then(|()| merge(layers, &merged, &|| true)) {
        assert!(
            matches!(error, LayerError::Refused(Errno::ENOSPC, _)),
            "an unpacked layer cannot be merged: {error:#}"
        );
    }
    for path in paths.iter().filter(|path| path.exists()).chain([&merged]) {
        remove_all(path).unwrap();
    }
}

/// A mount namespace of this thread's own, with nothing in [`PLACE`] but the canary.
fn prepare() -> String {
    assert!(nix::unistd::geteuid().is_root(), "unpacking needs root");
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("making / private");
    let options = Some("size=16m,nr_inodes=20000,mode=0755");
    mount(Some("fuzz"), PLACE, Some("tmpfs"), MsFlags::empty(), options).expect("mounting a tmpfs");
    let made = unpack_blob(archive(CANARY), 2).expect("an honest archive");
    fs::rename(made.path(), Path::new(PLACE).join("canary")).unwrap();
    canary()
}

/// The canary as text, with what the notation doesn't tell: how many names its file has.
fn canary() -> String {
    let path = Path::new(PLACE).join("canary");
    let file = fs::symlink_metadata(path.join("file")).unwrap();
    format!("{}{} names", list(&path), file.nlink())
}

fn unpack_blob(blob: Vec<u8>, index: usize) -> Result<UnpackedLayer, LayerError> {
    let layer = Layer {
        index,
        blob: Descriptor::new(MediaType::ImageLayer, blob.len() as u64, sha256(&blob)),
        diff_id: diff_id(&blob),
        compression: Compression::None,
    };
    let options = Options {
        archive_limit_bytes: Some(ARCHIVE_LIMIT_BYTES),
        ..Options::default()
    };
    let chunks = ReadChunks::new(std::io::Cursor::new(blob), 999);
    unpack(chunks, &layer, &Path::new(PLACE).join(index.to_string()), options)
}

/// The true one, where there is one: an image may be evil without a lie in it.
fn diff_id(blob: &[u8]) -> Digest {
    let chunks = ReadChunks::new(std::io::Cursor::new(blob.to_vec()), 4096);
    let mut archive = Decompressor::new(chunks, Windows::default());
    let mut hasher = Hasher::sha256();
    let mut seen = 0;
    while let Ok(chunk) = archive.next_chunk() {
        seen += chunk.len() as u64;
        if chunk.is_empty() || seen > ARCHIVE_LIMIT_BYTES {
            return hasher.finish();
        }
        hasher.update(&chunk);
    }
    sha256(b"no archive")
}

/// Headers with checksums that are right: a fuzzer that had to guess them would find nothing else.
fn checksummed(data: &[u8]) -> Vec<u8> {
    let mut blob = data.to_vec();
    for header in blob.chunks_exact_mut(512) {
        if &header[257..262] == b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    blob
}
