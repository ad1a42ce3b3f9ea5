//! Whole layers and stacks of them: archives in the notation of [`super::notation`], and what must come of them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::image::MediaType;
use tempfile::TempDir;

use super::notation::{archive, entry, list};
use super::*;
use crate::kernel;
use crate::oci::digest::sha256;
use crate::oci::media_type::Compression;
use crate::oci::{Descriptor, Layer};

/// What the notation calls `opaque`, where it is an attribute like others.
const OPAQUE: &str = " {trusted.overlay.opaque=y}";

/// A tmpfs: all file systems differ, this is the one that layers are unpacked into.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self::sized("64m")
    }

    pub fn sized(size: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        mount(
            Some("test"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={size}").as_str()),
        )
        .unwrap();
        Self(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn layer_of(blob: &[u8], archive: &[u8], index: usize) -> Layer {
    Layer {
        index,
        blob: Descriptor::new(MediaType::ImageLayer, blob.len() as u64, sha256(blob)),
        diff_id: sha256(archive),
        compression: Compression::None,
    }
}

pub fn unpack_archive(bytes: Vec<u8>, index: usize, place: &Place) -> anyhow::Result<UnpackedLayer> {
    let layer = layer_of(&bytes, &bytes, index);
    // An odd size of chunks: no header lies in one piece.
    let blob = ReadChunks::new(std::io::Cursor::new(bytes), 999);
    unpack(blob, &layer, &place.path(&index.to_string()), Options::default())
}

fn lines(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What one archive becomes in overlayfs's form.
#[test]
fn archives_and_their_directories() {
    // What it is about; the archive; the directory, where it isn't the same.
    let same = "same";
    for (what, input, expected) in [
        (
            "every type and attribute",
            r#"dir . 0700 1:2 @3.000000004
            fifo a-pipe 0600 7:8
            block b 0660 8:1 @5
            char c 0666 1:3
            dir d 1777 5:6 @7.5 {user.k=v} {trusted.t=\x00\xff}
            file d/f 4755 9:10 @1700000000.123456789 {security.capability=\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00} "text"
            hard d/h = d/f
            symlink d/s 11:12 @13 {trusted.t=1} -> ../\xff \n"#,
            r#"dir . 0700 1:2 @3.000000004
            fifo a-pipe 0600 7:8
            block b 8:1 0660 @5
            char c 1:3 0666
            dir d 1777 5:6 @7.5 {trusted.t=\x00\xff} {user.k=v}
            file d/f 4755 9:10 @1700000000.123456789 {security.capability=\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00} "text"
            hard d/h = d/f
            symlink d/s 11:12 @13 {trusted.t=1} -> ../\xff \n"#,
        ),
        (
            "odd names",
            "dir a\\n\nfile a\\n/\\x01\\xff \"1\"\nfile -rf\nfile .wh",
            "file -rf\nfile .wh\ndir a\\n\nfile a\\n/\\x01\\xff \"1\"",
        ),
        (
            "names are cleaned",
            "dir ./a/\nfile /a//./b\nfile a/../c",
            "dir a\nfile a/b\nfile c",
        ),
        ("missing parents", "file a/b/c", "dir a\ndir a/b\nfile a/b/c"),
        (
            "a directory after what is in it",
            "file a/b\ndir a 0700 @5",
            "dir a 0700 @5\nfile a/b",
        ),
        (
            "the later entry counts: file",
            "file a \"1\"\nfile a 0600 \"2\"",
            "file a 0600 \"2\"",
        ),
        (
            "the later entry counts: directory",
            "dir a 0700 {user.a=1}\nfile a/x\ndir a 0750",
            "dir a 0750\nfile a/x",
        ),
        (
            "file over directory",
            "dir a\nfile a/x\ndir a/d\nfile a \"1\"",
            "file a \"1\"",
        ),
        (
            "directory over file",
            "file a\ndir a\nfile a/x",
            "dir a opaque\nfile a/x",
        ),
        (
            "directory over a link to one",
            "dir d\nsymlink a -> d\ndir a\nfile a/x",
            "dir a opaque\nfile a/x\ndir d",
        ),
        (
            "a replaced directory is described anew",
            "dir a 0700\nfile a\nfile b\nfile b/../a/../c\ndir a",
            "dir a opaque\nfile b\nfile c",
        ),
        (
            "a hardlink survives its first name",
            "file a \"1\"\nhard b = a\nfile a \"2\"",
            "file a \"2\"\nfile b \"1\"",
        ),
        (
            "a hardlink to a name that is removed from the layers below",
            "file a \"1\"\nwhiteout a\nhard b = a",
            "file a \"1\"\nhard b = a",
        ),
        ("a hardlink to itself", "file a \"1\"\nhard a = a", "file a \"1\""),
        (
            "a hardlink over a file",
            "file a \"1\"\nfile b \"2\"\nhard b = ./a",
            "file a \"1\"\nhard b = a",
        ),
        (
            "a hardlink to a symbolic link",
            "symlink a -> /etc/passwd\nhard b = a",
            "symlink a -> /etc/passwd\nhard b = a",
        ),
        (
            "a hardlink has no attributes",
            "file a 0600 @5 \"1\"\nhard b 0777 7:7 @9 = a",
            "file a 0600 @5 \"1\"\nhard b = a",
        ),
        (
            "whiteout",
            "whiteout a\nwhiteout d/b",
            "whiteout a\ndir d\nwhiteout d/b",
        ),
        ("whiteout, then the name again", "whiteout a\nfile a", "file a"),
        ("the name, then its whiteout", "file a\nwhiteout a", "file a"),
        (
            "whiteout of a directory, then the directory again",
            "whiteout a\ndir a\nfile a/b",
            "dir a opaque\nfile a/b",
        ),
        (
            "the directory, then its whiteout",
            "dir a\nfile a/b\nwhiteout a",
            "dir a opaque\nfile a/b",
        ),
        (
            "whiteout of a directory, then children of it",
            "whiteout a\nfile a/b",
            "dir a opaque\nfile a/b",
        ),
        (
            "whiteout below a whiteout",
            "whiteout a\nwhiteout a/b\nwhiteout a/c/d\nopaque a",
            "whiteout a",
        ),
        (
            "whiteout above a whiteout",
            "whiteout a/c/d\nwhiteout a/b\nwhiteout a",
            "whiteout a",
        ),
        (
            "whiteout above something",
            "whiteout a/c/d\nfile a/c/e\nwhiteout a",
            "dir a opaque\ndir a/c\nwhiteout a/c/d\nfile a/c/e",
        ),
        ("opaque", "dir a\nfile a/b\nopaque a", "dir a opaque\nfile a/b"),
        ("opaque without a directory", "opaque a", "dir a opaque"),
        ("opaque root", "opaque .\nfile a", "dir . opaque\nfile a"),
        (
            "whiteout in an opaque directory",
            "dir a\nopaque a\nwhiteout a/b",
            "dir a opaque\nwhiteout a/b",
        ),
        (
            "aufs's bookkeeping",
            "file .wh..wh.plnk\nfile a/.wh..wh.aufs \"1\"",
            "",
        ),
        ("a device that is a whiteout", "char a 0:0", "whiteout a"),
        (
            "overlayfs's own attributes",
            "dir a {trusted.overlay.opaque=y}\nfile b {trusted.overlay.metacopy=} {trusted.overlay.redirect=/etc}",
            "dir a {trusted.overlay.overlay.opaque=y}\nfile b {trusted.overlay.overlay.metacopy=} {trusted.overlay.overlay.redirect=/etc}",
        ),
        (
            "attributes of the machine",
            "file a {security.selinux=x} {user.a=1}",
            "file a {user.a=1}",
        ),
        (
            "through a link",
            "dir usr\ndir usr/lib\nsymlink lib -> usr/lib\nfile lib/a\nfile lib/b",
            "symlink lib -> usr/lib\ndir usr\ndir usr/lib\nfile usr/lib/a\nfile usr/lib/b",
        ),
        (
            "through a link that leads up",
            "dir d\nsymlink d/up -> ../../../..\nfile d/up/a",
            "file a\ndir d\nsymlink d/up -> ../../../..",
        ),
        (
            "through an absolute link",
            "symlink a -> /etc\nfile a/b",
            "symlink a -> /etc\ndir etc\nfile etc/b",
        ),
        (
            "through a link to nothing",
            "symlink a -> b/c\nfile a/d",
            "symlink a -> b/c\ndir b\ndir b/c\nfile b/c/d",
        ),
        (
            "through a chain of links",
            "symlink a -> b\nsymlink b -> /c/.\ndir c\nfile a/d\nhard e = a/d",
            "symlink a -> b\nsymlink b -> /c/.\ndir c\nfile c/d\nhard e = c/d",
        ),
        (
            "through a magic link",
            "symlink m -> /proc/self/root\nfile m/a\nsymlink n -> /proc/self/cwd/../b\nfile n/c",
            "symlink m -> /proc/self/root\nsymlink n -> /proc/self/cwd/../b\ndir proc\ndir proc/self\ndir proc/self/b\nfile proc/self/b/c\ndir proc/self/cwd\ndir proc/self/root\nfile proc/self/root/a",
        ),
        (
            "a file over a disk, memory, a pipe and a link out",
            "block disk 8:0\nfile disk \"1\"\nchar mem 1:1\nfile mem \"2\"\nfifo pipe\nfile pipe \"3\"\nsymlink out -> ../outside\nfile out \"4\"",
            "file disk \"1\"\nfile mem \"2\"\nfile out \"4\"\nfile pipe \"3\"",
        ),
        (
            "a link swapped between entries",
            "dir d\ndir e\nfile d/a\nsymlink d -> e\nfile d/b\nfile d\ndir d\nfile d/c",
            "dir d opaque\nfile d/c\ndir e\nfile e/b",
        ),
        (
            "the mode of a directory that cannot be written",
            "dir a 0555\nfile a/b\ndir a/c 0000\nfile a/c/d",
            "dir a 0555\nfile a/b\ndir a/c 0000\nfile a/c/d",
        ),
        (
            "set-group-ID directories",
            "dir a 2775 0:5\nfile a/b\ndir a/c",
            "dir a 2775 0:5\nfile a/b\ndir a/c",
        ),
        (
            "default ACLs aren't inherited",
            r"dir a {system.posix_acl_default=\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff}
            file a/b",
            same,
        ),
        ("time before 1970", "file a @-1.5", "file a @-2.5"),
    ] {
        let place = Place::new();
        let unpacked =
            unpack_archive(archive(input), 0, &place).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let expected = if expected == same { input } else { expected };
        assert_eq!(list(unpacked.path()), lines(expected), "{what}");
    }
}

/// What stacks of layers look like: through overlayfs itself, and merged. Both must be the same.
#[test]
fn stacks_and_what_they_look_like() {
    let base = "dir d 0700 1:1 @5 {user.a=1}\nfile d/a \"1\"\ndir d/s\nfile d/s/x\nfile f \"f\"\nsymlink l -> d\nhard h = f";
    for (what, stack, expected) in [
        (
            "nothing on top",
            vec![base],
            "dir d 0700 1:1 @5 {user.a=1}\nfile d/a \"1\"\ndir d/s\nfile d/s/x\nfile f \"f\"\nhard h = f\nsymlink l -> d",
        ),
        ("whiteout", vec!["file a\nfile b", "whiteout a"], "file b"),
        (
            "whiteout, and again",
            vec!["file a \"1\"", "whiteout a", "file a \"2\""],
            "file a \"2\"",
        ),
        (
            "whiteout of nothing",
            vec!["file a", "whiteout b\nwhiteout c/d\nopaque e"],
            "file a",
        ),
        (
            "whiteout in a directory of its own",
            vec!["file a", "dir d\nwhiteout d/x\nfile d/y"],
            "file a\ndir d\nfile d/y",
        ),
        (
            "whiteout of one of two names",
            vec!["file a \"1\"\nhard b = a", "whiteout a"],
            "file b \"1\"",
        ),
        (
            "whiteout of a directory",
            vec![base, "whiteout d\nwhiteout h"],
            "file f \"f\"\nsymlink l -> d",
        ),
        (
            "whiteout of a directory, then the same again",
            vec![
                "dir d\nfile d/a\ndir d/s\nfile d/s/x",
                "whiteout d\ndir d\nfile d/b\nfile d/s/y",
            ],
            "dir d\nfile d/b\ndir d/s\nfile d/s/y",
        ),
        (
            "opaque",
            vec![
                "dir d\nfile d/a\ndir d/s\nfile d/s/x",
                "dir d @9\nopaque d\nfile d/b\nfile d/s/y",
            ],
            "dir d @9\nfile d/b\ndir d/s\nfile d/s/y",
        ),
        (
            "opaque keeps the directory's looks",
            vec!["dir d 0700 @5\nfile d/a", "opaque d"],
            "dir d 0700 @5",
        ),
        (
            "opaque root",
            vec![
                "dir . 0700\nfile a\ndir d\nfile d/x",
                "opaque .\nfile b",
                "file c",
            ],
            "dir . 0700\nfile b\nfile c",
        ),
        (
            "whiteout in an opaque directory",
            vec![
                "dir d\nfile d/a\nfile d/b",
                "dir d\nopaque d\nwhiteout d/a\nfile d/c",
            ],
            "dir d\nfile d/c",
        ),
        (
            "directory over file",
            vec!["file a", "dir a\nfile a/b"],
            "dir a\nfile a/b",
        ),
        (
            "file over directory",
            vec!["dir a\nfile a/b", "file a \"1\""],
            "file a \"1\"",
        ),
        (
            "file over directory over file",
            vec!["dir a\nfile a/b", "file a", "dir a\nfile a/c"],
            "dir a\nfile a/c",
        ),
        (
            "directory over link",
            vec!["dir d\nfile d/x\nsymlink a -> d", "dir a\nfile a/y"],
            "dir a\nfile a/y\ndir d\nfile d/x",
        ),
        (
            "link over directory",
            vec!["dir a\nfile a/x", "symlink a -> b"],
            "symlink a -> b",
        ),
        (
            "directory over directory",
            vec![
                "dir a 0700 1:1 @5 {user.a=1}\nfile a/x @1",
                "dir a 0750 2:2 @6 {user.b=2}\nfile a/y",
            ],
            "dir a 0750 2:2 @6 {user.b=2}\nfile a/x @1\nfile a/y",
        ),
        (
            "a missing parent looks like the one below",
            vec![
                "dir . @4\ndir a 0700 1:1 @5 {user.a=1}\ndir a/b 0711 @6",
                "file c",
                "file a/b/x",
            ],
            "dir . @4\ndir a 0700 1:1 @5 {user.a=1}\ndir a/b 0711 @6\nfile a/b/x\nfile c",
        ),
        (
            "a missing parent below a whiteout is new",
            vec!["dir a 0700\ndir a/b 0700", "whiteout a\nfile a/b/x"],
            "dir a\ndir a/b\nfile a/b/x",
        ),
        (
            "a missing parent above an opaque one",
            vec![
                "dir a 0700\ndir a/b 0700\nfile a/b/z",
                "dir a/b 0711\nopaque a/b\nfile a/b/x",
                "file a/b/y",
            ],
            "dir a 0700\ndir a/b 0711\nfile a/b/x\nfile a/b/y",
        ),
        (
            "a whiteout through two layers",
            vec!["dir a\nfile a/x", "dir a\nfile a/y", "whiteout a/x"],
            "dir a\nfile a/y",
        ),
        (
            "attributes of overlayfs in an image",
            vec![
                "dir a {trusted.overlay.opaque=y}\nfile a/x",
                "dir a {trusted.overlay.opaque=y}\nfile a/y {trusted.overlay.whiteout=}",
            ],
            "dir a {trusted.overlay.opaque=y}\nfile a/x\nfile a/y {trusted.overlay.whiteout=}",
        ),
        (
            "attributes of overlayfs of a file with two names",
            vec![
                "file a {trusted.overlay.k=1} {trusted.overlay.overlay.k=2}\nhard b = a\ndir d\nhard d/c = a",
            ],
            "file a {trusted.overlay.k=1} {trusted.overlay.overlay.k=2}\nhard b = a\ndir d\nhard d/c = a",
        ),
        (
            "attributes of overlayfs that the layer above doesn't have",
            vec![
                "dir a {trusted.overlay.k=1} {user.k=1}\nfile a/x",
                "dir a\nfile a/y",
            ],
            "dir a\nfile a/x\nfile a/y",
        ),
        (
            "attributes of overlayfs where users mount it",
            vec![
                "dir a {user.overlay.opaque=y}\nfile a/x",
                "dir a {user.overlay.opaque=y}\nfile a/y {user.overlay.whiteout=}",
            ],
            "dir a {user.overlay.opaque=y}\nfile a/x\nfile a/y {user.overlay.whiteout=}",
        ),
        (
            "through a link of a layer below: as in podman's overlays, a directory takes its place",
            vec![
                "dir usr/lib\nfile usr/lib/x\nsymlink lib -> usr/lib",
                "file lib/y",
            ],
            "dir lib\nfile lib/y\ndir usr\ndir usr/lib\nfile usr/lib/x",
        ),
        (
            "whiteouts through a link or a file of a layer below",
            vec![
                "dir d\nfile d/x\nsymlink l -> d\nfile f",
                "whiteout l/x\nwhiteout f/x\nopaque l",
            ],
            "dir d\nfile d/x\nfile f\nsymlink l -> d",
        ),
    ] {
        let place = Place::new();
        let expected = lines(expected);
        let unpack = |place: &Place| -> Vec<UnpackedLayer> {
            let layers: Vec<_> = stack
                .iter()
                .enumerate()
                .map(|(index, text)| unpack_archive(archive(text), index, place).unwrap())
                .collect();
            settle(&layers).unwrap();
            layers
        };
        let layers = unpack(&place);
        assert_eq!(
            through_overlayfs(&layers, &place),
            shown_by_overlayfs(&expected),
            "{what}, through overlayfs"
        );
        let merged = place.path("merged");
        fs::create_dir(&merged).unwrap();
        merge(layers, &merged).unwrap();
        // Not opaque and the like any more: overlayfs's form is gone.
        assert_eq!(
            list(&merged),
            expected.replace(OPAQUE, " opaque"),
            "{what}, merged"
        );
    }
}

/// What overlayfs can show of a tree: kernels before 6.7 have no way to store attributes that are called like its own, and
/// say that there are none.
pub fn shown_by_overlayfs(listed: &str) -> String {
    const OWN: &str = " {trusted.overlay.";
    let marked = listed.replace(" opaque", OPAQUE);
    if kernel::is_since(&kernel::release().unwrap(), (6, 7)) {
        return marked;
    }
    let mut parts = marked.split(OWN);
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |shown, part| {
        shown + part.split_once('}').map_or("", |(_, rest)| rest)
    })
}

/// What overlayfs shows of settled layers.
pub fn through_overlayfs(layers: &[UnpackedLayer], place: &Place) -> String {
    for name in ["upper", "work", "mnt"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    dress_upper(layers.last().unwrap(), &place.path("upper")).unwrap();
    let lower: Vec<_> = layers
        .iter()
        .rev()
        .map(|layer| layer.path().to_str().unwrap())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        place.path("upper").display(),
        place.path("work").display()
    );
    let target = place.path("mnt");
    mount(
        Some("test"),
        &target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let listed = std::panic::catch_unwind(|| list(&target));
    // A child of another test's may hold a directory of it, until it is another program.
    umount2(&target, MntFlags::MNT_DETACH).unwrap();
    listed.unwrap().replace(" opaque", OPAQUE)
}

/// What must be refused, and with which words. Nothing may be outside, and nothing may be left.
#[test]
fn evil_archives_are_refused() {
    let text = |lines: &str| archive(lines);
    let raw = |kind, name: &[u8], link: &[u8]| [entry(kind, name, link, b"", &[]), vec![0; 1024]].concat();
    let chain: String = (0..50)
        .map(|index| format!("symlink l{index} -> l{}\n", index + 1))
        .collect();
    let mut flipped = text("file a");
    flipped[0] ^= 1;
    let long = |length| [b"a".repeat(length).as_slice(), b"/b"].concat();
    for (what, bytes, expected) in [
        ("up", text("file ../evil"), "leads out of the layer"),
        (
            "up from below",
            text("dir a\nfile a/../../evil"),
            "leads out of the layer",
        ),
        ("absolute up", text("file /../evil"), "leads out of the layer"),
        (
            "hardlink up",
            text("hard a = ../outside"),
            "leads out of the layer",
        ),
        (
            "hardlink out, absolute",
            text("hard a = /outside"),
            "there is no \"outside\" in this layer",
        ),
        (
            "hardlink out through a link",
            text("symlink a -> ..\nhard b = a/outside"),
            "there is no \"a/outside\" in this layer",
        ),
        (
            "hardlink to a later name",
            text("hard a = b\nfile b"),
            "there is no \"b\" in this layer",
        ),
        (
            "hardlink to a whiteout",
            text("whiteout a\nhard b = a"),
            "there is no \"a\" in this layer",
        ),
        (
            "hardlink to a directory",
            text("dir a\nhard b = a"),
            "is a directory",
        ),
        (
            "hardlink to the root",
            text("hard a = ."),
            "the root cannot be linked to",
        ),
        (
            "root as a file",
            text("file ."),
            "the root of a layer is a directory",
        ),
        (
            "root as a link",
            text("symlink . -> /etc"),
            "the root of a layer is a directory",
        ),
        (
            "no name",
            raw(b'0', b"", b""),
            "the root of a layer is a directory",
        ),
        ("root as a whiteout", text("file .wh."), "removes no name"),
        (
            "whiteout of the directory",
            text("dir a\nfile a/.wh.."),
            "removes no name",
        ),
        (
            "whiteout of the parent",
            text("dir a\nfile a/.wh..."),
            "removes no name",
        ),
        ("through a file", text("file a\nfile a/b"), "a is no directory"),
        (
            "through a device",
            text("block a 8:0\nfile a/b"),
            "a is no directory",
        ),
        (
            "a loop of links",
            text("symlink a -> b\nsymlink b -> a\nfile a/x"),
            "more than 40 symbolic links",
        ),
        (
            "a chain of links",
            text(&format!("{chain}dir l50\nfile l0/x")),
            "more than 40 symbolic links",
        ),
        (
            "a long way through links",
            text(&format!(
                "dir d\nsymlink a -> {0}b\nsymlink b -> {0}d\nfile a/x",
                "d/../".repeat(400)
            )),
            "more than 1024 names",
        ),
        (
            "a long name",
            text(&format!("file {}", "a".repeat(256))),
            "ENAMETOOLONG",
        ),
        (
            "a long path",
            text(&format!("file {}x", "a/".repeat(2048))),
            "longer than 4096 bytes",
        ),
        (
            "a deep path",
            text(&format!("file {}x", "a/".repeat(256))),
            "more than 256 directories deep",
        ),
        (
            "a deep path through links",
            text(&format!(
                "dir {0}b\nsymlink c -> {0}b\nfile c/{0}x",
                "a/".repeat(200)
            )),
            "more than 256 directories deep",
        ),
        (
            "NUL in a long name",
            [
                entry(b'x', b"p", b"", &notation::record(b"path", b"a\0b"), &[]),
                raw(b'0', b"a", b""),
            ]
            .concat(),
            "an extended header is malformed",
        ),
        (
            "a long extended header",
            [
                entry(b'x', b"p", b"", &notation::record(b"path", &long(1 << 20)), &[]),
                raw(b'0', b"a", b""),
            ]
            .concat(),
            "larger than 1048576 bytes",
        ),
        (
            "a long long name",
            [entry(b'L', b"p", b"", &long(1 << 20), &[]), raw(b'0', b"a", b"")].concat(),
            "larger than 1048576 bytes",
        ),
        (
            "an extended header of nothing",
            [
                entry(b'x', b"p", b"", &notation::record(b"path", b"a"), &[]),
                vec![0; 1024],
            ]
            .concat(),
            "followed by no entry",
        ),
        (
            "a large attribute",
            [
                entry(b'0', b"a", b"", b"", &[(b"SCHILY.xattr.user.a", &[7; 65_537])]),
                vec![0; 1024],
            ]
            .concat(),
            "larger than 65536 bytes",
        ),
        (
            "an owner that means none",
            [
                entry(b'0', b"a", b"", b"", &[(b"uid", b"4294967295")]),
                vec![0; 1024],
            ]
            .concat(),
            "out of range",
        ),
        (
            "a negative owner",
            [entry(b'0', b"a", b"", b"", &[(b"gid", b"-1")]), vec![0; 1024]].concat(),
            "out of range",
        ),
        (
            "a negative size",
            [entry(b'0', b"a", b"", b"", &[(b"size", b"-1")]), vec![0; 1024]].concat(),
            "out of range",
        ),
        (
            "a size that is a lie",
            [
                entry(b'0', b"a", b"", b"", &[(b"size", b"1000000")]),
                vec![0; 1024],
            ]
            .concat(),
            "ends in the middle of an entry",
        ),
        (
            "the largest size",
            [
                entry(b'0', b"a", b"", b"", &[(b"size", b"9223372036854775807")]),
                vec![0; 1024],
            ]
            .concat(),
            "ends in the middle of an entry",
        ),
        ("an unknown type", raw(b'V', b"a", b""), "\"a\" is of type 'V'"),
        ("a link without a target", raw(b'2', b"a", b""), "ENOENT"),
        (
            "half a header",
            entry(b'0', b"a", b"", b"", &[])[..300].to_vec(),
            "ends in the middle of an entry",
        ),
        ("noise", vec![7; 2048], "no number"),
        ("a damaged header", flipped, "checksum is wrong"),
        (
            "a lone block of zeros",
            [vec![0; 512], entry(b'0', b"a", b"", b"", &[])].concat(),
            "a lone block of zeros",
        ),
        (
            "more than there is room for",
            [entry(b'0', b"a", b"", &vec![1; 65 << 20], &[]), vec![0; 1024]].concat(),
            "ENOSPC",
        ),
    ] {
        let place = Place::new();
        fs::write(place.path("outside"), "untouched").unwrap();
        let before = list(place.0.path());
        let error = unpack_archive(bytes, 0, &place).map(|layer| list(layer.path()));
        let error = format!("{:#}", error.expect_err(what));
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!error.contains('\n'), "{what}: {error}");
        let mtime_of_place = |listing: String| listing.lines().skip(1).map(String::from).collect::<Vec<_>>();
        assert_eq!(
            mtime_of_place(list(place.0.path())),
            mtime_of_place(before),
            "{what}"
        );
    }
}

#[test]
fn archives_of_every_dialect() {
    let place = Place::new();
    let data = b"data".as_slice();
    let v7 = |name: &[u8], kind| {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[156] = kind;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let prefixed = {
        let mut header = tar::Header::new_ustar();
        header
            .set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90)))
            .unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let long = "n".repeat(255);
    let bytes = [
        v7(b"old-dir/", 0),
        v7(b"old-file", 0),
        prefixed,
        entry(b'L', b"././@LongLink", b"", format!("{long}\0").as_bytes(), &[]),
        entry(
            b'K',
            b"././@LongLink",
            b"",
            format!("{}\0", "t".repeat(300)).as_bytes(),
            &[],
        ),
        entry(b'2', b"short", b"short", b"", &[]),
        entry(b'g', b"global", b"", &notation::record(b"path", b"ignored"), &[]),
        entry(b'7', b"contiguous", b"", data, &[]),
        entry(
            b'0',
            b"sized",
            b"",
            data,
            &[
                (b"size", b"4"),
                (b"uid", b"3000000"),
                (b"gid", b"4294967294"),
                (b"linkpath", b""),
            ],
        ),
        // A directory's size is no size of data.
        {
            let mut header = v7(b"sized-dir", b'5');
            header[124..135].copy_from_slice(b"00000001000");
            checksummed(header)
        },
        // One block of zeros and the end of the input are an end, too.
        vec![0; 512],
    ]
    .concat();
    let unpacked = unpack_archive(bytes, 0, &place).unwrap();
    let expected = format!(
        "file contiguous \"data\"\nsymlink {long} -> {}\ndir old-dir 0644\nfile old-file\ndir {p}\nfile {p}/{}\nfile sized 3000000:4294967294 \"data\"\ndir sized-dir 0644\n",
        "t".repeat(300),
        "n".repeat(90),
        p = "p".repeat(120),
    );
    assert_eq!(list(unpacked.path()), expected);
    assert_eq!(unpacked.entries(), 7);
}

/// One byte more than the kernel takes in one call, in names of 255 bytes.
#[test]
fn the_longest_path_is_unpacked_and_merged() {
    let place = Place::new();
    let parent = [vec!["d".repeat(255); 15].join("/"), "d".repeat(128)].join("/");
    let (file, link) = (
        format!("{parent}/{}", "f".repeat(127)),
        format!("{parent}/{}", "l".repeat(127)),
    );
    assert_eq!(file.len(), path::MAX_PATH_BYTES);
    let layers: Vec<_> = [
        format!("file {file} \"1\"\nhard {link} = {file}"),
        format!("dir {parent} 0700\nfile {parent}/x"),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, text)| unpack_archive(archive(&text), index, &place).unwrap())
    .collect();
    settle(&layers).unwrap();
    let merged = place.path("merged");
    fs::create_dir(&merged).unwrap();
    merge(layers, &merged).unwrap();
    let parent = path::RelativePath::clean(parent.as_bytes()).unwrap();
    let parent = directory::open_directory(directory::open_root(&merged).unwrap(), &parent).unwrap();
    let found = |name: &str| directory::look(&parent, name.as_bytes()).unwrap().unwrap();
    assert_eq!(found(&"f".repeat(127)).st_nlink, 2);
    assert_eq!(found(&"f".repeat(127)).st_ino, found(&"l".repeat(127)).st_ino);
    assert_eq!(directory::names(&parent).unwrap().len(), 3);
    remove_all(&merged).unwrap();
}

fn checksummed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn what_follows_the_archive_belongs_to_the_layer_but_is_no_entry() {
    let place = Place::new();
    let bytes = [archive("file a"), b"anything".repeat(100_000), archive("file b")].concat();
    let unpacked = unpack_archive(bytes.clone(), 0, &place).unwrap();
    assert_eq!(list(unpacked.path()), "file a\n");
    assert_eq!(unpacked.archive_bytes(), bytes.len() as u64);
}

#[test]
fn an_empty_layer_is_a_layer() {
    let place = Place::new();
    for (index, bytes) in [vec![], vec![0; 1024], vec![0; 10_240]].into_iter().enumerate() {
        assert_eq!(list(unpack_archive(bytes, index, &place).unwrap().path()), "");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One thing is wrong, everything else is right: exactly that is said. Small layers go through one thread, large ones
/// through four.
#[test]
fn each_fault_is_named() {
    for padding in [0, 3 << 20] {
        let place = Place::new();
        // Noise doesn't shrink: the blob is as large as the archive.
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(padding)
        .collect();
        let tar = [entry(b'0', b"noise", b"", &noise, &[]), archive("file a \"1\"")].concat();
        let blob = gzip(&tar);
        let good = layer_of(&blob, &tar, 0);
        let other = gzip(&[&tar, [0; 512].as_slice()].concat());
        let broken = [&blob[..blob.len() / 2], &[0xff; 16], &blob[blob.len() / 2 + 16..]].concat();
        let garbage = [&blob, b"garbage".as_slice()].concat();
        let diff_id_of = |tar: &[u8]| Layer {
            diff_id: sha256(tar),
            ..good.clone()
        };
        let two_members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
        let (blob_digest, tar_digest) = (sha256(&blob), sha256(&tar));
        for (what, bytes, layer, expected) in [
            ("nothing", blob.clone(), good.clone(), String::new()),
            (
                "compressed in two members",
                two_members.clone(),
                layer_of(&two_members, &tar, 0),
                String::new(),
            ),
            (
                "compressed anew: the diff ID is right, the blob's digest isn't",
                two_members.clone(),
                Layer {
                    blob: Descriptor::new(
                        MediaType::ImageLayerGzip,
                        two_members.len() as u64,
                        blob_digest.clone(),
                    ),
                    ..good.clone()
                },
                format!(
                    "the blob's digest is {}, the manifest says {blob_digest}: the registry's copy is damaged",
                    sha256(&two_members)
                ),
            ),
            (
                "another diff ID, the blob's digest is right",
                blob.clone(),
                diff_id_of(b"other"),
                format!(
                    "the layer's diff ID is {tar_digest}, the image config says {}: the image is malformed",
                    sha256(b"other")
                ),
            ),
            (
                "data behind the archive, and the diff ID of the archive alone",
                other.clone(),
                layer_of(&other, &tar, 0),
                format!(
                    "the layer's diff ID is {}, the image config says {tar_digest}: the image is malformed",
                    sha256(&[&tar, [0; 512].as_slice()].concat())
                ),
            ),
            (
                "cut",
                blob[..blob.len() - 1].to_vec(),
                good.clone(),
                format!(
                    "the blob ends after {} of {} bytes: the registry's copy or the connection is damaged",
                    blob.len() - 1,
                    blob.len()
                ),
            ),
            (
                "empty",
                vec![],
                good.clone(),
                format!(
                    "the blob ends after 0 of {} bytes: the registry's copy or the connection is damaged",
                    blob.len()
                ),
            ),
            (
                "one byte more",
                [&blob, b"\0".as_slice()].concat(),
                good.clone(),
                format!(
                    "the blob is longer than the {} bytes that the manifest says: the registry's copy is damaged",
                    blob.len()
                ),
            ),
            (
                "damaged on the way",
                broken.clone(),
                good.clone(),
                format!(
                    "the blob's digest is {}, the manifest says {blob_digest}: the registry's copy is damaged",
                    sha256(&broken)
                ),
            ),
            (
                "damaged when it was made",
                broken.clone(),
                layer_of(&broken, &tar, 0),
                "its blob is intact, but it cannot be unpacked: ".into(),
            ),
            (
                "garbage behind the compressed data",
                garbage.clone(),
                layer_of(&garbage, &tar, 0),
                "its blob is intact, but it cannot be unpacked: ".into(),
            ),
        ] {
            let path = place.path("layer");
            let copy = fs::File::create(place.path("copy")).unwrap();
            let options = Options {
                copy: Some(copy),
                archive_limit_bytes: Some(tar.len() as u64 + 512),
            };
            let unpacked = unpack(
                ReadChunks::new(std::io::Cursor::new(bytes.clone()), 70_000),
                &layer,
                &path,
                options,
            );
            match unpacked {
                Ok(unpacked) => {
                    assert_eq!(expected, "", "{what}");
                    assert!(
                        unpacked.has_copy() && fs::read(place.path("copy")).unwrap() == bytes,
                        "{what}"
                    );
                    assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
                    remove_all(&path).unwrap();
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    assert!(
                        !expected.is_empty() && error.starts_with(&expected),
                        "{what}: {error}"
                    );
                    assert!(
                        fs::symlink_metadata(&path).is_err(),
                        "{what}: the directory is left"
                    );
                }
            }
        }
    }
}

#[test]
fn an_archive_is_bounded_whatever_it_is_compressed_to() {
    let place = Place::new();
    // Nothing of it is stored: zeros behind the archive's end.
    let tar = vec![0; 40 << 20];
    let blob = gzip(&tar);
    let layer = layer_of(&blob, &tar, 0);
    for (limit, expected) in [
        (tar.len() as u64, None),
        (tar.len() as u64 - 1, Some("larger than 41943039 bytes")),
    ] {
        let options = Options {
            copy: None,
            archive_limit_bytes: Some(limit),
        };
        let unpacked = unpack(
            ReadChunks::new(std::io::Cursor::new(blob.clone()), 4096),
            &layer,
            &place.path("layer"),
            options,
        );
        match (unpacked, expected) {
            (Ok(_), None) => remove_all(&place.path("layer")).unwrap(),
            (Err(error), Some(expected)) => assert!(format!("{error:#}").contains(expected), "{error:#}"),
            (unpacked, _) => panic!("{unpacked:?}"),
        }
    }
}

/// GNU tar's own archives, in all formats that it has for holes and names.
#[test]
fn gnu_tar_writes_what_is_read() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    for index in 0..60u64 {
        sparse
            .write_all_at(format!("<{index}>").as_bytes(), index * 300_000 + 5000)
            .unwrap();
    }
    fs::File::create(tree.join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    fs::create_dir(tree.join("d".repeat(120))).unwrap();
    fs::write(tree.join("d".repeat(120)).join("n".repeat(150)), "x").unwrap();
    std::os::unix::fs::symlink("t".repeat(200), tree.join("link")).unwrap();
    for (index, options) in [
        vec!["--format=gnu"],
        vec!["--format=gnu", "--sparse"],
        vec!["--format=posix"],
        vec!["--format=posix", "--sparse", "--sparse-version=0.0"],
        vec!["--format=posix", "--sparse", "--sparse-version=0.1"],
        vec!["--format=posix", "--sparse", "--sparse-version=1.0"],
    ]
    .into_iter()
    .enumerate()
    {
        let output = std::process::Command::new("tar")
            .args(["--sort=name", "-cC"])
            .arg(&tree)
            .args(&options)
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success(), "{options:?}");
        let unpacked = unpack_archive(output.stdout, index, &place)
            .unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
        let (mut expected, mut found) = (list(&tree), list(unpacked.path()));
        if options[0] == "--format=gnu" {
            // Whole seconds.
            (expected, found) = (without_fractions(&expected), without_fractions(&found));
        }
        if !options.contains(&"--sparse") {
            found = found.replace(" full ", " sparse ");
        }
        assert_eq!(found, expected, "{options:?}");
        for name in ["sparse", "hole"] {
            assert_eq!(
                fs::read(unpacked.path().join(name)).unwrap(),
                fs::read(tree.join(name)).unwrap(),
                "{options:?}"
            );
        }
        remove_all(unpacked.path()).unwrap();
    }
}

fn without_fractions(listing: &str) -> String {
    let word = |word: &str| match word.split_once('.') {
        Some((seconds, _)) if word.starts_with('@') => seconds.to_string(),
        _ => word.to_string(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    listing.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Archives damaged at random, with checksums that are right: nothing gets out, nothing panics, nothing is left of
/// those that fail. `LANDFALL_MUTANTS` asks for more.
#[test]
fn mutants_stay_in_their_directory() {
    let count = std::env::var("LANDFALL_MUTANTS").map_or(3000, |text| text.parse().unwrap());
    let place = Place::new();
    fs::write(place.path("outside"), "untouched").unwrap();
    let seeds = [
        "dir a\nfile a/b \"text\"\nhard c = a/b\nsymlink d -> ../outside\nfile d/e\nfile d \"1\"",
        "symlink a -> ..\nhard b = a/outside\nwhiteout a\nopaque c\nwhiteout c/d\ndir c @1.5 {user.a=1}",
        "dir a/b/c/d\nsymlink e -> a/b\nfile e/f @7.5 {trusted.overlay.opaque=y}\nchar g 0:0\nblock h 8:0\nfifo i\ndir h",
    ];
    let seeds: Vec<_> = seeds.iter().map(|text| archive(text)).collect();
    let mut state = 1u64;
    let mut random = |bound: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut unpacked = 0;
    for index in 0..count {
        let mut bytes = seeds[random(seeds.len())].clone();
        for _ in 0..=random(4) {
            let block = random(bytes.len() / 512) * 512;
            match random(6) {
                0 => drop(bytes.drain(block..block + 512)),
                1 => bytes.extend_from_within(block..block + 512),
                2 => bytes[block + 156] = b"\x000123456789xgLKSV"[random(17)],
                3 => bytes[block + random(100)] = b"/.\0aw\xff"[random(6)],
                4 => bytes[block + 157 + random(20)] = b"/.\0ab\xff"[random(6)],
                _ => bytes[block + random(512)] ^= 1 << random(8),
            }
            if bytes.is_empty() {
                break;
            }
        }
        for block in bytes
            .chunks_exact_mut(512)
            .filter(|block| &block[257..262] == b"ustar")
        {
            block.copy_from_slice(&checksummed(block.to_vec()));
        }
        if let Ok(layer) = unpack_archive(bytes, index, &place) {
            unpacked += 1;
            let _ = list(layer.path());
            settle(std::slice::from_ref(&layer)).unwrap();
            remove_all(layer.path()).unwrap();
        }
        assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "mutant {index}");
    }
    assert_eq!(fs::read(place.path("outside")).unwrap(), b"untouched");
    assert_eq!(fs::symlink_metadata(place.path("outside")).unwrap().nlink(), 1);
    assert!(
        unpacked > count / 20 && unpacked < count,
        "{unpacked} of {count}: the mutants are of one kind"
    );
}
