//! Archives that are out for harm.

use super::*;

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
            "the root of a layer must be a directory",
        ),
        (
            "root as a link",
            text("symlink . -> /etc"),
            "the root of a layer must be a directory",
        ),
        (
            "no name",
            raw(b'0', b"", b""),
            "the root of a layer must be a directory",
        ),
        ("root as a whiteout", text("file .wh."), "names nothing to remove"),
        (
            "whiteout of the directory",
            text("dir a\nfile a/.wh.."),
            "names nothing to remove",
        ),
        (
            "whiteout of the parent",
            text("dir a\nfile a/.wh..."),
            "names nothing to remove",
        ),
        ("through a file", text("file a\nfile a/b"), "a is not a directory"),
        (
            "through a device",
            text("block a 8:0\nfile a/b"),
            "a is not a directory",
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
        ("an unknown type", raw(b'V', b"a", b""), "\"a\" has type 'V'"),
        ("a link without a target", raw(b'2', b"a", b""), "ENOENT"),
        (
            "half a header",
            entry(b'0', b"a", b"", b"", &[])[..300].to_vec(),
            "ends in the middle of an entry",
        ),
        ("noise", vec![7; 2048], "not a number"),
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

/// Archives damaged at random, with checksums that are right: nothing gets out, nothing panics, nothing is
/// left of those that fail. `LANDFALL_MUTANTS` asks for more.
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
            settle(std::slice::from_ref(&layer), &|| true).unwrap();
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
