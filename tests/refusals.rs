//! Whatever can go wrong before the image installs itself: one clear line, the right exit status, and a disk
//! without a changed byte.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab::able_kernel;
use lab::faulty::{Fault, Faulty, Rule};
use lab::image::{Compression, Entry, Image, Layer, flip_byte, truncate};
use lab::registry::Registry;
use support::{GIB, LANDFALL, Lab, LoopDisk, Ran, assert_nothing_left, landfall, noise, output};

const UNTOUCHED: Option<i32> = Some(3);

/// Tries to install onto `disk`, and checks that the disk stays as it is and that the error says `expected`.
fn refused(disk: &LoopDisk, image: &str, more: &[&str], expected: &str) {
    let before = disk.hash();
    let ran = landfall(disk.install(image, more));
    check(&ran, expected);
    assert_eq!(disk.hash(), before, "the disk was changed");
    assert_nothing_left();
}

fn check(ran: &Ran, expected: &str) {
    assert_eq!(ran.code, UNTOUCHED, "{ran:?}");
    assert!(
        ran.error().contains(expected),
        "{expected:?} is not in the error of {ran:#?}"
    );
    assert!(ran.error().contains("the disk was not touched"), "{ran:#?}");
}

#[test]
fn nothing_is_written_when_the_image_or_the_machine_is_not_right() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(2 * GIB);

    refused(&disk, &lab.name("unknown"), &[], "MANIFEST_UNKNOWN");
    refused(
        &disk,
        &image,
        &["--memory-budget", "16MiB"],
        "--memory-budget allows less than this machine has: the image needs ",
    );
    refused(
        &disk,
        &image,
        &["--platform", "linux/arm64"],
        "is for linux/amd64, not for linux/arm64",
    );
    let has_tpm = fs::read_dir("/sys/class/tpm").is_ok_and(|tpms| tpms.count() > 0);
    refused(
        &disk,
        &image,
        &["--block-setup", "tpm2-luks"],
        match has_tpm {
            true => "allows block setup direct, not tpm2-luks",
            false => "needs a TPM 2.0",
        },
    );
    let knows_erofs = fs::read_to_string("/proc/filesystems")
        .unwrap()
        .contains("\terofs\n")
        || Command::new("modprobe")
            .arg("erofs")
            .status()
            .is_ok_and(|status| status.success());
    refused(
        &disk,
        &image,
        &["--composefs-backend"],
        match knows_erofs {
            true => "does not know --composefs-backend",
            false => "this kernel has no erofs",
        },
    );
    refused(
        &disk,
        &image,
        &["--root-ssh-authorized-keys", "/nonexistent"],
        "/nonexistent",
    );

    let plain = Image::new().layer(Layer::new([Entry::file("etc/motd", "no bootc here")]));
    lab.layout.add(&plain, "plain").unwrap();
    refused(&disk, &lab.place("plain"), &[], "the image contains no bootc");

    lab.layout
        .derive(
            "good",
            &[Layer::new([Entry::whiteout("usr/bin/skopeo")])],
            "lacking",
        )
        .unwrap();
    refused(
        &disk,
        &lab.place("lacking"),
        &[],
        "it lacks skopeo (fetches the image for bootc)",
    );

    lab.layout.add(&Image::new(), "empty").unwrap();
    let empty = lab.place("empty");
    refused(&disk, &empty, &[], "the image has no layers");
    let device = disk.device.to_str().unwrap();
    let ran = landfall(["plan", &empty, device, "--tls-verify=false"]);
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(ran.error().contains("the image has no layers"), "{ran:#?}");
}

#[test]
fn nothing_is_written_when_bootc_would_fail() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(GIB);
    refused(
        &disk,
        &image,
        &["--bootc-arg", "--nonsense"],
        "rejects its arguments: unexpected argument '--nonsense' found",
    );

    let podman = "#!/bin/sh\n[ \"$*\" = '--root /tmp/landfall-podman/root --runroot /tmp/landfall-podman/run images' ] || exit 9\n\
                  echo 'time=\"now\" level=warning msg=\"cgroups-v1\"' >&2; echo 'Error: could not find a working conmon binary' >&2; exit 125\n";
    let without_conmon = [
        Entry::whiteout("usr/bin/conmon"),
        Entry::program("usr/bin/podman", podman),
    ];
    lab.layout
        .derive("good", &[Layer::new(without_conmon)], "no-conmon")
        .unwrap();
    refused(
        &disk,
        &lab.place("no-conmon"),
        &[],
        "podman, which bootc needs, does not start in the image: Error: could not find a working conmon \
         binary",
    );

    let bootupctl = Entry::program("usr/bin/bootupctl", "of 0.2.28: /usr/bin/grub2-editenv");
    lab.layout
        .derive("good", &[Layer::new([bootupctl])], "no-editenv")
        .unwrap();
    refused(
        &disk,
        &lab.place("no-editenv"),
        &[],
        "it lacks /usr/bin/grub2-editenv (",
    );
}

