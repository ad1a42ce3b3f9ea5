//! The scenario that Landfall is for, in a machine that has nothing else: a ramdisk of Landfall and kernel
//! modules installs an image of more than 100 layers onto a disk, which other people's tools then check, and
//! which boots. A second one has no network, and all that makes disks hard: large sectors, what others left
//! on them, an old config drive on the stick that the image comes from. A third one encrypts its root, and a
//! fourth one boots a unified kernel image.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use lab::registry::Registry;
use lab::scenario::{self, Installation};
use lab::vm::knocking::Knocking;
use lab::vm::{self, Disk};
use lab::{apt, command, config_drive, fixture, product};
use tempfile::TempDir;

/// What every scenario has: an image in a registry, and a disk.
struct Scene {
    landfall: PathBuf,
    registry: Option<Registry>,
    image: String,
    digest: String,
    disk: Disk,
    directory: TempDir,
}

impl Scene {
    /// With the fixture's image `tag`; `None`, and said so, where this machine can't run it.
    fn set(tag: &str, disk_mib: u64) -> Result<Option<Self>> {
        if let Some(reason) = what_is_missing() {
            lab::cannot_run("the scenario in a virtual machine", &reason)?;
            return Ok(None);
        }
        let registry = Registry::start()?;
        let digest = registry.place(&fixture::layout()?, tag, "os/fixture:1")?;
        let directory = lab::tempdir()?;
        Ok(Some(Self {
            landfall: product::build()?,
            image: format!("{}/os/fixture:1", registry.host_for_vm()),
            digest: digest.to_string(),
            disk: Disk::create(&directory.path().join("disk.img"), disk_mib)?,
            registry: Some(registry),
            directory,
        }))
    }

    fn installation(&self) -> Installation<'_> {
        Installation::new(&self.landfall, &self.image, &self.disk)
    }

    fn config_drive(&self) -> Result<PathBuf> {
        let drive = self.directory.path().join("config-drive.iso");
        config_drive::create(&drive, config_drive::FILES)?;
        Ok(drive)
    }

    /// Ironic's JSON for a config drive.
    fn json(&self) -> Result<PathBuf> {
        let drive = self.directory.path().join("config-drive.json");
        fs::write(&drive, JSON)?;
        Ok(drive)
    }

    fn tpm(&self) -> Result<PathBuf> {
        let state = self.directory.path().join("tpm");
        fs::create_dir(&state)?;
        Ok(state)
    }
}

#[track_caller]
fn assert_says(text: &str, expected: &[&str]) {
    for each in expected {
        assert!(text.contains(each), "{each:?} is not in what was said:\n{text}");
    }
}

fn what_is_missing() -> Option<String> {
    let missing = apt::missing(&[
        "qemu-system-x86",
        "ovmf",
        "docker-registry",
        "mmdebstrap",
        "swtpm",
    ]);
    (!missing.is_empty()).then(|| format!("{} missing; run `cargo xtask setup`", missing.join(", ")))
}

#[test]
fn a_machine_with_nothing_but_landfall_installs_many_layers_and_boots() -> Result<()> {
    let Some(scene) = Scene::set(fixture::MANY_LAYERS, 2048)? else {
        return Ok(());
    };
    let manifest = fixture::layout()?.manifest(fixture::MANY_LAYERS)?;
    let layers = manifest["layers"].as_array().map_or(0, Vec::len);
    assert!(layers >= 100, "{layers} layers");
    let drive = scene.config_drive()?;
    let installation = Installation {
        config_drive: Some(&drive),
        arguments: "landfall.tls-verify=0 landfall.args=\"--karg landfall-test=yes\"",
        echo: "vm: ",
        ..scene.installation()
    };
    let last_words = [
        &format!("@{} on {} in ", scene.digest, scene.disk.device())[..],
        "landfall: installed; powering off",
    ];
    assert_says(&installation.run()?, &last_words);
    for line in scenario::check_disk(&scene.disk, Some(&drive))? {
        println!("{line}");
    }

    let (marker, transcript) = installation.boot()?;
    let built = format!("image={} digest={} ", scene.image, scene.digest);
    assert_says(&marker, &[&built]);
    assert_says(
        &transcript,
        &[
            "landfall-test=yes",
            "node-17.lab",
            "greetings-from-the-config-drive",
        ],
    );
    Ok(())
}

