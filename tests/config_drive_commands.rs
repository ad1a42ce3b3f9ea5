//! `landfall config-drive` on disks made by sgdisk and sfdisk, looked at with their and blkid's eyes. Needs
//! root.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use landfall::{Disk, MIB};
use serde_json::Value;
use support::disk::{Loop, assert_sgdisk_is_content, blkid, image, open, run, sfdisk, text};
use support::{Ran, landfall};
use tempfile::TempDir;

/// Ironic's JSON for a machine of this name, as a file.
fn source(directory: &TempDir, hostname: &str) -> String {
    let file = directory.path().join(hostname);
    let json = serde_json::json!({
        "meta_data": {"uuid": "2f1a2f3c-2d0c-4b8b-9f55-6f0d2f6a5d10", "hostname": hostname},
        "user_data": "#cloud-config\npassword: hunter2\n",
    });
    fs::write(&file, json.to_string()).unwrap();
    text(&file).into()
}

fn write(source: &str, device: &Loop) -> Ran {
    landfall(["config-drive", "write", source, text(&device.0)])
}

fn written(source: &str, device: &Loop) -> String {
    let ran = write(source, device);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!ran.stderr.contains("hunter2"), "{ran:#?}");
    ran.stderr
}

/// Refused with this reason, and not a byte was written.
fn refused(source: &str, device: &Loop, reason: &str) {
    let hash = || run("sha256sum", &[text(&device.0)]);
    let before = hash();
    let ran = write(source, device);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.error().contains(reason), "{reason:?} is not in {ran:#?}");
    assert_eq!(hash(), before);
}

/// The partitions as sfdisk sees them.
fn partitions(device: &Loop) -> Vec<Value> {
    let json: Value = serde_json::from_str(&run("sfdisk", &["--json", text(&device.0)])).unwrap();
    json["partitiontable"]["partitions"].as_array().unwrap().clone()
}

/// What blkid sees in a partition.
fn probed(device: &Loop, partition: &Value, sector_bytes: u64) -> String {
    let bytes = |key: &str| (partition[key].as_u64().unwrap() * sector_bytes).to_string();
    let (offset, size) = (bytes("start"), bytes("size"));
    run(
        "blkid",
        &["--probe", "--offset", &offset, "--size", &size, text(&device.0)],
    )
}

fn shown(place: &Path, more: &[&str]) -> String {
    let ran = landfall([&["config-drive", "show", text(place)], more].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    ran.stdout
}

#[test]
fn on_a_gpt_a_partition_is_added_once_and_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = image(&directory, 96 * MIB);
    run(
        "sgdisk",
        &["--clear", "--new=1:1M:+40M", "--change-name=1:root", text(&disk)],
    );
    // The disk grew: the backup copy is in the middle of it.
    open(&disk).set_len(300 * MIB).unwrap();
    let device = Loop::over(&disk, 512);
    written(&source(&directory, "first"), &device);
    assert_sgdisk_is_content(&device.0);
    let after_first = partitions(&device);
    assert_eq!(after_first.len(), 2);
    let added = &after_first[1];
    // 64 MiB, begun at a mebibyte, before the 33 sectors of the backup copy.
    assert_eq!(
        (added["start"].as_u64(), added["size"].as_u64()),
        (Some(235 * 2048), Some(64 * 2048))
    );
    let seen = probed(&device, added, 512);
    assert!(
        seen.contains("LABEL=\"config-2\"") && seen.contains("TYPE=\"iso9660\""),
        "{seen}"
    );

    let said = written(&source(&directory, "second"), &device);
    assert!(said.contains("to partition 2 of"), "{said}");
    assert_eq!(partitions(&device), after_first);
    let all = shown(&device.0, &["--contents", "--secrets"]);
    assert!(
        all.contains("on partition 2 of") && all.contains("\"second\"") && !all.contains("first"),
        "{all}"
    );
    assert!(all.contains("hunter2"), "{all}");
    assert!(!shown(&device.0, &["--contents"]).contains("hunter2"));
}

