//! Our trees against those of others: whatever umoci makes of a stack of layers, and GNU tar of a single one,
//! is the same here, merged and through overlayfs. Stacks are made at random, in all dialects of tar; one is
//! a real image, of Debian's packages.

mod stack;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::chunks::ChunkReader;
use super::decompress::Decompressor;
use super::notation::{archive_as, list};
use super::tests::{Place, shown_by_overlayfs, through_overlayfs, unpack_archive};
use super::*;
use crate::image::oci::digest::sha256;
use stack::{Stack, Text};

/// How many stacks; each takes some tens of milliseconds. `LANDFALL_STACKS` asks for more.
const STACKS: u64 = 150;

#[test]
fn umoci_unpacks_the_same() {
    for seed in 1..=stacks() {
        let stack = Stack::random(seed);
        if let Some(difference) = difference(&stack.layers) {
            let (layers, difference) = smallest(stack.layers, difference);
            panic!("seed {seed}, made smaller:\n{layers:#?}\n{difference}");
        }
    }
}

#[test]
fn gnu_tar_extracts_the_same() {
    for seed in 1..=stacks() {
        let (dialect, text) = Stack::alone(seed);
        let bytes = archive_as(&text, dialect);
        let place = Place::new();
        let theirs = place.path("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(place.path("archive"), &bytes).unwrap();
        let extracting = Command::new("tar")
            .args([
                "--numeric-owner",
                "--same-owner",
                "--preserve-permissions",
                "--absolute-names",
            ])
            .args([
                "--delay-directory-restore",
                "--xattrs",
                "--xattrs-include=*",
                "--extract",
                "--file",
            ])
            .arg(place.path("archive"))
            .arg("--directory")
            .arg(&theirs)
            .output();
        let output = extracting.expect("GNU tar is everywhere");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "seed {seed}, {dialect:?}\n{text}\n{said}"
        );
        let ours = merged(vec![bytes], &place).unwrap();
        assert_eq!(list(&ours), list(&theirs), "seed {seed}, {dialect:?}\n{text}");
    }
}

/// GNU tar's files with holes, in each of its formats that umoci knows.
#[test]
fn umoci_unpacks_the_same_holes() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    for (name, size, data) in [("hole", 1 << 20, 0), ("many", 4 << 20, 40), ("first", 1 << 20, 1)] {
        let file = fs::File::create(tree.join(name)).unwrap();
        file.set_len(size).unwrap();
        for index in 0..data {
            file.write_all_at(b"data", index * 70_000).unwrap();
        }
    }
    for format in [
        "posix --sparse-version=0.0",
        "posix --sparse-version=0.1",
        "posix --sparse-version=1.0",
    ] {
        let place = Place::new();
        let archiving = Command::new("tar")
            .args(format!("--create --sparse --format={format} --directory").split(' '))
            .arg(&tree)
            .arg(".")
            .output();
        let archive = archiving.expect("GNU tar is everywhere").stdout;
        let theirs = umoci(std::slice::from_ref(&archive), &place).unwrap();
        let ours = merged(vec![archive], &place).unwrap();
        assert_eq!(
            list(&ours),
            list(&theirs).replace(" full ", " sparse "),
            "{format}"
        );
        same_content(&ours, &theirs);
        same_content(&ours, &tree);
    }
}

/// The fixture's image, which is made of Debian's packages, layer upon layer.
#[test]
fn a_debian_image_is_the_same() {
    let layout = lab::fixture::layout().unwrap();
    let manifest = layout.manifest(lab::fixture::BOOTABLE).unwrap();
    let archives: Vec<_> = (manifest["layers"].as_array().unwrap().iter())
        .map(|layer| {
            let digest = lab::image::Digest::in_descriptor(layer).unwrap();
            let blob = fs::File::open(layout.blob(&digest)).unwrap();
            let mut archive = Vec::new();
            let mut reader = ChunkReader::new(Decompressor::new(
                ReadChunks::new(blob, 1 << 16),
                Windows::default(),
            ));
            std::io::Read::read_to_end(&mut reader, &mut archive).unwrap();
            archive
        })
        .collect();
    let place = Place::sized("100%");
    let theirs = umoci(&archives, &place).unwrap();
    let ours = merged(archives, &place).unwrap();
    let (our_list, their_list) = (list(&ours), list(&theirs));
    let different = our_list
        .lines()
        .zip(their_list.lines())
        .find(|(our, their)| our != their);
    assert_eq!(different, None);
    assert_eq!(our_list.lines().count(), their_list.lines().count());
    assert!(our_list.lines().count() > 1000, "the image is a real one");
    same_content(&ours, &theirs);
}