/// Ironic's JSON for a config drive; what is in it is what the other scenario's files say.
const JSON: &str = r##"{
    "meta_data": {"uuid": "2f1a2f3c-2d0c-4b8b-9f55-6f0d2f6a5d10", "hostname": "node-18.lab", "name": "node-18"},
    "user_data": "#cloud-config\nruncmd: [echo, greetings-from-the-json]\n"
}"##;

/// A GPT, and in its partitions what LVM and software RAID leave behind.
fn leave_behind(disk: &Disk) -> Result<()> {
    let sector = disk.logical_sector_size().to_string();
    let two_partitions = b"g\nn\n1\n\n+100M\nn\n2\n\n+100M\nw\n";
    let mut fdisk = Command::new("fdisk");
    command::filter(
        fdisk.args(["--sector-size", &sector]).arg(&disk.path),
        two_partitions,
    )?;
    let file = fs::OpenOptions::new().write(true).open(&disk.path)?;
    let partition = |index: u64| (1 + 100 * index) << 20;
    file.write_all_at(b"LABELONE", partition(0) + 512)?;
    file.write_all_at(&[0xfc, 0x4e, 0x2b, 0xa9], partition(1) + 4096)?;
    Ok(())
}

/// A stick with an MBR: a config drive that somebody forgot, and a file system with the label STICK that has
/// the image.
fn stick(path: &Path, registry: &Registry, landfall: &Path) -> Result<Disk> {
    const SIZE_MIB: u64 = 512;
    let disk = Disk::create(path, SIZE_MIB)?;
    command::filter(
        Command::new("sfdisk").arg("--quiet").arg(path),
        b"label: dos\nstart=1MiB, size=32MiB, type=c\ntype=83\n",
    )?;
    let tree = path.with_extension("tree");
    fs::create_dir(&tree)?;
    let layout = format!("oci:{}:registry.lab/os/fixture:1", tree.join("images").display());
    let image = format!("{}/os/fixture:1", registry.host());
    command::run(Command::new(landfall).args(["pull", &image, "--tls-verify=false", "--to", &layout]))?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-L", "STICK", "-E", "offset=34603008", "-d"])
        .arg(&tree);
    command::run(mkfs.arg(path).arg(format!("{}M", SIZE_MIB - 33)))?;
    let drive = path.with_extension("iso");
    let files = [(
        "openstack/latest/meta_data.json",
        r#"{"uuid": "x", "hostname": "forgotten.lab"}"#,
    )];
    config_drive::create(&drive, &files)?;
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&fs::read(drive)?, 1 << 20)?;
    Ok(disk)
}