#[test]
fn the_place_is_where_sgdisk_would_put_it() {
    let directory = tempfile::tempdir().unwrap();
    for (size, sector_bytes) in [
        (200 * MIB, 512),
        (200 * MIB + 512 * 77, 512),
        (333 * MIB + 4096 * 3, 4096),
    ] {
        let disk = image(&directory, size);
        let device = Loop::over(&disk, sector_bytes);
        run("sgdisk", &["--clear", "--new=1:1M:+40M", text(&device.0)]);
        // As ironic-python-agent asks for it.
        run("sgdisk", &["--new=2:-64MB:0", text(&device.0)]);
        let theirs = partitions(&device)[1]["start"].clone();
        run("sgdisk", &["--delete=2", text(&device.0)]);
        written(&source(&directory, "node"), &device);
        assert_eq!(partitions(&device)[1]["start"], theirs, "{size} bytes");
    }
}

#[test]
fn on_an_mbr_a_primary_partition_is_added_below_2_tib() {
    for size in [300 * MIB, 3 << 40] {
        let directory = tempfile::tempdir().unwrap();
        let disk = image(&directory, size);
        let device = Loop::over(&disk, 512);
        let script = "label: dos\nlabel-id: 0x12345678\nstart=2048, size=20480, type=83, bootable\n\
                      size=40960, type=5\nstart=24576, size=2048, type=82\n";
        sfdisk(&device.0, script);
        fs::write(directory.path().join("code"), [0x90; 440]).unwrap();
        let code = directory.path().join("code");
        run(
            "dd",
            &[
                &format!("if={}", text(&code)),
                &format!("of={}", text(&device.0)),
                "conv=notrunc",
                "status=none",
            ],
        );
        let before = partitions(&device);
        written(&source(&directory, "node"), &device);
        let after = partitions(&device);
        let added: Vec<&Value> = after.iter().filter(|each| !before.contains(each)).collect();
        assert_eq!((added.len(), after.len()), (1, before.len() + 1), "{after:#?}");
        assert_eq!(added[0]["type"], "c");
        let end = added[0]["start"].as_u64().unwrap() + added[0]["size"].as_u64().unwrap();
        assert_eq!(
            end,
            size.min(2 << 40).min(u64::from(u32::MAX) * 512) / 512 / 2048 * 2048
        );
        assert!(probed(&device, added[0], 512).contains("LABEL=\"config-2\""));
        let head = run("od", &["-An", "-v", "-tx1", "-N440", text(&device.0)]);
        assert!(
            head.split_whitespace().all(|byte| byte == "90"),
            "the boot code is gone: {head}"
        );
        let dump = run("sfdisk", &["--dump", text(&device.0)]);
        assert!(
            dump.contains("label-id: 0x12345678") && dump.contains("bootable"),
            "{dump}"
        );
        run("sfdisk", &["--verify", text(&device.0)]);
    }
}

#[test]
fn a_disk_with_large_sectors_gets_fat_and_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 300 * MIB), 4096);
    run("sgdisk", &["--clear", "--new=1:1M:+40M", text(&device.0)]);
    let said = written(&source(&directory, "node"), &device);
    assert!(
        said.contains("becomes FAT") && said.contains("afterburn does not"),
        "{said}"
    );
    let seen = probed(&device, &partitions(&device)[1], 4096);
    assert!(
        seen.contains("LABEL=\"config-2\"") && seen.contains("TYPE=\"vfat\""),
        "{seen}"
    );
    let listed = shown(&device.0, &[]);
    assert!(
        listed.contains("FAT") && listed.contains("openstack/latest/meta_data.json"),
        "{listed}"
    );
}

