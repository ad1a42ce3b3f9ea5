//! Images with device nodes and pipes where files should be: they open nothing, and nobody waits for them.

mod support;

use std::fs;
use std::process::Command;

use lab::image::{Entry, Layer};
use support::{GIB, Lab, LoopDisk, installable, landfall, output};
use tar::EntryType;

/// A layer with one thing that is no file.
fn node(path: &str, kind: EntryType, (major, minor): (u32, u32)) -> Layer {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(0);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, std::io::empty()).unwrap();
    Layer::of_tar(archive.into_inner().unwrap())
}

fn number_of(disk: &LoopDisk) -> (u32, u32) {
    let numbers = output(Command::new("stat").args(["-c", "%Hr %Lr"]).arg(&disk.device));
    let (major, minor) = numbers.trim().split_once(' ').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

#[test]
fn device_nodes_of_an_image_open_nothing() {
    let lab = Lab::new();
    let disk = lab.disk(1 << 20);
    fs::write(&disk.device, "canary of the disk").unwrap();
    let before = disk.hash();
    let tools = ["ls", "dd", "head"].map(|name| Entry::symlink(format!("usr/bin/{name}"), "busybox"));
    let image = installable("exit 0")
        .layer(node("usr/node", EntryType::Block, number_of(&disk)))
        .layer(Layer::new(tools));
    lab.layout.add(&image, "node").unwrap();
    let image = lab.place("node");
    let run = |script: &str| landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", script]);
    let there = run("ls -l /usr/node");
    assert!(there.stdout.starts_with('b'), "{there:#?}");
    let read = run("head -c 18 /usr/node");
    assert!(
        read.code != Some(0) && !read.stdout.contains("canary"),
        "{read:#?}"
    );
    let written = run("dd if=/usr/bin/busybox of=/usr/node bs=512 count=1");
    assert_ne!(written.code, Some(0), "{written:#?}");
    assert_eq!(disk.hash(), before);
}

#[test]
fn what_should_be_a_file_and_is_none_is_said() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let before = disk.hash();
    for (kind, number) in [
        (EntryType::Fifo, (0, 0)),
        (EntryType::Block, number_of(&disk)),
        // No driver has this one: who opened it would be told so.
        (EntryType::Char, (4000, 4000)),
    ] {
        for (path, expected) in [
            ("usr/bin/bootc", "bootc"),
            (
                "boot/EFI/Linux/x.efi",
                "/boot/EFI/Linux/x.efi of the image is not a file",
            ),
        ] {
            let image = installable("exit 0").layer(node(path, kind, number));
            lab.layout.add(&image, "odd").unwrap();
            let ran = landfall(disk.install(&lab.place("odd"), &[]));
            assert_eq!(ran.code, Some(3), "{path} {kind:?} {ran:#?}");
            assert!(ran.error().contains(expected), "{path} {kind:?} {ran:#?}");
        }
    }
    assert_eq!(disk.hash(), before);
}

/// All that is looked at before bootc runs, or read by what Landfall itself brings.
#[test]
fn pipes_are_not_waited_for() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let image = [
        "usr/lib/ostree/prepare-root.conf",
        "usr/lib/bootupd/updates/EFI.json",
        "usr/lib/os-release",
        "usr/lib/bootc/install/00-odd.toml",
        "usr/lib/bootc/bound-images.d",
        "etc/containers/policy.json",
        "etc/containers/registries.conf.d/zz-landfall.conf",
        "etc/passwd",
        "etc/resolv.conf",
        "boot/EFI/Linux",
        "usr/bin/bootupctl",
    ];
    let image = image
        .into_iter()
        .fold(installable("echo bootc ran; exit 3"), |image, path| {
            image.layer(node(path, EntryType::Fifo, (0, 0)))
        });
    lab.layout.add(&image, "pipes").unwrap();
    let image = lab.place("pipes");
    // What is no program counts as missing.
    let ran = landfall(disk.install(&image, &[]));
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    let host = landfall(disk.install(&image, &["--network", "host"]));
    assert_eq!(host.code, Some(3), "{host:#?}");
    let ran = landfall([
        "run",
        &image,
        "--tls-verify=false",
        "--",
        "cat",
        "/etc/containers/storage.conf",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
}
