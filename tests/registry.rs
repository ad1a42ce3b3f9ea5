//! Pulls from a real registry: Debian's docker-registry, as labs set it up.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::TryStreamExt;
use lab::image::{self, Compression, Entry, Flavor, Layer, Layout};
use lab::registry::Registry as Server;
use landfall::{Hasher, Image, Options, Platform, Policy, Reference, Registry, Source, resolve};

fn options() -> Options {
    let policy = Policy {
        retries: 1,
        first_wait: Duration::from_millis(1),
        ..Policy::default()
    };
    Options {
        policy,
        ..Options::default()
    }
}

fn plain() -> Options {
    Options {
        tls_verify: false,
        ..options()
    }
}

fn authfile(folder: &Path, host: &str, secret: &str) -> PathBuf {
    let path = folder.join("auth.json");
    let auth = STANDARD.encode(secret);
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)).unwrap();
    path
}

/// An image with a layer of each compression.
fn sample(architecture: &str, flavor: Flavor) -> image::Image {
    let layer = |name: &str| Layer::new([Entry::file(name, name.repeat(30_000))]);
    let image = image::Image::new().architecture(architecture).flavor(flavor);
    let image = image
        .layer(layer("gzip").compressed(Compression::Gzip))
        .layer(layer("plain"));
    match flavor {
        Flavor::Oci => image.layer(layer("zstd").compressed(Compression::Zstd)),
        Flavor::Docker => image,
    }
}

fn layout(folder: &Path) -> Layout {
    let layout = Layout::create(&folder.join("layout")).unwrap();
    layout.add(&sample("amd64", Flavor::Oci), "oci").unwrap();
    layout.add(&sample("amd64", Flavor::Docker), "docker").unwrap();
    for (flavor, tag) in [(Flavor::Oci, "index"), (Flavor::Docker, "list")] {
        let images = [sample("arm64", flavor), sample("amd64", flavor)];
        layout.add_index(&images, flavor, tag).unwrap();
    }
    layout
}

async fn find(name: &str, options: &Options) -> Result<(Registry, Image)> {
    let reference: Reference = name.parse()?;
    let registry = Registry::new(&reference, options)?;
    let image = resolve(&registry, &reference, &"linux/amd64".parse::<Platform>().unwrap()).await?;
    Ok((registry, image))
}

