//! The corpus of evil archives: what archives have been made to do to those who unpack them.

use std::io::Write as _;

use super::ARCHIVE_LIMIT_BYTES;
use crate::image::layer::notation::{archive, entry, record};

/// All of them, each with a name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let texts = TEXTS.iter().map(|(name, text)| (*name, archive(text)));
    texts.chain(headers()).chain(sparse()).chain(blobs()).collect()
}

/// Those that the notation can say.
const TEXTS: &[(&str, &str)] = &[
    ("up", "file ../canary/file \"x\""),
    ("up from below", "dir a\nfile a/b/../../../canary/file \"x\""),
    ("absolute", "file /run/canary/file \"x\"\ndir /run/canary 0777"),
    ("hardlink up", "hard x = ../canary/file\nfile x \"x\""),
    ("hardlink absolute", "hard x = /run/canary/file\nfile x \"x\""),
    (
        "hardlink through a link",
        "symlink s -> ../canary\nhard x = s/file",
    ),
    (
        "hardlink to a link",
        "symlink s -> ../canary/file\nhard x = s\nfile x \"x\"",
    ),
    ("hardlink to a link of the layer below", "hard x = out/file"),
    (
        "link out, then through it",
        "symlink s -> ../canary\nfile s/file \"x\"\ndir s/dir 0000",
    ),
    (
        "link out, absolute",
        "symlink s -> /run/canary\nfile s/file \"x\"\nwhiteout s/link",
    ),
    (
        "link out, then whiteouts",
        "symlink s -> ../canary\nwhiteout s/file\nopaque s",
    ),
    (
        "link out, then described",
        "symlink s -> ../canary\ndir s 0777 9:9 @99 {trusted.k=x}",
    ),
    (
        "links, a chain out",
        "symlink a1 -> b1\nsymlink b1 -> c1\nsymlink c1 -> ..\nfile a1/canary/file \"x\"",
    ),
    ("links, a loop", "symlink p -> q\nsymlink q -> p\nfile p/x"),
    (
        "links, swapped",
        "dir d\nfile d/x\nsymlink d -> ../canary\nfile d/file \"x\"\nfile d\nsymlink d -> /\nfile d/y",
    ),
    (
        "links, each up",
        "symlink u -> u2/..\nsymlink u2 -> u3/../..\nsymlink u3 -> ../../..\nfile u/canary/file",
    ),
    (
        "a link in the place of the root",
        "symlink . -> ../canary\nfile file \"x\"",
    ),
    ("a file in the place of the root", "file . \"x\""),
    (
        "magic link, root",
        "symlink m -> /proc/self/root/run/canary\nfile m/file \"x\"",
    ),
    (
        "magic link, cwd",
        "symlink m -> /proc/self/cwd/run/canary\nfile m/file \"x\"",
    ),
    (
        "magic link, fd",
        "symlink m -> /proc/self/fd/3/../canary\nfile m/file \"x\"\nhard n = m/file",
    ),
    (
        "devices",
        "block sda 0666 8:0\nfile sda \"x\"\nchar mem 0666 1:1\nchar kmsg 1:11\nhard disk = sda\nfile disk/x",
    ),
    ("pipe", "fifo p\nfile p \"x\"\nhard q = p\nfile q/x"),
    ("a whiteout as a device", "char x 0:0\nfile x/y\nhard z = x"),
    (
        "odd names",
        "file \\n\nfile -rf\nfile a\\nb/\\x01\\xff \"1\"\nfile \\x1b[2J\nfile ...",
    ),
    (
        "odd links",
        "symlink n -> \\n\nsymlink e -> \\xff\\xfe\nfile n/x\nfile e/x",
    ),
    (
        "whiteouts, all kinds",
        "whiteout a\nwhiteout l\nwhiteout nothing/at/all\nopaque .\nopaque a/b\nwhiteout a/b/c",
    ),
    (
        "whiteouts of nothing",
        "file .wh.\nfile a/.wh..\nfile a/.wh...\nfile .wh..wh.aufs",
    ),
    (
        "whiteout, then children",
        "whiteout a\nfile a/b/x\nwhiteout a/b\nfile a/b/y\nopaque a",
    ),
    (
        "whiteout of whiteouts",
        "file .wh..wh.x\nwhiteout .wh.a\nwhiteout .wh..wh..opq",
    ),
    (
        "opaque through a link",
        "opaque l\nwhiteout l/c\nopaque out\nwhiteout out/file",
    ),
    (
        "types, one over another",
        "dir t\nfile t/x\nfile t\nsymlink t -> a\ndir t\nfifo t\nhard t = f\nblock t 1:1\ndir t/t\nfile t",
    ),
    (
        "hardlinks, a chain",
        "file h1 \"1\"\nhard h2 = h1\nfile h1 \"2\"\nhard h3 = h2\nhard h1 = h3\nwhiteout h2\nhard h2 = h2",
    ),
    (
        "overlayfs's attributes",
        "dir o {trusted.overlay.opaque=y} {trusted.overlay.redirect=/../../canary}\nfile o/m {trusted.overlay.metacopy=} {trusted.overlay.overlay.x=1}\nwhiteout o/n {trusted.overlay.whiteout=}",
    ),
    (
        "attributes, unusual",
        "file x1 {security.selinux=a} {system.posix_acl_access=x} {user.=} {nonsense=1}\nsymlink x2 {user.a=1} -> b\nfile x3 {security.capability=x}",
    ),
    (
        "modes",
        "dir m 0000\nfile m/s 7777 4294967294:4294967294\ndir m/d 7777 5:6\nfile m/d/f 0000 @-1.999999999",
    ),
    (
        "through the layer below",
        "file l/x\nfile a/b/c/x\nhard y = l/c\ndir f\nfile f/x\nfile l",
    ),
    (
        "the same again and again",
        "dir s 0700\ndir s 0711 {user.a=1}\ndir s\nfile s\nfile s \"2\"\ndir ./s/.//\nfile s/../s",
    ),
];

