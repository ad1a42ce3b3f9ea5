//! The targets `reference` and `manifest`: what a person, a boot configuration or a registry says of an
//! image.

use crate::image::oci::digest::sha256;
use crate::image::oci::image::{MAX_IMAGE_BYTES, MAX_LAYERS};
use crate::image::oci::manifest::{self, Document};
use crate::image::oci::{Image, Platform, Reference};
use crate::image::source::name::ImageName;

use super::shown::one_line;

pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<ImageName>() {
        Ok(name) => {
            let shown = name.to_string();
            assert_eq!(shown.parse(), Ok(name), "{shown:?} is no name of the same image");
        }
        Err(error) => one_line(&error),
    }
    match text.parse::<Reference>() {
        Ok(reference) => {
            let shown = reference.to_string();
            assert_eq!(
                shown.parse().as_ref(),
                Ok(&reference),
                "{shown:?} is another image"
            );
            let hostile = |c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c);
            assert!(
                !shown.contains(hostile) && !shown.contains("/../"),
                "{shown:?} is no part of a URL"
            );
        }
        Err(error) => one_line(&error),
    }
}

/// A manifest or an index, and after a NUL the config.
pub fn manifest(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0);
    let (document, config) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 1..]));
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    for content_type in [None, Some("application/vnd.oci.image.index.v1+json; charset=x")] {
        match manifest::parse(document, content_type) {
            Ok(Document::Index(index)) => {
                if let Err(error) = manifest::select(&index, &platform) {
                    one_line(&error);
                }
            }
            Ok(Document::Manifest(mut parsed)) => {
                let mut descriptor = parsed.config().clone();
                descriptor.set_digest(sha256(config));
                descriptor.set_size(config.len() as u64);
                parsed.set_config(descriptor);
                let reference = "reg.lab/os:1".parse().expect("a reference");
                let parts = (document.to_vec(), &*parsed);
                match Image::new(reference, sha256(document), parts, config.to_vec(), &platform) {
                    Ok(image) => {
                        assert!(image.layers.len() <= MAX_LAYERS);
                        assert!(image.compressed_bytes() <= MAX_IMAGE_BYTES);
                    }
                    Err(error) => one_line(&error),
                }
            }
            Err(error) => one_line(&error),
        }
    }
}

pub fn references() -> Vec<(&'static str, Vec<u8>)> {
    [
        ("tag", "reg.lab/os/web:1.4"),
        ("port", "reg.lab:5000/web"),
        ("address", "[::1]:5000/web:1"),
        ("localhost", "localhost/web"),
        ("both", "reg.lab/os/web:1@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        ("sha512", "reg.lab/web@sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"),
        ("scheme", "docker://reg.lab/web:1"),
        ("ironic", "oci://reg.lab/web:1"),
        ("a registry called oci", "oci://oci:5000/web"),
        ("layout", "oci:/mnt/stick/web:1"),
        ("digest in a layout", "oci:/mnt@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        ("stick", "oci:LABEL=STICK/images/web"),
        ("archive", "oci-archive:web.tar:1"),
        ("saved", "docker-archive:web.tar:reg.lab/web:2"),
        ("short", "fedora"),
        ("dots", "reg.lab/../web"),
        ("escape", "reg.lab/web%2f..:1"),
        ("query", "reg.lab/web?x=1#y"),
        ("user", "user:password@reg.lab/web"),
        ("lines", "reg.lab/web:1\n2"),
    ]
    .map(|(name, text)| (name, text.into()))
    .into()
}

pub fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let layer = |size: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":{size},"digest":"{DIGEST}"}}"#
        )
    };
    let manifest = |layers: &[String], rest: &str| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
            "digest":"{DIGEST}"}},"layers":[{}]{rest}}}"#,
            layers.join(",")
        )
    };
    let config = |diff_ids: usize| {
        let ids = vec![format!("{DIGEST:?}"); diff_ids].join(",");
        format!(
            r#"{{"os":"linux","architecture":"amd64","config":{{"Env":["A=b"]}},"rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
    };
    let small = layer("7");
    let huge = layer("18446744073709551615");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,
        "digest":"{DIGEST}","platform":{{"os":"linux","architecture":"amd64","variant":"v2"}}}}]}}"#
    );
    vec![
        (
            "image",
            [manifest(std::slice::from_ref(&small), ""), config(1)]
                .join("\0")
                .into(),
        ),
        (
            "sizes that overflow",
            [manifest(&[huge.clone(), huge], ""), config(2)].join("\0").into(),
        ),
        ("negative size", manifest(&[layer("-1")], "").into()),
        (
            "too few diff IDs",
            [manifest(&[small.clone(), small.clone()], ""), config(1)]
                .join("\0")
                .into(),
        ),
        (
            "artifact",
            [manifest(&[small], r#","artifactType":"text/x""#), "{}".into()]
                .join("\0")
                .into(),
        ),
        (
            "line end in a media type",
            manifest(&[], "")
                .replace(
                    "+json",
                    r"+json
next",
                )
                .into(),
        ),
        (
            "line end in a platform",
            index
                .replace(
                    "linux",
                    r"linux
next",
                )
                .into(),
        ),
        ("index", index.into()),
        ("schema 1", br#"{"schemaVersion":1,"fsLayers":[]}"#.into()),
        ("deep", "[".repeat(300).into()),
        (
            "deep inside",
            format!(r#"{{"schemaVersion":2,"manifests":{}"#, "[".repeat(300)).into(),
        ),
        ("empty", vec![]),
    ]
}