async fn error_of(name: &str, options: &Options) -> String {
    let error = format!("{:#}", find(name, options).await.err().expect("it must fail"));
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Reads all layers and compares them with their digests.
async fn check_layers(registry: &Registry, image: &Image) {
    for layer in &image.layers {
        let mut hasher = Hasher::like(layer.blob.digest()).unwrap();
        let mut stream = registry.blob(&layer.blob, 0).await.unwrap();
        while let Some(chunk) = stream.try_next().await.unwrap() {
            hasher.update(&chunk);
        }
        assert_eq!(hasher.finish(), *layer.blob.digest());
    }
}

#[tokio::test]
async fn every_shape_of_image_is_found_by_tag_and_by_digest() {
    let folder = lab::tempdir().unwrap();
    let layout = layout(folder.path());
    let server = Server::start().unwrap();
    for (tag, layers) in [("oci", 3), ("docker", 2), ("index", 3), ("list", 2)] {
        let digest = server.place(&layout, tag, &format!("os/web:{tag}")).unwrap();
        for name in [
            format!("os/web:{tag}"),
            format!("os/web@{digest}"),
            format!("os/web:{tag}@{digest}"),
        ] {
            let (registry, image) = find(&format!("{}/{name}", server.host()), &plain())
                .await
                .unwrap();
            assert_eq!(image.layers.len(), layers, "{name}");
            if tag == "oci" || tag == "docker" {
                assert_eq!(image.digest.to_string(), digest.to_string());
            }
            check_layers(&registry, &image).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let folder = lab::tempdir().unwrap();
    let server = Server::start().unwrap();
    server.place(&layout(folder.path()), "oci", "os/web:1").unwrap();
    let host = server.host();
    for (name, options, expected) in [
        (
            format!("{host}/os/web:2"),
            plain(),
            "404 Not Found (MANIFEST_UNKNOWN: manifest unknown): there is no such image: check its name and \
             tag",
        ),
        (format!("{host}/os/db:1"), plain(), "there is no such image"),
        (
            format!("{host}/os/web:1"),
            options(),
            "speaks plain HTTP, not TLS: allow that with --tls-verify=false",
        ),
        (
            "127.0.0.1:1/os/web:1".into(),
            options(),
            "refuses connections: check that it runs, and its port (tried 2 times)",
        ),
        ("127.0.0.1:1/os/web:1".into(), plain(), "refuses connections"),
        (
            "registry.invalid/os/web:1".into(),
            options(),
            "has no address: check its name, and this machine's DNS",
        ),
    ] {
        let error = error_of(&name, &options).await;
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(name.split('/').next().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_copy_is_refused() {
    let folder = lab::tempdir().unwrap();
    let layout = layout(folder.path());
    let server = Server::start().unwrap();
    let digest = server.place(&layout, "index", "os/web:1").unwrap();
    let inner = layout.reachable(&digest).unwrap();
    let manifests: Vec<_> = inner
        .iter()
        .filter(|(blob, manifest)| *manifest && *blob != digest)
        .collect();
    for (manifest, _) in manifests {
        image::flip_byte(&server.blob(manifest), 1).unwrap();
    }
    // The registry itself may notice; whoever does, the image isn't taken.
    let error = error_of(&format!("{}/os/web:1", server.host()), &plain()).await;
    assert!(error.contains("resolving"), "{error}");
}

#[tokio::test]
async fn passwords() {
    let folder = lab::tempdir().unwrap();
    let server = Server::builder().user("bob", "s3cret").start().unwrap();
    server.place(&layout(folder.path()), "oci", "os/web:1").unwrap();
    let name = format!("{}/os/web:1", server.host());
    let with = |secret: &str| Options {
        authfile: Some(authfile(folder.path(), &server.host(), secret)),
        ..plain()
    };
    let (registry, image) = find(&name, &with("bob:s3cret")).await.unwrap();
    check_layers(&registry, &image).await;

    let error = error_of(&name, &with("bob:wr0ng")).await;
    assert!(
        error.contains("401 Unauthorized (UNAUTHORIZED: authentication required)"),
        "{error}"
    );
    assert!(
        error.contains("user \"bob\"") && !error.contains("wr0ng"),
        "{error}"
    );
    let error = error_of(&name, &plain()).await;
    assert!(
        error.contains("no credentials were found for it: give them with --authfile or --pull-secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_private_authority() {
    let folder = lab::tempdir().unwrap();
    let server = Server::builder().user("bob", "s3cret").tls().start().unwrap();
    server.place(&layout(folder.path()), "oci", "os/web:1").unwrap();
    let name = format!("{}/os/web:1", server.host());
    let with_password = Options {
        authfile: Some(authfile(folder.path(), &server.host(), "bob:s3cret")),
        ..options()
    };

    let trusting = Options {
        ca_cert: server.ca().map(Into::into),
        ..with_password.clone()
    };
    let (registry, image) = find(&name, &trusting).await.unwrap();
    check_layers(&registry, &image).await;
    assert!(
        find(
            &name,
            &Options {
                tls_verify: false,
                ..with_password.clone()
            }
        )
        .await
        .is_ok()
    );

    let error = error_of(&name, &with_password).await;
    assert!(
        error.contains("not trusted (no known CA signed it)") && error.contains("--ca-cert"),
        "{error}"
    );
}

/// A server of TLS with a certificate that it has signed itself.
struct SelfSigned {
    server: Child,
    host: String,
    certificate: PathBuf,
}

impl SelfSigned {
    fn start(folder: &Path, extensions: [&str; 2]) -> Self {
        let (certificate, key) = (folder.join("self.crt"), folder.join("self.key"));
        let mut make = Command::new("openssl");
        make.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab", "-keyout",
        ]);
        make.arg(&key).arg("-out").arg(&certificate);
        for extension in extensions {
            make.args(["-addext", extension]);
        }
        lab::command::run(&mut make).unwrap();
        let mut serve = Command::new("openssl");
        serve.args(["s_server", "-accept", "127.0.0.1:0", "-cert"]);
        serve.arg(&certificate).arg("-key").arg(&key);
        serve
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut server = serve.spawn().unwrap();
        let said = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut accepts = said.filter_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(String::from));
        Self {
            host: accepts.next().unwrap(),
            server,
            certificate,
        }
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said() {
    let folder = lab::tempdir().unwrap();
    for (extensions, expected) in [
        (
            ["basicConstraints=CA:TRUE", "subjectAltName=IP:127.0.0.1"],
            "it is a CA certificate; a server needs one that the CA has signed",
        ),
        (
            ["basicConstraints=CA:FALSE", "subjectAltName=DNS:other.lab"],
            "use a name that is in it",
        ),
    ] {
        let server = SelfSigned::start(folder.path(), extensions);
        let trusting = Options {
            ca_cert: Some(server.certificate.clone()),
            ..options()
        };
        let error = error_of(&format!("{}/os/web:1", server.host), &trusting).await;
        assert!(error.contains(expected), "{error}");
    }
}
