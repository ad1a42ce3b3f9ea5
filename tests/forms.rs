//! The forms that an image takes on its way: whatever skopeo makes of it, Landfall unpacks the same tree; and
//! what Landfall writes, skopeo reads.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use lab::image::{Compression, Entry, Flavor, Image, Layer, Layout};
use lab::registry::Registry;
use serde_json::json;
use support::{landfall, noise, output};

/// An inode as it is compared: everything that an image says of it.
#[derive(Debug, PartialEq, Eq)]
struct Inode {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    links: u64,
    content: Vec<u8>,
}

/// All that is below a directory.
fn tree(root: &Path) -> BTreeMap<PathBuf, Inode> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                todo.push(path.clone());
                vec![]
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let inode = Inode {
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                mtime: metadata.mtime(),
                links: if metadata.is_dir() { 0 } else { metadata.nlink() },
                content,
            };
            found.insert(path.strip_prefix(root).unwrap().into(), inode);
        }
    }
    found
}

/// The layers of every kind: all that a layer can do to those below, one that does nothing, the same one
/// twice.
fn layers() -> Vec<Layer> {
    let below = Layer::new([
        Entry::directory("etc"),
        Entry::file("etc/motd", "old\n").mode(0o600).owner(10, 20),
        Entry::file("etc/gone", "gone"),
        Entry::directory("var/lib"),
        Entry::file("var/lib/hidden", "hidden"),
        Entry::program("bin", noise(1, 300_000)),
    ]);
    let again = Layer::new([Entry::file("etc/again", "again").mtime(1)]);
    let above = Layer::new([
        Entry::whiteout("etc/gone"),
        Entry::opaque("var/lib"),
        Entry::file("var/lib/seen", noise(2, 70_000)),
        Entry::hardlink("var/lib/linked", "var/lib/seen"),
        Entry::symlink("etc/issue", "motd"),
        Entry::file("etc/motd", "new\n"),
    ]);
    vec![below, again.clone(), Layer::new([]), above, again]
}

/// What all of them are together.
fn expected_names() -> Vec<&'static str> {
    vec![
        "bin",
        "etc",
        "etc/again",
        "etc/issue",
        "etc/motd",
        "var",
        "var/lib",
        "var/lib/linked",
        "var/lib/seen",
    ]
}

struct Lab {
    folder: tempfile::TempDir,
    registry: Registry,
    layout: Layout,
}

impl Lab {
    fn new() -> Self {
        let folder = lab::tempdir().unwrap();
        Self {
            layout: Layout::create(&folder.path().join("layout")).unwrap(),
            registry: Registry::start().unwrap(),
            folder,
        }
    }

    /// Puts what the layout calls `tag` into the registry; gives its name there.
    fn place(&self, tag: &str) -> String {
        self.registry
            .place(&self.layout, tag, &format!("os/x:{tag}"))
            .unwrap();
        format!("{}/os/x:{tag}", self.registry.host())
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().into()
    }

    /// The tree of an image, by the command that a person would type.
    fn unpack(&self, image: &str) -> BTreeMap<PathBuf, Inode> {
        let to = self.folder.path().join("root");
        let ran = landfall([
            "unpack",
            image,
            "--tls-verify=false",
            "--to",
            to.to_str().unwrap(),
        ]);
        assert_eq!(ran.code, Some(0), "{image}: {ran:#?}");
        let tree = tree(&to);
        fs::remove_dir_all(&to).unwrap();
        tree
    }
}

fn skopeo(from: &str, to: &str, options: &[&str]) {
    let fixed = ["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"];
    output(Command::new("skopeo").args(fixed).args(options).args([from, to]));
}

/// The media types of the layers that a manifest names.
fn media_types(layout: &Layout, tag: &str) -> Vec<String> {
    let manifest = layout.manifest(tag).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["mediaType"].as_str().unwrap().into())
        .collect()
}

#[test]
fn whatever_skopeo_makes_of_an_image_is_the_same_tree() {
    let lab = Lab::new();
    for (flavor, tag) in [(Flavor::Oci, "oci"), (Flavor::Docker, "docker")] {
        let image = Image::new().flavor(flavor).layers(layers()).env("A=b");
        lab.layout.add(&image, tag).unwrap();
        let name = lab.place(tag);
        let expected = lab.unpack(&name);
        let names: Vec<_> = expected.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, expected_names());
        assert_eq!(expected[Path::new("etc/motd")].content, b"new\n");
        assert_eq!(expected[Path::new("var/lib/seen")].links, 2);

        for (number, (form, options, end)) in [
            ("oci:", &[][..], "+gzip"),
            ("oci:", &["--dest-compress-format", "gzip"], "+gzip"),
            ("oci:", &["--dest-compress-format", "zstd"], "+zstd"),
            ("oci:", &["--dest-compress-format", "zstd:chunked"], "+zstd"),
            ("oci-archive:", &[], ""),
            ("oci-archive:", &["--dest-compress-format", "zstd"], ""),
            ("docker-archive:", &[], ""),
        ]
        .into_iter()
        .enumerate()
        {
            let path = lab.path(&format!("{tag}{number}"));
            let to = format!("{form}{path}:reg.lab/web:1");
            skopeo(&format!("docker://{name}"), &to, options);
            if form == "oci:" {
                let types = media_types(&Layout::open(path.as_ref()), "reg.lab/web:1");
                assert!(
                    types.iter().all(|text| text.ends_with(end)),
                    "{to} {options:?}: {types:?}"
                );
            }
            assert!(
                lab.unpack(&format!("{form}{path}")) == expected,
                "{to} {options:?}"
            );
        }
    }
}

