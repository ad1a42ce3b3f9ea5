//! Disks against the programs that everyone else uses: sfdisk, sgdisk, blkid, mkfs, on image files and loop
//! devices. Needs root and those programs; a missing one is a failure that names it.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use landfall::config_drive::{self, ConfigDrive};
use landfall::{
    Arch, Backend, BlockSetup, BootPath, Disk, Extent, Geometry, Layout, LayoutRequest, MIB, Role, Table,
    VerifiedDisk, find_boot_loader, identify,
};
use support::disk::{
    Loop, assert_sgdisk_is_content, blkid, dump, esp, feed, image, open, overwrite, request, run, sfdisk,
    sfdisk_script, stand_in_for_bootc, text,
};
use tempfile::TempDir;

fn planned(layout: &Layout) -> Vec<(u64, u64, String, String)> {
    let partitions = layout.partitions.iter();
    partitions
        .map(|each| {
            (
                each.extent.start_lba,
                each.extent.sectors,
                each.type_guid.to_string(),
                each.name.to_string(),
            )
        })
        .collect()
}

#[test]
fn every_layout_is_what_sfdisk_makes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    // Odd sizes: whole mebibytes, one sector less and more, and what disks really have.
    let sizes = [
        8192 * MIB,
        8192 * MIB - 4096,
        8192 * MIB + 4096,
        10_005_037_056,
        8_012_390_400,
    ];
    let mut compared = 0;
    for (turn, size) in sizes.into_iter().enumerate() {
        for sector_bytes in [512, 4096] {
            let size = size / sector_bytes * sector_bytes;
            let disk = image(&directory, size);
            let device = Loop::over(&disk, sector_bytes);
            for variant in 0..16 {
                // All variants on the first size, every fourth on the others.
                if turn != 0 && variant % 4 != turn % 4 {
                    continue;
                }
                let pick = |bit: u32| variant & (1 << bit) != 0;
                let request = LayoutRequest {
                    arch: if pick(0) { Arch::Aarch64 } else { Arch::X86_64 },
                    backend: if pick(1) {
                        Backend::Composefs
                    } else {
                        Backend::Ostree
                    },
                    block_setup: if pick(2) {
                        BlockSetup::Tpm2Luks
                    } else {
                        BlockSetup::Direct
                    },
                    config_drive: pick(3),
                    ..request(size, sector_bytes)
                };
                let layout = Layout::plan(&request).unwrap();
                let script = sfdisk_script(&request, layout.root_size_mib);
                sfdisk(&device.0, &script);
                assert_eq!(dump(&device.0), planned(&layout), "{request:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * (16 + 4 * 4));
}

/// Reads, extends and writes the table of `path`.
fn extend(path: &Path, geometry: Geometry, name: &str, extent: Extent) {
    let mut disk = open(path);
    let mut table = Table::read(&mut disk, geometry).unwrap().unwrap();
    table.relocate_backup();
    let linux = "0fc63daf-8483-4772-8e79-3d69d8477de4".parse().unwrap();
    table.add(name, linux, extent).unwrap();
    table.write(&mut disk).unwrap();
    assert!(Table::read(&mut disk, geometry).unwrap().unwrap().is_in_order());
}

#[test]
fn tables_of_sgdisk_are_read_and_ours_are_sound_to_it() {
    let directory = tempfile::tempdir().unwrap();
    for (round, sector_bytes) in [(0, 512), (1, 4096), (2, 512), (3, 4096), (4, 512)] {
        let size = 64 * MIB + round * 8192;
        let disk = image(&directory, size);
        let device = Loop::over(&disk, sector_bytes);
        let geometry = Geometry::plain(size, sector_bytes);
        let mut arguments: Vec<String> = vec!["--clear".into()];
        for number in 0..=round {
            arguments.push(format!(
                "--new={}:{}M:+{}M",
                3 * number + 1,
                2 + 5 * number,
                number + 1
            ));
            arguments.push(format!("--change-name={}:part ü {number}", 3 * number + 1));
        }
        arguments.push(text(&device.0).into());
        run(
            "sgdisk",
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let table = Table::read(&mut open(&device.0), geometry).unwrap().unwrap();
        assert!(table.is_in_order());
        let ours: Vec<_> = table
            .partitions()
            .map(|each| {
                (
                    each.extent.start_lba,
                    each.extent.sectors,
                    each.type_guid.to_string(),
                    each.name,
                )
            })
            .collect();
        assert_eq!(ours, dump(&device.0));
        let mib = geometry.sectors_per_mib();
        let extent = Extent {
            start_lba: 50 * mib,
            sectors: 8 * mib,
        };
        extend(&device.0, geometry, "config-2", extent);
        assert_sgdisk_is_content(&device.0);
        let added = dump(&device.0)
            .into_iter()
            .find(|each| each.3 == "config-2")
            .unwrap();
        assert_eq!((added.0, added.1), (extent.start_lba, extent.sectors));
    }
}

#[test]
fn damaged_and_outgrown_tables_are_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let geometry = |size| Geometry::plain(size, 512);
    let prepare = || {
        let disk = image(&directory, 64 * MIB);
        run(
            "sgdisk",
            &["--clear", "--new=1:1M:+4M", "--change-name=1:keep", text(&disk)],
        );
        disk
    };
    let extent = Extent {
        start_lba: 40 * 2048,
        sectors: 2048,
    };
    type Damage = fn(&mut File, u64);
    let damages: [(&str, Damage, u64); 5] = [
        ("primary header", |disk, _| overwrite(disk, 512, 512), 64 * MIB),
        ("primary entries", |disk, _| overwrite(disk, 1024, 128), 64 * MIB),
        (
            "backup header",
            |disk, size| overwrite(disk, size - 512, 512),
            64 * MIB,
        ),
        ("protective MBR", |disk, _| overwrite(disk, 446, 66), 64 * MIB),
        (
            "disk that grew",
            |disk, _| disk.set_len(96 * MIB).unwrap(),
            96 * MIB,
        ),
    ];
    for (what, damage, size) in damages {
        let path = prepare();
        damage(&mut open(&path), 64 * MIB);
        let before = Table::read(&mut open(&path), geometry(size)).unwrap().unwrap();
        assert!(!before.is_in_order(), "{what}");
        extend(&path, geometry(size), "new", extent);
        assert_sgdisk_is_content(&path);
        let names: Vec<_> = dump(&path).into_iter().map(|each| each.3).collect();
        assert_eq!(names, ["keep", "new"], "{what}");
    }
}

#[test]
fn a_table_with_its_entries_elsewhere_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let disk = image(&directory, 64 * MIB);
    run("sgdisk", &["--clear", "--move-main-table=2048", text(&disk)]);
    let mut file = open(&disk);
    // The backup copy is sound, but writing it back would move what something else relies on.
    let table = Table::read(&mut file, Geometry::plain(64 * MIB, 512))
        .unwrap()
        .unwrap();
    assert!(!table.is_in_order());
    run("sgdisk", &["--clear", text(&disk)]);
    // Entries of 256 bytes: legal, and what makes the crate panic.
    let mut bytes = fs::read(&disk).unwrap();
    bytes[512 + 84] = 0;
    bytes[512 + 85] = 1;
    fs::write(&disk, &bytes).unwrap();
    assert!(
        !Table::read(&mut open(&disk), Geometry::plain(64 * MIB, 512))
            .unwrap()
            .unwrap()
            .is_in_order()
    );
}

#[test]
fn filesystems_are_told_as_blkid_tells_them() {
    let directory = tempfile::tempdir().unwrap();
    let makers: [&[&str]; 12] = [
        &["mkfs.ext2", "-q", "-L", "two"],
        &["mkfs.ext3", "-q", "-L", "three"],
        &["mkfs.ext4", "-q", "-L", "four four"],
        &["mkfs.ext4", "-q", "-O", "verity"],
        &["mkfs.xfs", "-q", "-L", "root"],
        &["mkfs.fat", "-F", "12", "-s", "64", "-n", "TWELVE"],
        &["mkfs.fat", "-F", "16", "-n", "CONFIG-2"],
        &["mkfs.fat", "-F", "32", "-n", "EFI-SYSTEM"],
        &["mkfs.fat", "-S", "4096", "-n", "LARGE"],
        &["mkfs.fat"],
        &["mkswap", "-q", "-L", "swapping"],
        &["mkswap", "-q"],
    ];
    for maker in makers {
        // XFS takes no less than 300 MiB.
        let size = if maker[0] == "mkfs.xfs" {
            320 * MIB
        } else {
            64 * MIB
        };
        let path = image(&directory, size);
        run(maker[0], &[&maker[1..], &[text(&path)]].concat());
        let found = identify(&mut open(&path), size).unwrap();
        assert_eq!(found.len(), 1, "{maker:?}: {found:?}");
        let (kind, label, uuid) = blkid(&path);
        assert_eq!(
            (found[0].kind, &found[0].label, &found[0].uuid),
            (kind.as_str(), &label, &uuid),
            "{maker:?}"
        );
    }
}

fn config_drive_iso(directory: &TempDir) -> ConfigDrive {
    let iso = directory.path().join("drive.iso");
    let file = ("openstack/latest/meta_data.json", r#"{"uuid": "x"}"#);
    lab::config_drive::create(&iso, &[file]).unwrap();
    ConfigDrive::read(File::open(&iso).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn from_an_empty_disk_to_a_config_drive() {
    for sector_bytes in [512, 4096] {
        let directory = tempfile::tempdir().unwrap();
        let size = 3072 * MIB;
        let device = Loop::over(&image(&directory, size), sector_bytes);
        let disk = Disk::probe(&device.0).unwrap();
        assert_eq!(disk.geometry.sector_bytes, sector_bytes);
        disk.refuse_if_in_use().unwrap();
        let contents = disk.contents().unwrap();
        assert!(contents.is_empty());
        assert!(disk.partition_guids().unwrap().is_empty());
        let request = LayoutRequest {
            geometry: disk.geometry,
            ..request(size, sector_bytes)
        };
        let layout = Layout::plan(&request).unwrap();
        let claim = Disk::claim(disk.give_up(false).unwrap()).unwrap();

        stand_in_for_bootc(
            &directory,
            &device.0,
            &request,
            layout.root_size_mib,
            Some("EFI/BOOT/BOOTX64.EFI"),
        );
        let mut installed = VerifiedDisk::verify(&claim, &layout, BootPath::Loader).unwrap();
        assert!(installed.boot_loader().unwrap().is_fallback);
        let drive = config_drive_iso(&directory);
        let mut slot = installed.add_config_drive_partition().unwrap();
        let written = support::block_on(config_drive::write(&drive, &mut slot.region)).unwrap();
        assert_eq!(written.size_bytes, drive.size_bytes());

        let report = installed.report().unwrap();
        assert_eq!(report.partitions.len(), 4);
        let guids: Vec<_> = report.partitions.iter().map(|each| each.partition.uuid).collect();
        assert_eq!(Disk::probe(&device.0).unwrap().partition_guids().unwrap(), guids);
        let last = &report.partitions[3];
        assert_eq!(
            (last.partition.name.as_str(), last.signatures[0].kind),
            ("config-2", "iso9660")
        );
        assert_sgdisk_is_content(&device.0);
        let offset = last.start_bytes.to_string();
        let size = last.size_bytes.to_string();
        let seen = run(
            "blkid",
            &["--probe", "--offset", &offset, "--size", &size, text(&device.0)],
        );
        assert!(
            seen.contains("LABEL=\"config-2\"") && seen.contains("TYPE=\"iso9660\""),
            "{seen}"
        );
        let root = dump(&device.0)[2].clone();
        assert_eq!(root.0 + root.1, last.partition.extent.start_lba);

        claim.clear().unwrap();
        assert!(Disk::probe(&device.0).unwrap().contents().unwrap().is_empty());
    }
}

#[test]
fn what_differs_from_the_plan_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let size = 3072 * MIB;
    let device = Loop::over(&image(&directory, size), 512);
    let request = request(size, 512);
    let layout = Layout::plan(&request).unwrap();
    let disk = Disk::probe(&device.0).unwrap();
    let claim = Disk::claim(disk.give_up(true).unwrap()).unwrap();
    let verdict = || match VerifiedDisk::verify(&claim, &layout, BootPath::Loader) {
        Ok(installed) => format!("{:?}", installed.boot_loader().unwrap()),
        Err(error) => format!("{:#}", error),
    };
    assert!(verdict().contains("has no partition table"));
    assert!(claim.is_untouched().unwrap(), "reading is no change");
    // As IPA asks for it: larger than what is left, so sfdisk clamps and says nothing.
    stand_in_for_bootc(
        &directory,
        &device.0,
        &request,
        9999,
        Some("EFI/BOOT/BOOTX64.EFI"),
    );
    assert!(verdict().contains("partition 3 (root) has"), "{}", verdict());
    assert!(!claim.is_untouched().unwrap());
    let install = |loader| stand_in_for_bootc(&directory, &device.0, &request, layout.root_size_mib, loader);
    install(None);
    assert!(verdict().contains("holds no boot loader"), "{}", verdict());
    install(Some("EFI/Linux/fedora-6.12.efi"));
    assert!(verdict().contains("is_fallback: false"), "{}", verdict());
    install(Some("EFI/BOOT/BOOTX64.EFI"));
    assert!(verdict().contains("is_fallback: true"), "{}", verdict());
    let root = layout.partition(Role::Root).unwrap().extent.start_lba * 512;
    overwrite(&mut open(&device.0), root, 8192);
    assert!(
        verdict().contains("holds nothing known; expected a file system"),
        "{}",
        verdict()
    );
    run("sgdisk", &["--change-name=2:other", text(&device.0)]);
    assert!(verdict().contains("partition 2 is \"other\""), "{}", verdict());
}

#[test]
fn boot_loaders_are_told_from_tools() {
    let x86 = "EFI/BOOT/BOOTX64.EFI";
    let cases: [(&[&str], Arch, Option<&str>); 9] = [
        (
            &["EFI/tools/memtest.efi", "EFI/BOOT/grubenv.efi"],
            Arch::X86_64,
            None,
        ),
        (
            &["EFI/fedora/mmx64.efi", "EFI/fedora/fbx64.efi"],
            Arch::X86_64,
            None,
        ),
        (&[x86], Arch::X86_64, Some(x86)),
        (&[x86], Arch::Aarch64, None),
        (&["EFI/fedora/shimx64.efi", x86], Arch::X86_64, Some(x86)),
        (
            &["EFI/fedora/grubx64.efi", "EFI/fedora/shimx64.efi"],
            Arch::X86_64,
            Some("EFI/fedora/shimx64.efi"),
        ),
        (
            &["EFI/opensuse/grub.efi"],
            Arch::Aarch64,
            Some("EFI/opensuse/grub.efi"),
        ),
        (
            &["EFI/systemd/systemd-bootaa64.efi"],
            Arch::Aarch64,
            Some("EFI/systemd/systemd-bootaa64.efi"),
        ),
        (
            &["EFI/Linux/fedora-6.12.efi"],
            Arch::X86_64,
            Some("EFI/Linux/fedora-6.12.efi"),
        ),
    ];
    for (files, arch, expected) in cases {
        let directory = tempfile::tempdir().unwrap();
        let esp = esp(&directory, 64 * MIB, 512, None);
        let program = text(&directory.path().join("program")).to_string();
        run("mmd", &["-i", text(&esp), "::EFI"]);
        let directories: BTreeSet<_> = files
            .iter()
            .map(|file| Path::new(file).parent().unwrap())
            .collect();
        for directory in directories {
            run("mmd", &["-i", text(&esp), &format!("::{}", directory.display())]);
        }
        for file in files {
            run("mcopy", &["-i", text(&esp), &program, &format!("::{file}")]);
        }
        let found = find_boot_loader(open(&esp), Some(arch)).ok();
        let is_fallback = expected == Some(x86);
        let expected = expected.map(|path| (path.to_string(), is_fallback));
        assert_eq!(
            found.map(|found| (found.path, found.is_fallback)),
            expected,
            "{files:?}"
        );
    }
}

#[test]
fn a_disk_in_use_or_with_contents_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 64 * MIB), 512);
    run("mkfs.ext4", &["-q", "-L", "precious", text(&device.0)]);
    let disk = Disk::probe(&device.0).unwrap();
    let refusal = disk.clone().give_up(false).unwrap_err().to_string();
    assert!(
        refusal.contains("--wipe") && refusal.ends_with("ext4 \"precious\""),
        "{refusal}"
    );
    let given_up = disk.clone().give_up(true).unwrap();
    // Mounted in a namespace of its own: /proc/self/mountinfo doesn't show it.
    let mount = format!(
        "mount {} {} && echo mounted && read line",
        text(&device.0),
        text(directory.path())
    );
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &mount])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(holder.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_eq!(line, "mounted\n");
    let refusal = disk.refuse_if_in_use().unwrap_err().to_string();
    assert!(refusal.contains("is mounted at"), "{refusal}");
    assert!(disk.clone().give_up(true).is_err());
    assert!(Disk::claim(given_up).is_err());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    disk.refuse_if_in_use().unwrap();
    // Held by nothing that can be listed.
    let held = OpenOptionsExclusive::open(&device.0);
    assert!(
        disk.refuse_if_in_use()
            .unwrap_err()
            .to_string()
            .contains("O_EXCL")
    );
    drop(held);
    disk.refuse_if_in_use().unwrap();
}