/// The notation shows the beginnings of files alone.
fn same_content(ours: &Path, theirs: &Path) {
    for entry in fs::read_dir(ours).unwrap() {
        let entry = entry.unwrap();
        let (kind, path) = (entry.file_type().unwrap(), theirs.join(entry.file_name()));
        if kind.is_dir() {
            same_content(&entry.path(), &path);
        } else if kind.is_file() {
            assert!(
                fs::read(entry.path()).unwrap() == fs::read(&path).unwrap(),
                "{path:?}"
            );
        }
    }
}

/// How many stacks: `LANDFALL_STACKS` asks for more.
fn stacks() -> u64 {
    std::env::var("LANDFALL_STACKS").map_or(STACKS, |text| text.parse().unwrap())
}

/// What becomes of a stack here and with umoci, if it isn't the same.
fn difference(layers: &[Text]) -> Option<String> {
    let place = Place::new();
    let archives: Vec<_> = (layers.iter())
        .map(|(dialect, text)| archive_as(text, *dialect))
        .collect();
    let theirs = match umoci(&archives, &place) {
        Ok(target) => list(&target),
        Err(error) => error,
    };
    let ours = merged(archives, &place).map_or_else(|error| format!("{error:#}"), |path| list(&path));
    (ours != theirs).then(|| format!("ours:\n{ours}\numoci's:\n{theirs}"))
}

/// The layers unpacked, settled and merged, which is what overlayfs shows of them.
fn merged(archives: Vec<Vec<u8>>, place: &Place) -> Result<PathBuf, LayerError> {
    let layers = (archives.into_iter().enumerate())
        .map(|(index, bytes)| unpack_archive(bytes, index, place))
        .collect::<Result<Vec<_>, _>>()?;
    settle(&layers, &|| true)?;
    let shown = through_overlayfs(&layers, place);
    let ours = place.path("ours");
    fs::create_dir(&ours)?;
    merge(layers, &ours, &|| true)?;
    let listed = list(&ours);
    assert!(
        shown == shown_by_overlayfs(&listed),
        "merged:\n{listed}\nthrough overlayfs:\n{shown}"
    );
    Ok(ours)
}

/// Takes away line after line, as long as there is a difference. Directories stay: umoci makes one that isn't
/// described in its own way.
fn smallest(mut layers: Vec<Text>, mut last: String) -> (Vec<Text>, String) {
    let mut at = (0, 0);
    while at.0 < layers.len() {
        let lines: Vec<&str> = layers[at.0].1.lines().collect();
        if at.1 >= lines.len() {
            at = (at.0 + 1, 0);
            continue;
        }
        if lines[at.1].starts_with("dir ") {
            at.1 += 1;
            continue;
        }
        let mut fewer = lines.clone();
        fewer.remove(at.1);
        let mut tried = layers.clone();
        tried[at.0].1 = fewer.iter().map(|line| format!("{line}\n")).collect();
        match difference(&tried) {
            Some(difference) if !difference.contains("umoci failed") => (layers, last) = (tried, difference),
            _ => at.1 += 1,
        }
    }
    (layers, last)
}

/// What umoci makes of the layers.
fn umoci(archives: &[Vec<u8>], place: &Place) -> Result<PathBuf, String> {
    let layout = place.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = sha256(bytes).to_string();
        fs::write(layout.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{}}}"#,
            bytes.len()
        )
    };
    let blobs: Vec<_> = archives.iter().map(|bytes| put(bytes, "layer.v1.tar")).collect();
    let ids: Vec<_> = archives
        .iter()
        .map(|bytes| format!("\"{}\"", sha256(bytes)))
        .collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let config = put(config.as_bytes(), "config.v1+json");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
        blobs.join(",")
    );
    let manifest = put(manifest.as_bytes(), "manifest.v1+json");
    let named = manifest.replace(
        '}',
        r#","annotations":{"org.opencontainers.image.ref.name":"x"}}"#,
    );
    fs::write(
        layout.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#),
    )
    .unwrap();
    let target = place.path("theirs");
    let output = Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:x", layout.display()))
        .arg(&target)
        .output();
    let output = output.expect("`cargo xtask setup` installs umoci");
    if !output.status.success() {
        return Err(format!(
            "umoci failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(target)
}
