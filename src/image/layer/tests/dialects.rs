//! The forms that archives come in.

use super::*;

/// The header of an empty file, which has its name and its type already.
fn empty_file(mut header: tar::Header) -> Vec<u8> {
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn archives_of_every_dialect() {
    let place = Place::new();
    let data = b"data".as_slice();
    let v7 = |name: &[u8], kind| {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[156] = kind;
        empty_file(header)
    };
    let prefixed = {
        let mut header = tar::Header::new_ustar();
        header
            .set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90)))
            .unwrap();
        empty_file(header)
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
    settle(&layers, &|| true).unwrap();
    let merged = place.path("merged");
    fs::create_dir(&merged).unwrap();
    merge(layers, &merged, &|| true).unwrap();
    let parent = path::RelativePath::clean(parent.as_bytes()).unwrap();
    let parent = directory::open_directory(directory::open_root(&merged).unwrap(), &parent).unwrap();
    let found = |name: &str| directory::look(&parent, name.as_bytes()).unwrap().unwrap();
    assert_eq!(found(&"f".repeat(127)).st_nlink, 2);
    assert_eq!(found(&"f".repeat(127)).st_ino, found(&"l".repeat(127)).st_ino);
    assert_eq!(directory::names(&parent).unwrap().len(), 3);
    remove_all(&merged).unwrap();
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