#[test]
fn swap_and_loop_devices_use_a_disk_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 64 * MIB), 512);
    let disk = Disk::probe(&device.0).unwrap();
    let refusal = || disk.refuse_if_in_use().unwrap_err().to_string();
    run("mkswap", &["-q", text(&device.0)]);
    run("swapon", &[text(&device.0)]);
    let swapping = std::panic::catch_unwind(refusal);
    run("swapoff", &[text(&device.0)]);
    let name = text(&device.0).trim_start_matches("/dev/");
    assert!(
        swapping
            .unwrap()
            .contains(&format!("{name} is used as swap; unmount or release it first"))
    );
    disk.refuse_if_in_use().unwrap();
    let above = Loop::over(&device.0, 512);
    let holder = text(&above.0).trim_start_matches("/dev/");
    assert!(
        refusal().contains(&format!("{name} is held by {holder};")),
        "{}",
        refusal()
    );
    drop(above);
    disk.refuse_if_in_use().unwrap();
}

#[test]
fn other_names_of_a_disk_lead_to_the_kernels_own() {
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::over(&image(&directory, 64 * MIB), 512);
    let (link, node) = (directory.path().join("link"), directory.path().join("node"));
    std::os::unix::fs::symlink(&device.0, &link).unwrap();
    let number = Disk::probe(&device.0).unwrap().number;
    let (major, minor) = (number.0.to_string(), number.1.to_string());
    run("mknod", &[text(&node), "b", &major, &minor]);
    for path in [link, node] {
        let disk = Disk::probe(&path).unwrap();
        assert_eq!((disk.node, disk.path), (device.0.clone(), path));
    }
}

