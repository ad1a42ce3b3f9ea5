//! Images of real shape for the benchmark, from Debian packages: made once for each state of their inputs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::image::{Compression, Digest, Entry, Image, Layer, Layout};
use lab::{apt, command};
use sha2::{Digest as _, Sha256};

/// How many packages have a layer of their own, as tools that split images by package make them.
const ALONE: usize = 40;
/// How many layers the rest shares.
const SHARED: usize = 23;

/// What an image is made of, and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All packages, 65 layers: large packages alone, small ones together, something below and on top.
    Real,
    /// All packages, in so many layers of about the same size.
    Layers(usize),
    /// So many small files in ten layers.
    Entries(usize),
}

impl Shape {
    /// A name for files and tags.
    pub fn name(self) -> String {
        match self {
            Self::Real => "real".into(),
            Self::Layers(count) => format!("layers-{count}"),
            Self::Entries(count) => format!("entries-{count}"),
        }
    }
}

/// What an image is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Its layers.
    pub layers: u64,
    /// The entries of all layers.
    pub entries: u64,
    /// The size of all blobs, in bytes.
    pub compressed_bytes: u64,
    /// The size of all archives, in bytes.
    pub archive_bytes: u64,
}

/// A layout whose only tag is `latest`; made if it isn't there yet.
pub fn layout(shape: Shape, compression: Compression) -> Result<Layout> {
    let parent = lab::target().join("bench/images");
    fs::create_dir_all(&parent)?;
    let debs = packages()?;
    let name = format!("{}-{compression:?}-{}", shape.name(), inputs(&debs)?).to_lowercase();
    let directory = parent.join(&name);
    if !directory.exists() {
        eprintln!("making the benchmark's image {name} (once)");
        let unfinished = lab::tempdir()?;
        build(shape, compression, &debs, unfinished.path()).with_context(|| format!("making {name}"))?;
        fs::rename(unfinished.keep(), &directory)?;
    }
    Ok(Layout::open(&directory))
}

/// The size of the image in a layout.
pub fn size(layout: &Layout) -> Result<Size> {
    let mut size = Size::default();
    for path in blobs(layout)? {
        size.layers += 1;
        size.compressed_bytes += fs::metadata(&path)?.len();
        let mut archive = tar::Archive::new(decode(BufReader::new(File::open(&path)?))?);
        for entry in archive.entries()? {
            let entry = entry?;
            size.entries += 1;
            size.archive_bytes += 512 + entry.size().next_multiple_of(512);
        }
    }
    Ok(size)
}

/// Reads a layer's archive out of its blob.
pub fn decode<'a>(mut blob: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match blob.fill_buf()?.first() {
        Some(0x1f) => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Some(0x28) => Box::new(zstd::Decoder::with_buffer(blob)?),
        _ => Box::new(blob),
    })
}

/// The files of the layers' blobs.
pub fn blobs(layout: &Layout) -> Result<Vec<PathBuf>> {
    let manifest = layout.manifest("latest")?;
    let layers = manifest["layers"].as_array().context("no layers")?;
    let blob = |layer| Ok(layout.blob(&Digest::in_descriptor(layer)?));
    layers.iter().map(blob).collect()
}

