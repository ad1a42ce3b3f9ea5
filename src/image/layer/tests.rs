//! Whole layers and stacks of them: archives in the notation of [`super::notation`], and what must come of
//! them.

mod dialects;
mod faults;
mod hostile;
mod stacks;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::image::MediaType;
use tempfile::TempDir;

use super::notation::{archive, entry, list};
use super::*;
use crate::image::oci::digest::sha256;
use crate::image::oci::media_type::Compression;
use crate::image::oci::{Descriptor, Layer};
use crate::machine::kernel;
pub use stacks::{shown_by_overlayfs, through_overlayfs};

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

pub fn unpack_archive(bytes: Vec<u8>, index: usize, place: &Place) -> Result<UnpackedLayer, LayerError> {
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

fn checksummed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