/// The image's installer put its entry first in the firmware's boot order, and Landfall put it last.
fn assert_kept_last(said: &str, variables: &Path) -> Result<()> {
    let list = |numbers: &[u16]| {
        let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:04X}")).collect();
        numbers.join(",")
    };
    let order = vm::variables::boot_order(variables)?;
    let (own, others) = order.split_last().context("the boot order is empty")?;
    assert!(!others.is_empty(), "there was no boot order to be kept");
    let by_the_image = [&[*own], others].concat();
    assert_says(
        said,
        &[
            &format!("BootOrder: {}", list(&by_the_image)),
            &format!("boot order: {}; the installed system is {own:04X}", list(&order)),
        ],
    );
    assert!(
        !said.contains("boot entries of the disk's previous installation may be left"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_used_disk_with_large_sectors_is_found_by_its_serial_number_and_boots_with_its_own_config_drive()
-> Result<()> {
    let Some(mut scene) = Scene::set(fixture::BOOTABLE, 2048)? else {
        return Ok(());
    };
    scene.disk = scene.disk.sector_size(4096);
    leave_behind(&scene.disk)?;
    let drive = scene.json()?;
    let path = scene.directory.path().join("stick.img");
    // What follows comes from the stick.
    let registry = scene.registry.take().expect("every scene has one");
    let stick = stick(&path, &registry, &scene.landfall)?;
    drop(registry);
    scene.image = "oci:LABEL=STICK/images".into();
    let variables = scene.directory.path().join("variables.fd");
    let installation = Installation {
        device: "landfall.device-hint=serial=landfall".into(),
        second: Some(&stick),
        config_drive: Some(&drive),
        variables: Some(&variables),
        arguments: "landfall.wipe \
                    landfall.args=\"--clear-stale-config-drives --boot-entry keep --root-size 1200MiB\"",
        echo: "used: ",
        ..scene.installation()
    };
    let said = installation.run()?;
    assert_says(
        &said,
        &[
            "will lose what it holds: a GPT with 2 partitions; 1: 100 MiB, LVM2_member; 2: 100 MiB, linux_raid_member",
            "the config drive becomes FAT",
            "removed the old config drive on partition 1 of /dev/v",
            "root: ext4, clean",
            "boot entries: the files of fixture.conf are there",
            "image on the disk: sha256:",
        ],
    );
    assert_kept_last(&said, &variables)?;
    assert!(!said.contains("changed firmware variables"), "{said}");
    let found = scenario::check_disk(&scene.disk, None)?.join("\n");
    assert_says(&found, &["TYPE=vfat LABEL=config-2"]);
    let left = fs::read(&stick.path)?;
    assert!(
        left[1 << 20..33 << 20].iter().all(|byte| *byte == 0),
        "the old config drive is still there"
    );

    let (_, transcript) = installation.boot()?;
    // The firmware knows the entry.
    let started = "\"Fixture\" from HD(2,GPT,";
    assert_says(&transcript, &[started, "node-18.lab", "greetings-from-the-json"]);
    assert!(!transcript.contains("forgotten.lab"), "{transcript}");
    Ok(())
}

#[test]
fn an_encrypted_root_on_large_sectors_is_unlocked_by_the_tpm_alone() -> Result<()> {
    let Some(mut scene) = Scene::set(fixture::ENCRYPTED, 3072)? else {
        return Ok(());
    };
    scene.disk = scene.disk.sector_size(4096);
    let (drive, tpm) = (scene.json()?, scene.tpm()?);
    let installation = Installation {
        tpm: Some(&tpm),
        config_drive: Some(&drive),
        memory_mib: 1536,
        arguments: "landfall.tls-verify=0 landfall.args=\"--block-setup tpm2-luks --boot-entry next\"",
        echo: "luks: ",
        ..scene.installation()
    };
    assert_says(
        &installation.run()?,
        &[
            "root: LUKS, unlocked by a TPM 2.0",
            "boot entries: the files of fixture.conf are there",
            "the config drive becomes FAT",
            // The firmware has no room for changes by then, which is no reason to give up the disk.
            "the image removed or changed firmware variables: removed again: Fill",
            "the firmware's boot order is not as requested",
            "; the disk is installed and verified",
            "the installer ended with status 5",
        ],
    );
    assert_says(
        &scenario::check_disk(&scene.disk, None)?.join("\n"),
        &[
            "boot: TYPE=ext4 LABEL=boot",
            "root: TYPE=crypto_LUKS LABEL=- unlocked by the TPM alone",
            "TYPE=vfat LABEL=config-2",
        ],
    );

    let (marker, transcript) = installation.boot()?;
    assert_says(&marker, &[&format!("digest={} ", scene.digest)]);
    assert_says(
        &transcript,
        &["root: /dev/dm-0", "node-18.lab", "greetings-from-the-json"],
    );
    Ok(())
}

/// The image's installer removed all boot entries and spoiled what it could, and Landfall has put it back,
/// `others` being in the boot order what is not its own: by what the firmware itself has written down.
fn assert_put_back(said: &str, variables: &Path, others: &[u16]) -> Result<()> {
    let versions = |name: &str| vm::variables::versions(variables, name);
    let orders = versions("BootOrder")?;
    let spoiled = orders.iter().position(|version| version.content == [0x99, 0x99]);
    let spoiled = spoiled.context("the image did not spoil the boot order")?;
    assert_eq!(others, vm::variables::numbers(&orders[spoiled - 1].content));
    assert!(!others.is_empty(), "there was no boot order");

    let names: Vec<_> = others.iter().map(|number| format!("Boot{number:04X}")).collect();
    for name in names.iter().map(String::as_str).chain(["Timeout"]) {
        let mut versions = versions(name)?;
        let last = versions.pop().with_context(|| format!("{name} is gone"))?;
        // Not the image's.
        versions.retain(|version| version.content != [0x99, 0]);
        let before = versions
            .last()
            .with_context(|| format!("{name} was never removed"))?;
        assert!(last.is_valid && !before.is_valid, "{name}: {last:?}, {before:?}");
        assert_eq!(last.content, before.content, "{name}");
    }
    let junk = versions("Junk")?;
    assert!(matches!(&junk[..], [junk] if !junk.is_valid), "{junk:?}");
    assert_says(
        said,
        &[&format!(
            "firmware variables: put back: {}, BootOrder, Timeout; removed again: Junk-",
            names[0]
        )],
    );
    Ok(())
}

/// What `/init` says when the network goes, and when it comes again.
const NETWORK: [&str; 2] = [
    "landfall: network interfaces are down",
    "landfall: network interfaces are up again",
];

/// What the program saw that was the ramdisk's shell: settings, network, files, and what is below the root.
fn assert_left_in_order(said: &str) {
    assert_says(
        said,
        &[
            "look: kernel/core_pattern is /dev/null/core",
            "look: fs/suid_dumpable is 0",
            "look: kernel/dmesg_restrict is 1",
            "look: kernel/kptr_restrict is 2",
            // 10.0.2.2 and 10.0.2.0, as the kernel writes them.
            " 00000000 0202000A ",
            " 0002000A 00000000 ",
            "look: in the root: /init",
            "look: in the root: /etc/containers/certs.d/registry.lab",
            "look: the bottom cannot be written to: Read-only file system",
        ],
    );
    for gone in [
        "look: at the bottom",
        ": /auth.json",
        "node.key",
        ": /config-drive",
    ] {
        assert!(!said.contains(gone), "{gone:?} is there:\n{said}");
    }
}

#[test]
fn an_image_with_a_unified_kernel_image_gets_the_layout_of_composefs_and_boots_it() -> Result<()> {
    let Some(scene) = Scene::set(fixture::UNIFIED, 3072)? else {
        return Ok(());
    };
    let drive = scene.config_drive()?;
    let variables = scene.directory.path().join("variables.fd");
    let secrets = scene.directory.path().join("auth.json");
    fs::write(&secrets, "{}")?;
    let files = [
        (product::program("look")?, "bin/sh"),
        (secrets.clone(), "auth.json"),
        (secrets, "etc/containers/certs.d/registry.lab/node.key"),
    ];
    let mut installation = Installation {
        config_drive: Some(&drive),
        files: &files,
        variables: Some(&variables),
        // Nobody makes this link in the ramdisk.
        device: "landfall.device=/dev/disk/by-id/virtio-landfall".into(),
        arguments: "landfall.tls-verify=0 landfall.authfile=/auth.json landfall.after=shell \
                    landfall.args=\"--boot-entry first\"",
        echo: "uki: ",
        ..scene.installation()
    };
    let knocking = Knocking::start(&installation.log("install")?, NETWORK)?;
    installation.forwarded_port = Some(knocking.port());
    let said = installation.run()?;
    let [before, meanwhile] = knocking.end();
    assert!(before > 0, "the machine never had a network");
    assert_eq!(meanwhile, 0, "it had one while the image's programs ran");
    assert_left_in_order(&said);
    assert_says(
        &said,
        &[
            "boot entries: the files of bootc_fixture-",
            "root: ext4, clean",
            &format!("image on the disk: {}", scene.digest),
            // systemd-boot came without one.
            "boot order: ",
        ],
    );
    let order = vm::variables::boot_order(&variables)?;
    let (own, others) = order.split_first().context("the boot order is empty")?;
    assert!(!others.contains(own), "{order:?}");
    assert_put_back(&said, &variables, others)?;
    for line in scenario::check_disk(&scene.disk, Some(&drive))? {
        println!("{line}");
    }
    let esp = lab::gpt::partitions(&scene.disk)?;
    let esp = esp.iter().find(|partition| partition.name == "EFI-SYSTEM");
    assert_eq!(esp.map(|esp| esp.size_bytes), Some(1 << 30));

    let (marker, transcript) = installation.boot()?;
    assert_says(&marker, &[&format!("digest={} ", scene.digest)]);
    assert_says(
        &transcript,
        &[
            "\"Installed by Landfall\" from HD(2,GPT,",
            "unified kernel image of deployment ",
            "node-17.lab",
        ],
    );
    Ok(())
}

#[test]
fn a_failure_leaves_no_encrypted_volume_open_no_partition_table_and_no_spoiled_firmware() -> Result<()> {
    let Some(scene) = Scene::set(fixture::FAILS_HALFWAY, 3072)? else {
        return Ok(());
    };
    let tpm = scene.tpm()?;
    let variables = scene.directory.path().join("variables.fd");
    let installation = Installation {
        tpm: Some(&tpm),
        variables: Some(&variables),
        arguments: "landfall.tls-verify=0 landfall.args=\"--block-setup tpm2-luks\"",
        echo: "fails: ",
        ..scene.installation()
    };
    let said = installation.attempt()?;
    assert_says(
        &said,
        &[
            "the image's bootc failed with exit status 3",
            "closed /dev/mapper/root, which the installation left open",
        ],
    );
    assert_eq!(lab::gpt::partitions(&scene.disk)?, []);
    assert_put_back(&said, &variables, &vm::variables::boot_order(&variables)?)
}