struct OpenOptionsExclusive;

impl OpenOptionsExclusive {
    fn open(path: &Path) -> File {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_EXCL)
            .open(path)
            .unwrap()
    }
}

#[test]
fn another_disk_by_the_same_name_is_not_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let file = image(&directory, 64 * MIB);
    let device = Loop::over(&file, 512);
    let disk = Disk::probe(&device.0).unwrap();
    let expendable = disk.give_up(true).unwrap();
    run("losetup", &["--detach", text(&device.0)]);
    run("losetup", &["--sector-size", "512", text(&device.0), text(&file)]);
    let error = Disk::claim(expendable).unwrap_err();
    assert!(
        error.to_string().contains("is not the disk that was checked"),
        "{error}"
    );
}

#[test]
fn partitions_empty_and_read_only_devices_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = image(&directory, 64 * MIB);
    feed(
        "sfdisk",
        &["--quiet", text(&file)],
        "label: gpt\nsize=8MiB, name=\"first\"\n",
    );
    let device = Loop::over(&file, 512);
    let contents = Disk::probe(&device.0).unwrap().contents().unwrap();
    assert_eq!(contents.to_string(), "a GPT with 1 partition; 1: \"first\" 8 MiB");
    run("partx", &["--add", text(&device.0)]);
    let disk = Disk::probe(&device.0).unwrap();
    assert_eq!(disk.partitions.len(), 1);
    let node = disk.partition_node(1);
    let error = Disk::probe(&node).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{} is a partition; the whole disk is {}",
            node.display(),
            device.0.display()
        )
    );
    run("partx", &["--delete", text(&device.0)]);
    run("blockdev", &["--setro", text(&device.0)]);
    let disk = Disk::probe(&device.0).unwrap();
    assert!(
        disk.give_up(true)
            .unwrap_err()
            .to_string()
            .ends_with("is read-only")
    );
    run("blockdev", &["--setrw", text(&device.0)]);
}