#[test]
fn nothing_is_written_when_the_disk_would_not_boot_by_uefi() {
    if Path::new("/sys/firmware/efi").exists() {
        lab::cannot_run("an installation without UEFI", "this machine was booted by UEFI").unwrap();
        return;
    }
    let lab = Lab::new();
    let image = lab.image("good", "exit 7");
    let disk = lab.disk(GIB);
    let before = disk.hash();
    let device = disk.device.to_str().unwrap();
    let tried = |command: &str, more: &[&str]| {
        let fixed = [command, image.as_str(), device, "--tls-verify=false"];
        landfall(fixed.iter().chain(more))
    };
    let ran = tried("install", &[]);
    check(&ran, "this machine was not booted by UEFI");
    assert!(ran.error().contains("use --generic-image"), "{ran:#?}");
    assert_eq!(disk.hash(), before);
    // What is known of the image before it is here says it at once.
    let ran = tried("plan", &["--bootloader", "grub"]);
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(ran.error().contains("use --generic-image"), "{ran:#?}");
    let ran = tried("plan", &[]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let left_open = "not checked whether the image's boot loader can be installed from a machine that was not booted by UEFI";
    assert!(ran.stdout.contains(left_open), "{ran:#?}");
    let ran = tried("plan", &["--generic-image"]);
    assert!(ran.code == Some(0) && !ran.stdout.contains(left_open), "{ran:#?}");
    // With a boot loader that is none of Landfall's business, the image's bootc is run.
    let ran = tried("install", &["--bootloader", "none"]);
    assert!(ran.stderr.contains("failed with exit status 7"), "{ran:#?}");
}

/// Whether this kernel makes partitions of a GUID Partition Table that sgdisk wrote.
fn reads_gpt(lab: &Lab) -> bool {
    let file = lab.file("gpt", vec![0; 4 << 20]);
    output(Command::new("sgdisk").args(["--new=1:0:0"]).arg(&file));
    let losetup = ["--find", "--show", "--partscan"];
    let device = output(Command::new("losetup").args(losetup).arg(&file));
    let name = device.trim().trim_start_matches("/dev/");
    let found = Path::new(&format!("/sys/block/{name}/{name}p1")).exists();
    output(Command::new("losetup").args(["--detach", device.trim()]));
    found
}

#[test]
fn nothing_is_written_when_the_kernel_cannot_install() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    let planned = |mut command: Command| -> Ran {
        command.args(["plan", &image, device, "--tls-verify=false"]);
        command.output().unwrap().into()
    };
    // A kernel that has FAT, and is shown a table to see whether it makes partitions of it.
    let ran = planned(able_kernel::secretive(LANDFALL));
    if reads_gpt(&lab) {
        assert!(ran.code == Some(0) && !ran.stdout.contains("GUID"), "{ran:#?}");
    } else {
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
        assert!(ran.error().contains("CONFIG_EFI_PARTITION"), "{ran:#?}");
    }
    // The same where no loop device can be had.
    let mut hidden = Command::new("unshare");
    let hide = "mount --bind /dev/null /dev/loop-control && exec \"$@\"";
    hidden.args(["--mount", "sh", "-c", hide, "sh"]);
    let secretive = able_kernel::secretive(LANDFALL);
    hidden.arg(secretive.get_program()).args(secretive.get_args());
    let ran = planned(hidden);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(
        ran.stdout
            .contains("not checked whether this kernel reads GUID Partition Tables ("),
        "{ran:#?}"
    );
    // This very kernel.
    let knows_fat = Command::new("modprobe").args(["--quiet", "vfat"]).status();
    if !knows_fat.is_ok_and(|status| status.success()) {
        let ran = planned(Command::new(LANDFALL));
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
        assert!(ran.error().contains("this kernel has no vfat"), "{ran:#?}");
    }
}