#[test]
fn what_has_no_room_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let source = source(&directory, "node");
    let disk = image(&directory, 100 * MIB);
    let device = Loop::over(&disk, 512);
    let sfdisk = |script: &str| sfdisk(&device.0, script);
    refused(&source, &device, "no partition table");
    sfdisk("label: dos\nsize=1MiB\nsize=1MiB\nsize=1MiB\nsize=1MiB\n");
    refused(&source, &device, "has four primary partitions already");
    sfdisk("label: gpt\nsize=98MiB\n");
    let large = directory.path().join("large");
    fs::write(&large, format!("{{\"user_data\": \"{}\"}}", "x".repeat(1 << 20))).unwrap();
    refused(text(&large), &device, "contiguous free bytes");
    sfdisk("label: gpt\nsize=10MiB, name=\"a\"\nsize=10MiB, name=\"b\"\n");
    let fat = directory.path().join("fat");
    fs::File::create(&fat).unwrap().set_len(10 * MIB).unwrap();
    run("mkfs.fat", &["-n", "CONFIG-2", text(&fat)]);
    let put = |seek: &str| {
        let (from, to) = (format!("if={}", text(&fat)), format!("of={}", text(&device.0)));
        run(
            "dd",
            &[&from, &to, "bs=1M", seek, "conv=notrunc,fsync", "status=none"],
        );
    };
    put("seek=1");
    put("seek=11");
    refused(&source, &device, "partitions 1 and 2 are both labelled config-2");
    run(
        "sgdisk",
        &[
            "--delete=2",
            "--delete=1",
            "--new=1:1M:+20K",
            "--set-alignment=1",
            text(&device.0),
        ],
    );
    refused(
        &source,
        &device,
        "partition 1 is labelled config-2, but has 20480 bytes",
    );
    let refusal = landfall(["config-drive", "write", &source, "/dev/null"]);
    assert_eq!(refusal.code, Some(3), "{refusal:#?}");
}

#[test]
fn an_interrupted_write_is_made_good_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 200 * MIB), 512);
    // The partition is there, and nothing is in it.
    run(
        "sgdisk",
        &[
            "--clear",
            "--new=1:100M:+64M",
            "--change-name=1:config-2",
            text(&device.0),
        ],
    );
    let said = written(&source(&directory, "node"), &device);
    assert!(said.contains("to partition 1 of"), "{said}");
    assert_eq!(partitions(&device).len(), 1);
}

/// A file system of little room, unmounted with this value.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(place: std::path::PathBuf) -> Self {
        fs::create_dir(&place).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "small", text(&place)]);
        Self(place)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &[text(&self.0)]);
    }
}

#[test]
fn a_write_that_fails_leaves_no_partition_behind() {
    for (label, sector_bytes) in [("gpt", 512), ("dos", 512), ("gpt", 4096)] {
        let directory = tempfile::tempdir().unwrap();
        let source = source(&directory, "node");
        let small = Small::mount(directory.path().join("small"));
        let disk = small.0.join("disk");
        fs::File::create(&disk).unwrap().set_len(200 * MIB).unwrap();
        let device = Loop::over(&disk, sector_bytes);
        sfdisk(&device.0, &format!("label: {label}\nsize=40MiB\n"));
        let before = partitions(&device);
        // The disk takes no more than the megabyte that it has after it.
        let ran = write(&source, &device);
        assert_eq!(ran.code, Some(4), "{ran:#?}");
        assert!(
            ran.error()
                .contains("writing the config drive: Input/output error"),
            "{ran:#?}"
        );
        assert_eq!(partitions(&device), before);

        run("mount", &["-o", "remount,size=300m", text(&small.0)]);
        written(&source, &device);
        assert_eq!(partitions(&device).len(), before.len() + 1);
    }
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 100 * MIB), 512);
    run("mkfs.ext4", &["-q", text(&device.0)]);
    let place = directory.path().join("mounted");
    fs::create_dir(&place).unwrap();
    run("mount", &["-o", "ro", text(&device.0), text(&place)]);
    let ran = write(&source(&directory, "node"), &device);
    run("umount", &[text(&place)]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.error().contains("mounted"), "{ran:#?}");
}

