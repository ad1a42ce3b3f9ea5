//! The registry as skopeo sees it: that what the other tests stand on is real.

use std::process::Command;

use anyhow::Result;
use lab::command;
use lab::image::{Compression, Entry, Flavor, Image, Layer, Layout, flip_byte};
use lab::registry::Registry;

fn layout(directory: &std::path::Path, flavor: Flavor) -> Result<Layout> {
    let layer = |name: &str, compression| Layer::new([Entry::file(name, name)]).compressed(compression);
    let image = Image::new().flavor(flavor).layer(layer("a", Compression::Gzip));
    let second = if flavor == Flavor::Oci {
        Compression::Zstd
    } else {
        Compression::None
    };
    let layout = Layout::create(directory)?;
    layout.add(&image.layer(layer("b", second)), "1.4")?;
    Ok(layout)
}

fn skopeo(registry: &Registry, arguments: &[&str], name: &str) -> Result<String> {
    let name = format!("docker://{}/{name}", registry.host());
    command::output(
        Command::new("skopeo")
            .args(["--insecure-policy"])
            .args(arguments)
            .arg(name),
    )
}

#[test]
fn pushed_by_skopeo_keeps_its_digest() -> Result<()> {
    let directory = lab::tempdir()?;
    let layout = layout(directory.path(), Flavor::Oci)?;
    let registry = Registry::start()?;
    registry.push(layout.path(), "1.4", "os/web:1.4")?;
    let shown = skopeo(&registry, &["inspect", "--tls-verify=false"], "os/web:1.4")?;
    assert!(shown.contains(&layout.resolve("1.4")?.to_string()), "{shown}");
    Ok(())
}

#[test]
fn placed_images_can_be_pulled_behind_tls_and_password() -> Result<()> {
    let directory = lab::tempdir()?;
    let registry = Registry::builder().user("ann", "secret").tls().start()?;
    for (flavor, name) in [(Flavor::Oci, "os/oci:1"), (Flavor::Docker, "os/docker:1")] {
        let layout = layout(directory.path(), flavor)?;
        let digest = registry.place(&layout, "1.4", name)?;
        let certificates = directory.path().join("certs");
        std::fs::create_dir_all(&certificates)?;
        std::fs::copy(registry.ca().expect("TLS is on"), certificates.join("ca.crt"))?;
        let certificates = certificates.display().to_string();
        let inspect = ["inspect", "--cert-dir", &certificates, "--creds", "ann:secret"];
        let shown = skopeo(&registry, &inspect, name)?;
        assert!(shown.contains(&digest.to_string()), "{shown}");
        let wrong = ["inspect", "--cert-dir", &certificates, "--creds", "ann:wrong"];
        assert!(skopeo(&registry, &wrong, name).is_err());
    }
    Ok(())
}

#[test]
fn damage_in_the_registry_is_served_and_leaves_the_layout_whole() -> Result<()> {
    let directory = lab::tempdir()?;
    let layout = layout(directory.path(), Flavor::Oci)?;
    let registry = Registry::start()?;
    let digest = registry.place(&layout, "1.4", "os/web:1.4")?;
    let (layer, _) = layout.reachable(&digest)?.swap_remove(1);
    let whole = std::fs::read(layout.blob(&layer))?;
    flip_byte(&registry.blob(&layer), -1)?;
    let target = format!("dir:{}", directory.path().join("copy").display());
    let source = format!("docker://{}/os/web:1.4", registry.host());
    let copy = [
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        &source,
        &target,
    ];
    assert!(command::run(Command::new("skopeo").args(copy)).is_err());
    assert_eq!(std::fs::read(layout.blob(&layer))?, whole);
    Ok(())
}
