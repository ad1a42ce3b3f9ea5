//! Images without a registry: layouts and archives, as skopeo writes them.

use std::path::Path;
use std::process::Command;

use futures_util::TryStreamExt;
use lab::image::{self, Compression, Entry, Flavor, Layer, Layout};
use landfall::{Hasher, Image, ImageName, Opened, Options, Platform};

fn sample(compression: Compression) -> image::Image {
    let layer = |name: &str| Layer::new([Entry::file(name, name.repeat(200_000))]).compressed(compression);
    image::Image::new().layer(layer("below")).layer(layer("above"))
}

fn layout(folder: &Path) -> Layout {
    let layout = Layout::create(&folder.join("layout")).unwrap();
    layout.add(&sample(Compression::Gzip), "gzip").unwrap();
    layout.add(&sample(Compression::Zstd), "zstd").unwrap();
    let both = [
        sample(Compression::Gzip).architecture("arm64"),
        sample(Compression::Gzip),
    ];
    layout.add_index(&both, Flavor::Oci, "index").unwrap();
    layout
}

fn skopeo(from: &str, to: &str) {
    let copy = ["--insecure-policy", "copy", "--quiet", from, to];
    lab::command::run(Command::new("skopeo").args(copy)).unwrap();
}

async fn find(name: &str) -> anyhow::Result<(Opened, Image)> {
    let name: ImageName = name.parse()?;
    let opened = name.open(&Options::default(), None).await?;
    let image = opened
        .resolve(&"linux/amd64".parse::<Platform>().unwrap())
        .await?;
    Ok((opened, image))
}

/// Reads every layer, from its beginning and from its middle.
async fn check_layers(opened: &Opened, image: &Image) {
    assert_eq!(image.layers.len(), 2);
    for layer in &image.layers {
        let read = async |offset| {
            let stream = opened.source.blob(&layer.blob, offset).await.unwrap();
            stream.try_collect::<Vec<_>>().await.unwrap().concat()
        };
        let whole = read(0).await;
        let mut hasher = Hasher::like(layer.blob.digest()).unwrap();
        hasher.update(&whole);
        assert_eq!(hasher.finish(), *layer.blob.digest());
        assert_eq!(read(whole.len() as u64 / 2).await, whole[whole.len() / 2..]);
        assert_eq!(read(whole.len() as u64).await, b"");
    }
}

#[tokio::test]
async fn layouts_and_archives_give_what_they_hold() {
    let folder = lab::tempdir().unwrap();
    let layout = layout(folder.path());
    let place = layout.path().display().to_string();
    let (archive, saved) = (folder.path().join("web.tar"), folder.path().join("saved.tar"));
    skopeo(
        &format!("oci:{place}:gzip"),
        &format!("oci-archive:{}:1.4", archive.display()),
    );
    skopeo(
        &format!("oci:{place}:gzip"),
        &format!("docker-archive:{}:reg.lab/web:2", saved.display()),
    );
    let digest = layout.resolve("zstd").unwrap().to_string();
    for (name, called) in [
        (format!("oci:{place}:gzip"), "localhost/layout:gzip"),
        (format!("oci:{place}:zstd"), "localhost/layout:zstd"),
        (format!("oci:{place}:index"), "localhost/layout:index"),
        (format!("oci:{place}@{digest}"), "localhost/layout:zstd"),
        (format!("oci-archive:{}", archive.display()), "localhost/web:1.4"),
        (
            format!("oci-archive:{}:1.4", archive.display()),
            "localhost/web:1.4",
        ),
        (format!("docker-archive:{}", saved.display()), "reg.lab/web:2"),
        (
            format!("docker-archive:{}:reg.lab/web:2", saved.display()),
            "reg.lab/web:2",
        ),
    ] {
        let (opened, image) = find(&name).await.unwrap();
        assert_eq!(image.reference.to_string(), called, "{name}");
        check_layers(&opened, &image).await;
    }
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let folder = lab::tempdir().unwrap();
    let layout = layout(folder.path());
    let place = layout.path().display().to_string();
    let zstd = layout.resolve("zstd").unwrap();
    image::flip_byte(&layout.blob(&zstd), 3).unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(folder.path().join("text"), "no archive\n".repeat(100)).unwrap();
    for (name, expected) in [
        (
            format!("oci:{place}"),
            "has several images: choose one with :TAG or @DIGEST (gzip, zstd, index)",
        ),
        (
            format!("oci:{place}:none"),
            "has no image named \"none\"; it has gzip, zstd, index",
        ),
        (
            format!("oci:{place}:zstd"),
            "does not match its digest: copy it again",
        ),
        (format!("oci:{}", empty.display()), "is not an OCI image layout"),
        (
            format!("oci:{}", folder.path().join("missing").display()),
            "No such file",
        ),
        (
            format!("oci-archive:{}", folder.path().join("text").display()),
            "it is not a tar archive",
        ),
        (
            format!("docker-archive:{}", folder.path().join("text").display()),
            "it is not a tar archive",
        ),
    ] {
        let error = format!("{:#}", find(&name).await.err().expect(&name));
        assert!(
            error.contains(expected) && !error.contains('\n'),
            "{name}: {error}"
        );
    }
    let (opened, image) = find(&format!("oci:{place}:gzip")).await.unwrap();
    let blob = image.layers[0].blob.clone();
    let path = layout.path().join("blobs/sha256").join(blob.digest().digest());
    image::truncate(&path, 10).unwrap();
    let error = format!("{:#}", opened.source.blob(&blob, 0).await.err().unwrap());
    assert!(error.contains("has 10 bytes instead of"), "{error}");
}
