//! The scenario that Landfall is for, in a machine that has nothing else: a ramdisk of Landfall and kernel modules
//! installs an image of more than 100 layers onto a disk, which other people's tools then check, and which boots.

use anyhow::Result;
use xtask::registry::Registry;
use xtask::scenario::{self, Installation};
use xtask::vm::Disk;
use xtask::{apt, config_drive, demo, fixture, suite};

#[test]
fn a_machine_with_nothing_but_landfall_installs_many_layers_and_boots() -> Result<()> {
    let missing = apt::missing(&["qemu-system-x86", "ovmf", "docker-registry", "mmdebstrap"]);
    if !missing.is_empty() {
        let reason = format!("{} missing; run `cargo xtask setup`", missing.join(", "));
        return suite::cannot_run("the scenario in a virtual machine", &reason);
    }
    let layout = fixture::layout()?;
    let layers = layout.manifest(fixture::MANY_LAYERS)?["layers"]
        .as_array()
        .map_or(0, Vec::len);
    assert!(layers >= 100, "{layers} layers");
    let registry = Registry::start()?;
    let digest = registry.place(&layout, fixture::MANY_LAYERS, "os/fixture:1")?;

    let directory = xtask::tempdir()?;
    let drive = directory.path().join("config-drive.iso");
    config_drive::create(&drive, config_drive::FILES)?;
    let disk = Disk::create(&directory.path().join("disk.img"), 2048)?;
    let image = format!("{}/os/fixture:1", registry.host_for_vm());
    let installation = Installation {
        landfall: &demo::build_landfall()?,
        image: &image,
        disk: &disk,
        config_drive: Some(&drive),
        memory_mib: 1024,
        arguments: "landfall.tls-verify=0 landfall.args=\"--karg landfall-test=yes\"",
        echo: Some("vm: "),
        log: None,
    };
    installation.run()?;
    for line in scenario::check_disk(&disk, Some(&drive))? {
        println!("{line}");
    }

    let (marker, transcript) = installation.boot()?;
    assert!(
        marker.contains(&format!("image={image} digest={digest} ")),
        "{marker}"
    );
    assert!(
        transcript.contains("landfall-test=yes"),
        "the kernel argument is missing:\n{transcript}"
    );
    assert!(
        transcript.contains("node-17.lab"),
        "the config drive was not read:\n{transcript}"
    );
    assert!(
        transcript.contains("greetings-from-the-config-drive"),
        "{transcript}"
    );
    Ok(())
}