fn inputs(debs: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(include_str!("image.rs"));
    for deb in debs {
        hash.update(
            deb.file_name()
                .context("a package has a name")?
                .as_encoded_bytes(),
        );
    }
    let digest = hash.finalize();
    Ok(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list(name: &str) -> Result<String> {
    let path = lab::root().join("fixtures/bench").join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The words of a list, without its comments.
fn words(list: &str) -> Vec<&str> {
    (list.lines().filter(|line| !line.starts_with('#')))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The packages, the largest first.
fn packages() -> Result<Vec<PathBuf>> {
    let directory = lab::target().join("bench/packages");
    apt::download_closure(&words(&list("packages")?), &directory)?;
    apt::download_of_component(FIRMWARE_COMPONENT, &words(&list("firmware")?), &directory)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push((std::cmp::Reverse(fs::metadata(&path)?.len()), path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn build(shape: Shape, compression: Compression, debs: &[PathBuf], directory: &Path) -> Result<()> {
    let layout = Layout::create(directory)?;
    layout.add(&Image::new(), "latest")?;
    let add = |entries: Vec<Entry>| -> Result<()> {
        let layer = Layer::new(with_parents(entries)).compressed(compression);
        layout.derive("latest", &[layer], "latest").map(drop)
    };
    match shape {
        Shape::Real => {
            add(base())?;
            let (alone, rest) = debs.split_at(ALONE.min(debs.len()));
            for deb in alone {
                add(contents(deb)?)?;
            }
            for group in 0..SHARED {
                let members = rest.iter().skip(group).step_by(SHARED);
                add(members
                    .map(|deb| contents(deb))
                    .collect::<Result<Vec<_>>>()?
                    .concat())?;
            }
            add(top())
        }
        Shape::Layers(count) => {
            let mut all: Vec<Entry> = base();
            for deb in debs {
                all.extend(contents(deb)?);
            }
            cut(all, count).into_iter().try_for_each(add)
        }
        Shape::Entries(count) => (0..10).try_for_each(|layer| add(small_files(layer, count / 10))),
    }
}

/// What lies below everything: directories and the links of a merged `/usr`.
fn base() -> Vec<Entry> {
    let mut entries = vec![Entry::directory("usr")];
    for name in MERGED {
        entries.push(Entry::directory(format!("usr/{name}")));
        entries.push(Entry::symlink(name, format!("usr/{name}")));
    }
    entries.extend(["dev", "proc", "sys", "run"].map(Entry::directory));
    entries
}

const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// What lies on top: configuration, something replaced, something removed.
fn top() -> Vec<Entry> {
    vec![
        Entry::file("etc/hostname", "bench\n"),
        Entry::file("etc/motd", "made for a benchmark\n"),
        Entry::whiteout("usr/share/doc/bash"),
        Entry::directory("usr/share/info"),
        Entry::opaque("usr/share/info"),
    ]
}

/// A package's files, where they are with a merged `/usr`.
fn contents(deb: &Path) -> Result<Vec<Entry>> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("starting dpkg-deb")?;
    let mut archive = tar::Archive::new(child.stdout.take().context("piped above")?);
    let mut entries = Vec::new();
    for entry in archive.entries()? {
        let entry = Entry::read(&mut entry?)?;
        if !entry.path().as_os_str().is_empty() && !MERGED.iter().any(|name| entry.path() == Path::new(name))
        {
            entries.push(entry.moved(merged));
        }
    }
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    command::check_status("dpkg-deb", child.wait()?)?;
    compress_modules(compress_firmware(entries)?)
}

/// Where kernels look for firmware.
const FIRMWARE: &str = "usr/lib/firmware";
/// Where Debian has most of it.
const FIRMWARE_COMPONENT: &str = "non-free-firmware";

/// What vendors do with firmware: each file is compressed, and links lead to the compressed ones.
fn compress_firmware(entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let with_suffix = |path: &Path| {
        let mut name = path.as_os_str().to_os_string();
        name.push(".zst");
        PathBuf::from(name)
    };
    let compress = |entry: Entry| {
        let path = entry.path().to_path_buf();
        match entry.target() {
            _ if !path.starts_with(FIRMWARE) || entry.is_directory() => Ok(entry),
            Some(target) => Ok(Entry::symlink(with_suffix(&path), with_suffix(target))),
            None => Ok(Entry::file(
                with_suffix(&path),
                zstd::encode_all(entry.content(), 9)?,
            )),
        }
    };
    entries.into_iter().map(compress).collect()
}

/// Where kernels have their modules.
const MODULES: &str = "usr/lib/modules";

/// What bootable images do with a kernel: modules are compressed one by one, and an initial ramdisk lies
/// beside them.
fn compress_modules(entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let is_module = |entry: &Entry| {
        let path = entry.path();
        path.starts_with(MODULES) && path.extension().is_some_and(|extension| extension == "ko")
    };
    if !entries.iter().any(is_module) {
        return Ok(entries);
    }
    let mut ramdisk = Vec::new();
    let mut out = Vec::new();
    let mut directory = PathBuf::new();
    for entry in entries {
        if !is_module(&entry) {
            out.push(entry);
            continue;
        }
        let inside = entry.path().strip_prefix(MODULES)?;
        directory = Path::new(MODULES).join(inside.components().next().context("no version")?);
        if inside.iter().any(|name| name == "drivers" || name == "fs") {
            ramdisk.extend_from_slice(entry.content());
        }
        let compressed = zstd::encode_all(entry.content(), 9)?;
        out.push(Entry::file(entry.path().with_extension("ko.zst"), compressed));
    }
    let compressed = zstd::encode_all(ramdisk.as_slice(), 9)?;
    out.push(Entry::file(directory.join("initramfs.img"), compressed));
    Ok(out)
}

fn merged(path: &Path) -> PathBuf {
    let first = path.components().next();
    let moves = MERGED
        .iter()
        .any(|name| first == Path::new(name).components().next());
    if moves {
        Path::new("usr").join(path)
    } else {
        path.into()
    }
}

/// Each parent once, before what is in it; hard links to other layers are left out.
fn with_parents(entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen: HashSet<PathBuf> = HashSet::from([PathBuf::new()]);
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.path().to_path_buf();
        let parents: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| !seen.contains(*parent))
            .collect();
        for parent in parents.into_iter().rev() {
            seen.insert(parent.into());
            out.push(Entry::directory(parent));
        }
        let dangling = entry.is_hardlink() && entry.target().is_some_and(|target| !seen.contains(target));
        if !dangling && seen.insert(path) {
            out.push(entry);
        }
    }
    out
}

/// Into so many layers of about the same size.
fn cut(entries: Vec<Entry>, count: usize) -> Vec<Vec<Entry>> {
    let weight = |entry: &Entry| 1024 + entry.content().len();
    let total: usize = entries.iter().map(weight).sum();
    let mut layers = vec![Vec::new(); count];
    let mut before = 0;
    for entry in entries {
        let at = before * count / total;
        before += weight(&entry);
        layers[at].push(entry);
    }
    layers
}

/// Files of some hundred bytes, fifty in a directory.
fn small_files(layer: usize, count: usize) -> Vec<Entry> {
    let file = |index: usize| {
        let path = format!("l{layer}/d{}/f{index}", index / 50);
        Entry::file(&path, format!("{path}\n").repeat(1 + index % 60))
    };
    (0..count).map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_move_where_a_merged_usr_has_them() {
        assert_eq!(merged(Path::new("lib/x")), Path::new("usr/lib/x"));
        assert_eq!(merged(Path::new("library/x")), Path::new("library/x"));
        assert_eq!(merged(Path::new("etc/lib")), Path::new("etc/lib"));
    }

    #[test]
    fn a_cut_loses_nothing_and_every_layer_has_its_parents() {
        let entries: Vec<_> = (0..100).map(|n| Entry::file(format!("d/f{n}"), "x")).collect();
        let layers = cut(entries, 7);
        assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), 100);
        for layer in layers {
            assert!((14..=15).contains(&layer.len()));
            assert!(with_parents(layer)[0].is_directory());
        }
    }
}
