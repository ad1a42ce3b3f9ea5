//! The relay, asked by a real client that is configured as the image's own tools are: skopeo, with our
//! drop-in for its registries, our policy, and nothing else below `/etc/containers`.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use futures_util::TryStreamExt;
use lab::image::{self, Compression, Entry, Flavor, Layer, Layout};
use lab::registry::Registry as Server;
use landfall::{
    Blobs, Image, Options, Place, Platform, Reference, Registry, Relay, Source, policy_json, registries_conf,
    resolve,
};

/// The image's own name; no such host exists. It is as long as a name may be, so there is no room for more of
/// it where the relay is.
const NAME: &str = concat!(
    "registry.example.com/os/x-of-a-name-that-is-as-long-as-the-tools-of-containers-take-it/",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789/",
    "0123456789012345678901234567890123456789012345678901234567890123456"
);

fn sample(flavor: Flavor, compression: Compression) -> image::Image {
    let layer = |name: &str| Layer::new([Entry::file(name, name.repeat(50_000))]).compressed(compression);
    image::Image::new()
        .flavor(flavor)
        .layer(layer("below"))
        .layer(layer("above"))
}

/// The image as it is in a registry, but by the name that the installed system will know it by.
async fn pull(server: &Server, tag: &str) -> (Registry, Image) {
    let reference: Reference = format!("{}/os/x:{tag}", server.host()).parse().unwrap();
    let options = Options {
        tls_verify: false,
        ..Options::default()
    };
    let registry = Registry::new(&reference, &options).unwrap();
    let mut image = resolve(&registry, &reference, &Platform::host()).await.unwrap();
    image.reference = format!("{NAME}:{tag}").parse().unwrap();
    (registry, image)
}

/// `skopeo copy` with only `configuration` as its `/etc/containers`.
async fn copy(configuration: &Path, from: &str, to: &Path) -> Output {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "sh",
            "-euc",
            r#"mount --bind "$1" /etc/containers; exec skopeo copy "$2" "$3""#,
            "sh",
        ])
        .arg(configuration)
        .arg(format!("docker://{from}"))
        .arg(format!("oci:{}:copy", to.display()))
        .env_remove("CONTAINERS_REGISTRIES_CONF");
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn configure(folder: &Path, image: &Image, place: &Place) -> std::path::PathBuf {
    let configuration = folder.join("containers");
    fs::create_dir_all(configuration.join("registries.conf.d")).unwrap();
    fs::write(configuration.join("policy.json"), policy_json(image)).unwrap();
    // As distributions ship it: other places for short names, and one for ours.
    let shipped = "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"registry.example.com\"\n\
                   location = \"elsewhere.invalid\"\n";
    fs::write(configuration.join("registries.conf"), shipped).unwrap();
    let drop_in = registries_conf(&image.reference, place);
    fs::write(configuration.join("registries.conf.d/zz-landfall.conf"), drop_in).unwrap();
    configuration
}

fn place() -> Place {
    Place::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()
}

async fn cache(
    registry: &Registry,
    image: &Image,
    folder: &Path,
) -> HashMap<landfall::Digest, std::path::PathBuf> {
    let mut cached = HashMap::new();
    for layer in &image.layers {
        let path = folder.join(format!("layer-{}", layer.index));
        let chunks: Vec<_> = registry
            .blob(&layer.blob, 0)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        fs::write(&path, chunks.concat()).unwrap();
        cached.insert(layer.blob.digest().clone(), path);
    }
    cached
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_gets_the_image_by_its_own_name() {
    let folder = lab::tempdir().unwrap();
    let layout = Layout::create(&folder.path().join("layout")).unwrap();
    let server = Server::start().unwrap();
    for (tag, flavor, compression, cached) in [
        ("gzip", Flavor::Oci, Compression::Gzip, true),
        ("zstd", Flavor::Oci, Compression::Zstd, false),
        ("plain", Flavor::Oci, Compression::None, false),
        ("docker", Flavor::Docker, Compression::Gzip, false),
    ] {
        let folder = folder.path().join(tag);
        fs::create_dir(&folder).unwrap();
        layout.add(&sample(flavor, compression), tag).unwrap();
        server.place(&layout, tag, &format!("os/x:{tag}")).unwrap();
        let (registry, image) = pull(&server, tag).await;
        let files = if cached {
            cache(&registry, &image, &folder).await
        } else {
            HashMap::new()
        };
        let blobs = Blobs {
            cached: files,
            source: Some(Arc::new(registry)),
        };
        let image = Arc::new(image);
        let place = place();
        let relay = Relay::serve(&place, image.clone(), blobs).unwrap();
        let configuration = configure(&folder, &image, &place);

        let output = copy(&configuration, &image.name_by_digest(), &folder.join("copy")).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tag}: {errors}");
        let served = relay.shutdown().await;
        assert_eq!(served.failures, [""; 0], "{tag}");
        let (cache, source) = (served.bytes_from_cache, served.bytes_from_source);
        let (config, layers) = (image.config.len() as u64, image.compressed_bytes());
        assert_eq!(
            (cache, source),
            if cached {
                (config + layers, 0)
            } else {
                (config, layers)
            },
            "{tag}"
        );
        let copied = Layout::open(&folder.join("copy"));
        if flavor == Flavor::Oci && compression != Compression::None {
            assert_eq!(
                copied.resolve("copy").unwrap().to_string(),
                image.digest.to_string(),
                "{tag}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_gets_nothing_else() {
    let folder = lab::tempdir().unwrap();
    let layout = Layout::create(&folder.path().join("layout")).unwrap();
    let server = Server::start().unwrap();
    layout.add(&sample(Flavor::Oci, Compression::Gzip), "x").unwrap();
    server.place(&layout, "x", "os/x:x").unwrap();
    let (registry, image) = pull(&server, "x").await;
    let image = Arc::new(image);
    let blobs = Blobs {
        cached: HashMap::new(),
        source: Some(Arc::new(registry)),
    };
    let place = place();
    let relay = Relay::serve(&place, image.clone(), blobs).unwrap();
    let configuration = configure(folder.path(), &image, &place);
    let other_digest = format!("{NAME}@{}", landfall::sha256(b"other"));
    for (name, expected) in [
        (format!("{NAME}:x"), "rejected by policy"),
        (other_digest, "manifest unknown"),
    ] {
        let output = copy(&configuration, &name, &folder.path().join("copy")).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains(expected),
            "{name}: {errors}"
        );
    }
    assert_eq!(relay.shutdown().await.bytes_from_source, 0);
}