#[test]
fn nothing_is_written_when_the_image_answers_without_end() {
    let lab = Lab::new();
    let disk = lab.disk(2 * GIB);
    let says = |tag: &str, script: &str| {
        let bootc = Entry::program("usr/bin/bootc", format!("#!/bin/sh\n{script}"));
        let image = support::installable("").layer(Layer::new([bootc]));
        lab.layout.add(&image, tag).unwrap();
        lab.place(tag)
    };
    let lines = says("lines", "while :; do echo bootc 1.16.9; done");
    refused(
        &disk,
        &lines,
        &[],
        "asking the image with \"bootc --version\": it prints more than",
    );
    let one_line = says("one-line", "cat /dev/zero");
    refused(&disk, &one_line, &[], "it prints more than");
    let fails = says(
        "fails",
        "echo starting; echo error: Re-exec: no such file >&2; exit 1",
    );
    let expected = "bootc --version failed in the image with exit status 1: Re-exec: no such file; before that it printed:";
    refused(&disk, &fails, &[], expected);
    let bootc = Entry::program("usr/bin/bootc", "#!/no/such/shell\n");
    let image = support::installable("").layer(Layer::new([bootc]));
    lab.layout.add(&image, "no-shell").unwrap();
    let expected = "the image has no program \"bootc\", or not its interpreter";
    refused(&disk, &lab.place("no-shell"), &[], expected);
}

#[test]
fn nothing_is_pulled_that_the_policy_does_not_accept() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(GIB);
    let policy = lab.file("policy.json", r#"{"default": [{"type": "reject"}]}"#);
    let policy = ["--policy", policy.to_str().unwrap()];
    refused(&disk, &image, &policy, &format!("{} rejects {image}", policy[1]));
    let (device, root) = (disk.device.to_str().unwrap(), lab.directory.path().join("root"));
    let layout = format!("oci:{}", lab.directory.path().join("pulled").display());
    let options = ["--tls-verify=false", policy[0], policy[1]];
    for (command, more) in [
        ("plan", &[device][..]),
        ("unpack", &["--to", root.to_str().unwrap()]),
        ("pull", &["--to", &layout]),
        ("run", &["--", "true"]),
    ] {
        let ran = landfall([&[command, &image][..], &options, more].concat());
        assert_ne!(ran.code, Some(0), "{command}: {ran:#?}");
        assert!(ran.error().contains(" rejects "), "{command}: {ran:#?}");
    }
    lab.registry.let_it_log();
    let requests = lab.registry.requests();
    assert!(
        !requests.iter().any(|(method, ..)| method == "GET"),
        "{requests:?}"
    );
    // A look is free.
    let ran = landfall([&["inspect", &image][..], &options].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");

    let demanding = r#"{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"HOST": [
        {"type": "sigstoreSigned", "keyPath": "/k"}]}}}"#;
    let demanding = lab.file("demanding.json", demanding.replace("HOST", &lab.registry.host()));
    refused(
        &disk,
        &image,
        &["--policy", demanding.to_str().unwrap()],
        "but signatures cannot be checked yet: give a policy that accepts this image with --policy",
    );
}

#[test]
fn nothing_is_written_when_the_registry_lies() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let content: Vec<u8> = (0..1u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let image = |mark: &str| {
        let unique = Entry::file("mark", mark);
        support::installable("exit 0").layer(Layer::new([unique, Entry::file("data", content.clone())]))
    };
    for (tag, expected) in [("flipped", "the blob"), ("truncated", "the manifest says")] {
        lab.layout.add(&image(tag), tag).unwrap();
        let name = lab.place(tag);
        let layer = lab.layout.manifest(tag).unwrap()["layers"][2].clone();
        let blob = lab
            .registry
            .blob(&lab::image::Digest::in_descriptor(&layer).unwrap());
        let size = fs::metadata(&blob).unwrap().len();
        match tag {
            "flipped" => flip_byte(&blob, i64::try_from(size / 2).unwrap()).unwrap(),
            _ => truncate(&blob, size - 7).unwrap(),
        }
        refused(&disk, &name, &[], expected);
    }
    for (tag, wrong, expected) in [
        ("larger", 5_i64, "the manifest says"),
        ("smaller", -5, "sent more than"),
    ] {
        lab.layout.add(&image(tag), tag).unwrap();
        lab.layout
            .edit_manifest(tag, |manifest| {
                let size = manifest["layers"][2]["size"].as_i64().unwrap();
                manifest["layers"][2]["size"] = (size + wrong).into();
            })
            .unwrap();
        refused(&disk, &lab.place(tag), &[], expected);
    }
}

#[test]
fn nothing_is_written_without_the_right_credentials() {
    let lab = Lab::with(Registry::builder().user("anna", "right").start().unwrap());
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(GIB);
    let secret = STANDARD.encode("anna:wrong");
    let content = format!(
        r#"{{"auths":{{"{}":{{"auth":"{secret}"}}}}}}"#,
        lab.registry.host()
    );
    let authfile = lab.file("auth.json", content);
    refused(&disk, &image, &[], "--authfile");
    refused(
        &disk,
        &image,
        &["--authfile", authfile.to_str().unwrap()],
        "UNAUTHORIZED",
    );
}

