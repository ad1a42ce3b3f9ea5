//! Archives that are small, or never end, and want more than they may have.

use std::io;

use bytes::Bytes;

use super::archive::Archive;
use super::chunks::Chunks;
use super::directory::open_root;
use super::notation::entry;
use super::tests::Place;
use super::untar::untar;

/// Some bytes, and then others again and again.
struct Endless {
    first: Option<Bytes>,
    rest: Bytes,
}

impl Chunks for Endless {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        Ok(self.first.take().unwrap_or_else(|| self.rest.clone()))
    }
}

/// What is said of an archive that begins with `first` and then repeats `rest` for ever.
fn refusal(first: Option<Vec<u8>>, rest: Vec<u8>) -> String {
    let place = Place::new();
    let root = place.path("layer");
    std::fs::create_dir(&root).unwrap();
    let endless = Endless {
        first: first.map(Bytes::from),
        rest: rest.into(),
    };
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
            "larger than 67108864 bytes together",
        ),
        ("an old sparse map", None, old_sparse, "larger than 1048576 bytes"),
        (
            "a sparse map",
            Some(entry(b'0', b"s", b"", b"", numbered)),
            b"1048000\n".repeat(64),
            "larger than 1048576 bytes",
        ),
    ] {
        let error = refusal(first, rest);
        assert!(error.contains(expected), "{what}: {error}");
    }
}