#[test]
fn a_device_is_not_replaced_by_an_image() {
    let directory = tempfile::tempdir().unwrap();
    let source = source(&directory, "node");
    let node = directory.path().join("null");
    run("mknod", &[text(&node), "c", "1", "3"]);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("node", &link).unwrap();
    for output in [&node, &link] {
        let before = fs::symlink_metadata(output).unwrap().file_type();
        let ran = landfall(["config-drive", "build", &source, "-o", text(output)]);
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        assert!(ran.error().contains("not a regular file"), "{ran:#?}");
        assert_eq!(fs::symlink_metadata(output).unwrap().file_type(), before);
    }
}

#[test]
fn images_are_built_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree/openstack/latest");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("meta_data.json"), "{\"uuid\": \"x\"}").unwrap();
    fs::write(tree.join("user_data"), "hunter2").unwrap();
    let output = directory.path().join("built");
    fs::write(&output, "what was there before").unwrap();
    let build = |source: &str, more: &[&str]| {
        let ran = landfall([&["config-drive", "build", source, "-o", text(&output)], more].concat());
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
        blkid(&output)
    };
    let root = directory.path().join("tree");
    let (kind, label, _) = build(text(&root), &[]);
    assert_eq!((kind.as_str(), label.as_deref()), ("iso9660", Some("config-2")));
    let listed = shown(&output, &[]);
    assert!(
        listed.ends_with(
            "        13  openstack/latest/meta_data.json\n         7  openstack/latest/user_data\n"
        ),
        "{listed}"
    );
    let (kind, label, _) = build(&source(&directory, "node"), &["--sector-size", "4096"]);
    assert_eq!((kind.as_str(), label.as_deref()), ("vfat", Some("config-2")));
    run("fsck.fat", &["-n", text(&output)]);
    let ran = landfall([
        "config-drive",
        "build",
        text(&root),
        "-o",
        text(&output),
        "--sector-size",
        "100",
    ]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    // A form that IPA takes is taken here as well: base64 of gzip.
    let packed = directory.path().join("packed");
    build(text(&root), &[]);
    let pack = format!("gzip -c {} | base64 > {}", text(&output), text(&packed));
    assert!(Command::new("sh").args(["-c", &pack]).status().unwrap().success());
    assert!(shown(&packed, &[]).contains("openstack/latest/user_data"));
}

#[test]
fn an_old_config_drive_is_found_and_removed_whole() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 200 * MIB), 512);
    run("sgdisk", &["--clear", "--new=1:1M:+40M", text(&device.0)]);
    written(&source(&directory, "node"), &device);
    let disk = Disk::probe(&device.0).unwrap();
    let found = disk.config_drives().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        format!("partition 2 of {}", device.0.display())
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let target = Loop::over(&image(&elsewhere, 64 * MIB), 512);
    let claim = Disk::claim(Disk::probe(&target.0).unwrap().give_up(false).unwrap()).unwrap();
    let holder = fs::OpenOptions::new()
        .read(true)
        .custom_exclusive()
        .open(&device.0)
        .unwrap();
    assert!(found[0].clear(&claim).is_err(), "it is in use");
    drop(holder);
    found[0].clear(&claim).unwrap();
    assert!(disk.config_drives().unwrap().is_empty());
    let start = 512 * partitions(&device)[1]["start"].as_u64().unwrap();
    let left = run(
        "cmp",
        &[
            "--bytes=67108864",
            &format!("--ignore-initial={start}:0"),
            text(&device.0),
            "/dev/zero",
        ],
    );
    assert_eq!(left, "");
    assert!(
        found[0]
            .clear(&claim)
            .unwrap_err()
            .to_string()
            .contains("removing the old config drive")
    );
}

trait Exclusive {
    fn custom_exclusive(&mut self) -> &mut Self;
}

impl Exclusive for fs::OpenOptions {
    fn custom_exclusive(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        self.custom_flags(nix::libc::O_EXCL)
    }
}