/// Those that lie in their headers.
fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let end = vec![0; 1024];
    let plain = |kind, name: &[u8], link: &[u8]| entry(kind, name, link, b"x", &[]);
    let pax = |records: &[u8], kind| [entry(b'x', b"p", b"", records, &[]), plain(kind, b"n", b"t")].concat();
    let all = |parts: &[Vec<u8>]| [parts.concat(), end.clone()].concat();
    let sized = |size: &[u8]| {
        let mut header = plain(b'0', b"n", b"");
        header[124..124 + size.len()].copy_from_slice(size);
        header
    };
    let deep = "d/".repeat(300);
    let many: Vec<u8> = (0..400)
        .flat_map(|n| record(format!("SCHILY.xattr.user.{n}").as_bytes(), &[b'v'; 40]))
        .collect();
    vec![
        (
            "NUL in a name",
            all(&[
                plain(b'0', b"../canary/file\0/ok", b""),
                pax(&record(b"path", b"a\0/../b"), b'0'),
            ]),
        ),
        (
            "NUL in a link",
            all(&[
                pax(&record(b"linkpath", b"..\0/x"), b'2'),
                pax(&record(b"linkpath", b"../canary\0"), b'1'),
            ]),
        ),
        (
            "GNU names that lead out",
            all(&[
                entry(b'L', b"l", b"", b"../../canary/file\0", &[]),
                entry(b'K', b"k", b"", b"/run/canary/file\0", &[]),
                plain(b'1', b"n", b"t"),
            ]),
        ),
        (
            "PAX names that lead out",
            all(&[pax(
                &[
                    record(b"path", b"../canary/file"),
                    record(b"linkpath", b"/run/canary/file"),
                ]
                .concat(),
                b'1',
            )]),
        ),
        ("PAX, deep", all(&[pax(&record(b"path", deep.as_bytes()), b'5')])),
        (
            "PAX, no length",
            all(&[
                pax(b"path=x\n", b'0'),
                pax(b"99999999999999999999 path=x\n", b'0'),
            ]),
        ),
        (
            "PAX, short and long lengths",
            all(&[
                pax(b"6 a=b\n0 \n", b'0'),
                pax(b"5 a=b\n", b'0'),
                pax(b"700 a=b\n", b'0'),
            ]),
        ),
        (
            "PAX, numbers",
            all(&[pax(
                &[
                    record(b"uid", b"-1"),
                    record(b"gid", b"4294967295"),
                    record(b"mtime", b"-9223372036854775808.999999999999"),
                    record(b"size", b"9223372036854775807"),
                ]
                .concat(),
                b'0',
            )]),
        ),
        (
            "PAX, times",
            all(&[
                pax(&record(b"mtime", b"1e9"), b'0'),
                pax(&record(b"mtime", b"9999999999999999999"), b'0'),
                pax(&record(b"mtime", b".5"), b'5'),
            ]),
        ),
        (
            "PAX, many attributes",
            all(&[pax(&many, b'0'), pax(&many, b'5'), pax(&many, b'2')]),
        ),
        (
            "PAX upon PAX",
            all(&[
                vec![plain(b'x', b"p", b""); 20].concat(),
                vec![entry(b'g', b"g", b"", &record(b"path", b"../x"), &[]); 20].concat(),
                plain(b'0', b"n", b""),
            ]),
        ),
        (
            "PAX, said to be large",
            all(&[{
                let mut header = entry(b'x', b"p", b"", b"", &[]);
                header[124..136].copy_from_slice(b"00004000001\0");
                header
            }]),
        ),
        ("sizes", all(&[sized(b"77777777777\0")])),
        (
            "sizes in base 256",
            all(&[sized(&[
                0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ])]),
        ),
        ("sizes below zero", all(&[sized(&[0xff; 12])])),
        (
            "sizes of a link and a directory",
            all(&[
                entry(b'2', b"s", b"t", &[b'x'; 600], &[]),
                entry(b'5', b"d", b"", &[b'x'; 600], &[]),
            ]),
        ),
        (
            "types",
            all(&(0..=255)
                .step_by(5)
                .map(|kind| plain(kind, b"k", b"f"))
                .collect::<Vec<_>>()),
        ),
        (
            "lone zeros",
            [vec![0; 512], plain(b'0', b"n", b""), end.clone()].concat(),
        ),
        ("cut", plain(b'0', b"n", b"")[..700].to_vec()),
    ]
}