#[test]
fn nothing_is_written_when_the_disk_is_not_right() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");

    let small = LoopDisk::new(&lab.directory.path().join("small"), 700 << 20);
    refused(
        &small,
        &image,
        &["--config-drive", config_drive(&lab).to_str().unwrap()],
        "needs at least 709 MiB",
    );

    let disk = lab.disk(GIB);
    output(Command::new("mkfs.ext4").arg("-q").arg(&disk.device));
    refused(&disk, &image, &[], "--wipe");
    let mounted = lab.directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    output(
        Command::new("mount")
            .arg("-o")
            .arg("ro")
            .arg(&disk.device)
            .arg(&mounted),
    );
    refused(&disk, &image, &["--wipe"], "mounted");
    output(Command::new("umount").arg(&mounted));

    let wipe = |more: &[&'static str]| [&["--wipe"], more].concat();
    refused(
        &disk,
        &image,
        &wipe(&["--root-size", "3GiB"]),
        "a root partition of 3072 MiB",
    );
    refused(
        &disk,
        &image,
        &wipe(&["--root-size", "1MiB"]),
        "a root partition of 1 MiB is too small",
    );
    refused(
        &disk,
        &image,
        &wipe(&["--device-hint", "size=>= 2"]),
        "does not match the hints: size is 1 GiB, wanted \">= 2\"",
    );
    refused(
        &disk,
        &image,
        &wipe(&["--boot-entry", "first", "--bootloader", "none"]),
        "without a boot loader nothing can be put into the firmware's boot order",
    );
    if !Path::new("/sys/firmware/efi").exists() {
        refused(
            &disk,
            &image,
            &wipe(&["--boot-entry", "next"]),
            "leave out --boot-entry, or boot this machine by UEFI",
        );
    }
    output(Command::new("blockdev").arg("--setro").arg(&disk.device));
    refused(&disk, &image, &["--wipe"], "is read-only");
    output(Command::new("blockdev").arg("--setrw").arg(&disk.device));

    for (device, expected) in [
        ("/dev/null", "/dev/null"),
        ("/dev/nonexistent", "/dev/nonexistent"),
    ] {
        let ran = landfall(["install", &image, device, "--tls-verify=false"]);
        check(&ran, expected);
    }
}

#[test]
fn nothing_is_written_when_the_config_drive_is_not_right() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(2 * GIB);
    let large = lab.file("large", vec![1; 65 << 20]);
    refused(
        &disk,
        &image,
        &["--config-drive", large.to_str().unwrap()],
        "64 MiB",
    );
    let text = lab.file("text", "hello");
    refused(
        &disk,
        &image,
        &["--config-drive", text.to_str().unwrap()],
        "config drive",
    );
    refused(&disk, &image, &["--config-drive", "/nonexistent"], "/nonexistent");
}