#[test]
fn whatever_landfall_writes_is_the_same_to_skopeo() {
    let lab = Lab::new();
    lab.layout.add(&Image::new().layers(layers()), "1").unwrap();
    let name = lab.place("1");
    let expected = lab.unpack(&name);
    for (number, form) in ["oci", "oci-archive"].into_iter().enumerate() {
        let (ours, theirs) = (
            lab.path(&format!("ours{number}")),
            lab.path(&format!("theirs{number}")),
        );
        let ran = landfall([
            "pull",
            &name,
            "--tls-verify=false",
            "--to",
            &format!("{form}:{ours}:1"),
        ]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        for to in ["docker-archive", "oci"] {
            let theirs = format!("{to}:{theirs}-{to}");
            skopeo(
                &format!("{form}:{ours}:1"),
                &format!("{theirs}:reg.lab/web:1"),
                &[],
            );
            assert!(lab.unpack(&theirs) == expected, "{form} {to}");
        }
    }
}

/// A gzip layer in the form of eStargz: each piece of it a gzip member of its own, an index of them as the
/// archive's last file, and a footer that points to that (stargz-snapshotter, `docs/estargz.md`).
fn estargz(tar: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    for piece in tar.chunks(512 * 7) {
        let mut member = GzEncoder::new(&mut blob, flate2::Compression::default());
        member.write_all(piece).unwrap();
        member.finish().unwrap();
    }
    let payload = format!("{:016x}STARGZ", blob.len());
    let extra = [
        b"SG".as_slice(),
        &(payload.len() as u16).to_le_bytes(),
        payload.as_bytes(),
    ]
    .concat();
    let footer = GzBuilder::new()
        .extra(extra)
        .write(&mut blob, flate2::Compression::none());
    footer.finish().unwrap();
    blob
}

/// Puts another blob in place of a layer's; what it unpacks to stays.
fn replace(layout: &Layout, tag: &str, index: usize, blob: &[u8], annotations: &serde_json::Value) {
    let digest = layout.put(blob).unwrap();
    layout
        .edit_manifest(tag, |manifest| {
            let layer = &mut manifest["layers"][index];
            layer["digest"] = digest.to_string().into();
            layer["size"] = blob.len().into();
            layer["annotations"] = annotations.clone();
        })
        .unwrap();
}

#[test]
fn layers_in_pieces() {
    let lab = Lab::new();
    let index = Entry::file("stargz.index.json", r#"{"version":1,"entries":[]}"#);
    let entries = [
        Entry::directory("usr"),
        Entry::file("usr/noise", noise(3, 50_000)),
        index,
    ];
    let plain = Layer::new(entries);
    let [gzip, zstd] = [Compression::Gzip, Compression::Zstd].map(|kind| plain.clone().compressed(kind));
    lab.layout.add(&Image::new().layer(gzip), "plain").unwrap();
    let expected = lab.unpack(&lab.place("plain"));

    lab.layout
        .add(&Image::new().layer(plain.clone()), "estargz")
        .unwrap();
    let toc = json!({ "containerd.io/snapshot/stargz/toc.digest": "sha256:00" });
    replace(&lab.layout, "estargz", 0, &estargz(plain.tar()), &toc);

    // zstd: frames, with what a reader has to skip before, between and after them (RFC 8878, section 3.1.2).
    let skipped = [&0x184D_2A50u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"TOC"].concat();
    let frames: Vec<Vec<u8>> = plain
        .tar()
        .chunks(512 * 9)
        .flat_map(|piece| [skipped.clone(), zstd::bulk::compress(piece, 3).unwrap()])
        .chain([skipped.clone()])
        .collect();
    lab.layout.add(&Image::new().layer(zstd), "frames").unwrap();
    replace(&lab.layout, "frames", 0, &frames.concat(), &json!({}));

    for tag in ["estargz", "frames"] {
        assert!(lab.unpack(&lab.place(tag)) == expected, "{tag}");
    }
}

/// Layers that hold nothing: an archive without entries, and no archive at all.
#[test]
fn empty_layers() {
    let lab = Lab::new();
    let base = Layer::new([Entry::file("file", "content")]);
    lab.layout.add(&Image::new().layer(base.clone()), "base").unwrap();
    let expected = lab.unpack(&lab.place("base"));
    for (number, empty) in [Layer::new([]), Layer::of_tar(vec![])].into_iter().enumerate() {
        for (name, kind) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("zstd", Compression::Zstd),
        ] {
            let empty = empty.clone().compressed(kind);
            let tag = format!("{name}{number}");
            let image = Image::new().layer(empty.clone()).layer(base.clone()).layer(empty);
            lab.layout.add(&image, &tag).unwrap();
            assert!(lab.unpack(&lab.place(&tag)) == expected, "{tag}");
        }
    }
    lab.layout.add(&Image::new(), "nothing").unwrap();
    assert!(lab.unpack(&lab.place("nothing")).is_empty());
}