/// Sparse maps, in each of the four forms.
fn sparse() -> Vec<(&'static str, Vec<u8>)> {
    let end = vec![0; 1024];
    let file = |records: &[(&[u8], &[u8])], data: &[u8]| {
        [entry(b'0', b"s", b"", data, records), end.clone()].concat()
    };
    let map = "9223372036854775806,1,1,1,".repeat(50) + "0,4";
    let mut old = entry(b'S', b"s", b"", b"data", &[]);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[386..410].copy_from_slice(b"00000000000\x0000000000004\0");
    old[482] = 1;
    old[483..495].copy_from_slice(b"77777777777\0");
    vec![
        (
            "sparse 0.0",
            file(
                &[
                    (b"GNU.sparse.size", b"1000000000000"),
                    (b"GNU.sparse.numblocks", b"2"),
                    (b"GNU.sparse.offset", b"5"),
                    (b"GNU.sparse.numbytes", b"4"),
                    (b"GNU.sparse.offset", b"999999999999"),
                    (b"GNU.sparse.numbytes", b"0"),
                ],
                b"data",
            ),
        ),
        (
            "sparse 0.1",
            file(
                &[
                    (b"GNU.sparse.size", b"9223372036854775807"),
                    (b"GNU.sparse.map", map.as_bytes()),
                    (b"GNU.sparse.name", b"../canary/file"),
                ],
                b"data",
            ),
        ),
        (
            "sparse 1.0",
            file(
                &[
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.realsize", b"1000000"),
                    (b"GNU.sparse.name", b"/run/canary/x"),
                ],
                &[b"1\n7\n4\n".as_slice(), &[0; 506], b"data"].concat(),
            ),
        ),
        (
            "sparse 1.0, no end",
            file(
                &[
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.realsize", b"10"),
                ],
                &"1048576\n".repeat(600).into_bytes(),
            ),
        ),
        (
            "sparse, old",
            [old.clone(), vec![b'7'; 512], end.clone()].concat(),
        ),
        (
            "sparse, old, blocks upon blocks",
            [
                old,
                {
                    let mut block = vec![0; 512];
                    block[504] = 1;
                    block.repeat(30)
                },
                end.clone(),
            ]
            .concat(),
        ),
    ]
}

/// Bombs, and what is only half compressed.
fn blobs() -> Vec<(&'static str, Vec<u8>)> {
    let tar = archive("dir a\nfile a/b \"text\"\nwhiteout l");
    let zeros = vec![0; 2 * ARCHIVE_LIMIT_BYTES as usize];
    let file_of_zeros = entry(b'0', b"zeros", b"", &zeros, &[]);
    let window = |exponent: u8| vec![0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 19).unwrap();
    let members = [gzip(&tar[..512]), gzip(b""), gzip(&tar[512..])].concat();
    vec![
        ("gzip", gzip(&tar)),
        ("gzip, members", members),
        ("gzip, then noise", [gzip(&tar), b"noise".to_vec()].concat()),
        ("gzip of zeros", gzip(&zeros)),
        ("gzip of a file of zeros", gzip(&file_of_zeros)),
        ("gzip, cut", gzip(&tar)[..40].to_vec()),
        ("gzip in gzip", gzip(&gzip(&tar))),
        ("zstd", zstd(&tar)),
        ("zstd of zeros", zstd(&zeros)),
        ("zstd of a file of zeros", zstd(&file_of_zeros)),
        ("zstd, the largest window", window(17)),
        ("zstd, a larger window", window(31)),
        (
            "zstd, frames",
            [
                zstd(&tar[..512]),
                vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9],
                zstd(&tar[512..]),
            ]
            .concat(),
        ),
        (
            "zstd, a long skippable frame",
            vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff],
        ),
        ("nothing", Vec::new()),
    ]
}