#[test]
fn a_plan_writes_nothing_and_says_what_would_be_done() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(2 * GIB);
    let before = disk.hash();
    let config_drive = config_drive(&lab);
    let (device, config_drive) = (disk.device.to_str().unwrap(), config_drive.to_str().unwrap());
    let plan = [
        "plan",
        &image,
        device,
        "--tls-verify=false",
        "--config-drive",
        config_drive,
    ];
    let table = landfall(plan);
    assert_eq!(table.code, Some(0), "{table:#?}");
    for expected in ["EFI-SYSTEM", "config-2", "layers      2:", "on it now   nothing"] {
        assert!(table.stdout.contains(expected), "{table:#?}");
    }
    let json = landfall(plan.iter().chain(&["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        json["partitions"].as_array().unwrap().last().unwrap()["size_bytes"],
        64 << 20
    );
    let not_checked = json["not_checked"].as_array().unwrap();
    let of_bootc = "whether the image contains bootc and all that bootc needs";
    assert!(not_checked.iter().any(|what| what == of_bootc), "{json:#}");
    assert!(
        table.stdout.contains(&format!("not checked {of_bootc}\n")),
        "{table:#?}"
    );
    assert_eq!(disk.hash(), before);
}

/// An image with a program, and a layer of noise that doesn't compress and zeros that do, both in MiB.
fn weights(lab: &Lab, tag: &str, noise_mib: usize, zeros_mib: usize) -> String {
    let mut content = noise(7, noise_mib << 20);
    content.resize((noise_mib + zeros_mib) << 20, 0);
    let layer = Layer::new([Entry::file("weights", content)]).compressed(Compression::Gzip);
    lab.layout
        .add(&support::installable("exit 0").layer(layer), tag)
        .unwrap();
    lab.place(tag)
}

#[test]
fn a_layer_that_does_not_compress_is_as_large_as_it_says() {
    let lab = Lab::new();
    let image = weights(&lab, "weights", 16, 0);
    let inspected = landfall(["inspect", &image, "--tls-verify=false", "--json"]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["unpacked_bytes_is_a_guess"], false, "{inspected}");
    let (compressed, unpacked) = (
        inspected["compressed_bytes"].as_u64().unwrap(),
        inspected["unpacked_bytes_estimate"].as_u64().unwrap(),
    );
    assert!(unpacked < 2 * compressed, "{inspected}");
    let tls = "--tls-verify=false";
    let ran = landfall(["run", &image, tls, "--memory-budget=96MiB", "--", "ls"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!ran.stderr.contains("may need"), "{ran:#?}");
}

#[test]
fn what_nobody_says_is_a_guess_that_warns_and_does_not_refuse() {
    let lab = Lab::new();
    let fits = weights(&lab, "fits", 16, 0);
    weights(&lab, "larger", 16, 80);
    let no_ranges = Rule::always("/blobs/", Fault::IgnoreRange);
    let proxy = Faulty::start(&lab.registry.host(), vec![no_ranges]);
    let through = |tag: &str| format!("{}/os/test:{tag}", proxy.host());
    let doubt = "(a guess: its source does not say how large it is), ";

    let tls = "--tls-verify=false";
    let ran = landfall(["run", &through("fits"), tls, "--memory-budget=96MiB", "--", "ls"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.stderr.contains(doubt), "{ran:#?}");
    // Where everything is said, nothing is guessed.
    let ran = landfall(["run", &fits, tls, "--memory-budget=96MiB", "--", "ls"]);
    assert!(ran.code == Some(0) && !ran.stderr.contains(doubt), "{ran:#?}");

    let disk = lab.disk(2 * GIB);
    let device = disk.device.to_str().unwrap();
    let (image, budget) = (through("larger"), "--memory-budget=330MiB");
    let plan = landfall(["plan", &image, device, tls, budget, "--generic-image"]);
    assert_eq!(plan.code, Some(0), "{plan:#?}");
    assert!(
        plan.stdout.contains("unpacked (a guess)") && plan.stderr.contains(doubt),
        "{plan:#?}"
    );
    // Memory does run out then.
    refused(
        &disk,
        &image,
        &[budget],
        "the image does not fit into 42 MiB of memory",
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    for arguments in [
        vec!["install"],
        vec!["install", "no-registry", "/dev/vda"],
        vec!["frobnicate"],
    ] {
        assert_eq!(landfall(&arguments).code, Some(2), "{arguments:?}");
    }
    let version = Command::new(LANDFALL).arg("--version").output().unwrap();
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .starts_with("landfall ")
    );
}

#[test]
fn what_a_file_says_of_options_holds_until_they_are_typed() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let inspect = |config: &str, more: &[&str]| {
        let config = lab.file("config.toml", config);
        let fixed = ["inspect", &image, "--config", config.to_str().unwrap()];
        landfall(fixed.iter().chain(more))
    };
    // The lab's registry speaks plain HTTP.
    let ran = inspect("tls-verify = false\nretries = 0\nwipe-nothing = 1", &[]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("config.toml: the key wipe-nothing is unknown"),
        "{ran:#?}"
    );
    let ran = inspect("retries = -1", &[]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("config.toml: invalid value '-1' for '--retries <NUMBER>'"),
        "{ran:#?}"
    );
    let file = "tls-verify = false\nretries = 0";
    assert_eq!(inspect(file, &[]).code, Some(0));
    for (file, typed) in [("retries = 0", None), (file, Some("--tls-verify=true"))] {
        let ran = inspect(file, typed.as_slice());
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    }
}

fn config_drive(lab: &Lab) -> std::path::PathBuf {
    let tree = lab.directory.path().join("tree");
    fs::create_dir_all(tree.join("openstack/latest")).unwrap();
    fs::write(tree.join("openstack/latest/meta_data.json"), "{}").unwrap();
    let iso = lab.directory.path().join("config-drive.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso
        .args(["-as", "mkisofs", "-quiet", "-V", "config-2", "-J", "-r", "-o"])
        .arg(&iso)
        .arg(&tree);
    output(&mut xorriso);
    iso
}
