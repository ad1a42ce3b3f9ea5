//! Archives that are small or endless, and claim more than is allowed.

use bytes::Bytes;

use super::blocks::Archive;
use super::chunks::Chunks;
use super::directory::open_root;
use super::error::Result;
use super::notation::entry;
use super::tests::Place;
use super::untar::untar;

/// Chunks without end, each made of its number.
struct Endless<F> {
    made: u64,
    make: F,
}

impl<F: FnMut(u64) -> Vec<u8>> Chunks for Endless<F> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        self.made += 1;
        Ok((self.make)(self.made - 1).into())
    }
}

/// The error for an archive without end.
fn refusal(make: impl FnMut(u64) -> Vec<u8>) -> String {
    let place = Place::new();
    let root = place.path("layer");
    std::fs::create_dir(&root).unwrap();
    let endless = Endless { made: 0, make };
    let error = untar(&mut Archive::new(endless), open_root(&root).unwrap()).unwrap_err();
    format!("{error:#}")
}

#[test]
fn what_never_ends_is_stopped() {
    let value = vec![7; 65_000];
    let attribute: &[(&[u8], &[u8])] = &[(b"SCHILY.xattr.trusted.k", &value)];
    let old_sparse = {
        let mut header = entry(b'S', b"", b"", b"", &[]);
        header[257..265].copy_from_slice(b"ustar  \0");
        header[386..410].copy_from_slice(b"00000000001\x0000000000001\0");
        // More of the map follows, in this block and in every other.
        header[482] = 1;
        header[504] = 1;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let pending = "larger than 67108864 bytes together";
    let numbered: &[(&[u8], &[u8])] = &[
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"9"),
        (b"size", b"9000000"),
    ];
    for (what, first, rest, expected) in [
        (
            "entries",
            None,
            entry(b'5', b".", b"", b"", &[]).repeat(256),
            "more than 2097152 entries",
        ),
        (
            "attributes of directories",
            None,
            entry(b'5', b"d", b"", b"", attribute),
            pending,
        ),
        ("an old sparse map", None, old_sparse, "larger than 1048576 bytes"),
        (
            "a sparse map",
            Some(entry(b'0', b"s", b"", b"", numbered)),
            b"1048000\n".repeat(64),
            "larger than 1048576 bytes",
        ),
    ] {
        let mut first = first;
        let error = refusal(|_| first.take().unwrap_or_else(|| rest.clone()));
        assert!(error.contains(expected), "{what}: {error}");
    }
    // What is remembered of a directory may be much more than what the file system needs for it.
    let long = "d".repeat(250);
    for (what, kind, name) in [("described", b'5', ""), ("implied", b'0', "/file")] {
        let path = |number| format!("{}{number}{name}", format!("{long}/").repeat(15));
        let error = refusal(|number| entry(kind, b"", b"", b"", &[(b"path", path(number).as_bytes())]));
        assert!(error.contains(pending), "directories that are {what}: {error}");
    }
}
