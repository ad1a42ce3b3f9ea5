//! Layers that are not what the image says.

use super::*;

/// One thing is wrong, everything else is right: exactly that is said. Small layers go through one thread,
/// large ones through four.
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
                    "the blob's digest is {}, not {blob_digest}: the source's copy is damaged",
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
                    "the blob ends after {} of {} bytes: the source's copy or the connection is damaged",
                    blob.len() - 1,
                    blob.len()
                ),
            ),
            (
                "empty",
                vec![],
                good.clone(),
                format!(
                    "the blob ends after 0 of {} bytes: the source's copy or the connection is damaged",
                    blob.len()
                ),
            ),
            (
                "one byte more",
                [&blob, b"\0".as_slice()].concat(),
                good.clone(),
                format!(
                    "the blob is longer than its {} bytes: the source's copy is damaged",
                    blob.len()
                ),
            ),
            (
                "damaged on the way",
                broken.clone(),
                good.clone(),
                format!(
                    "the blob's digest is {}, not {blob_digest}: the source's copy is damaged",
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
                ..Options::default()
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
    // Nothing of it is stored: zeros after the archive's end.
    let tar = vec![0; 40 << 20];
    let blob = gzip(&tar);
    let layer = layer_of(&blob, &tar, 0);
    for (limit, expected) in [
        (tar.len() as u64, None),
        (tar.len() as u64 - 1, Some("larger than 41943039 bytes")),
    ] {
        let options = Options {
            archive_limit_bytes: Some(limit),
            ..Options::default()
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
