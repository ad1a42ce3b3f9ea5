//! `landfall config-drive write` in a virtual machine, by hand as it were: disks that have a system get a
//! config drive, twice, and the kernel mounts it: first xorriso's, then one that Landfall makes of a
//! directory. One disk has an MBR, the other a GPT and sectors of 4096 bytes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use lab::kernel::Kernel;
use lab::ramdisk::Builder;
use lab::vm::{Disk, Machine};
use lab::{apt, command, config_drive, product, scenario};
use serde_json::Value;
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;

/// Both disks have a config drive of the same label, so each is mounted by its node; blkid reads the labels
/// afterwards.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk isofs vfat nls_cp437 nls_ascii nls_iso8859_1 nls_utf8; do
	modprobe -q "$module"
done
look() {
	mount -t "$2" -o "ro$4" "$3" /mnt || echo "VM FAILED: the $2 on $3 can't be mounted"
	(cd /mnt && find . -type f -exec sha256sum {} +) | sed "s|^|VM $1 $2$4 |"
	umount /mnt
}
for source in /config-drive.iso /tree; do
	for disk in /dev/vda /dev/vdb; do
		landfall config-drive write $source $disk || echo "VM FAILED: $source to $disk: $?"
	done
	look $source iso9660 /dev/vdb3
	look $source iso9660 /dev/vdb3 ,norock
	look $source vfat /dev/vda2
done
echo "VM DONE"
poweroff -f
"#;

/// An MBR with boot code, a system of 24 MiB and a logical partition of 8 MiB, all full of something.
fn disk_with_mbr(path: &Path) -> Result<Disk> {
    let disk = Disk::create(path, 160)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&[0xeb; 440], 0)?;
    command::filter(
        Command::new("sfdisk").args(["--quiet", "--wipe=never"]).arg(path),
        b"label: dos\nstart=1MiB, size=24MiB, type=83, bootable\nstart=30MiB, size=20MiB, type=f\nstart=31MiB, size=8MiB, type=83\n",
    )?;
    for (start, size) in [(1, 24), (31, 8)] {
        let content: Vec<u8> = (0..size * MIB).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&content, start * MIB)?;
    }
    Ok(disk)
}

/// A GPT with one partition.
fn disk_with_large_sectors(path: &Path) -> Result<Disk> {
    let disk = Disk::create(path, 200)?.sector_size(4096);
    let mut fdisk = Command::new("fdisk");
    command::filter(
        fdisk.args(["--sector-size", "4096"]).arg(path),
        b"g\nn\n1\n\n+20M\nw\n",
    )?;
    Ok(disk)
}

fn partitions_of_mbr(disk: &Disk) -> Result<Vec<Value>> {
    let said = command::output(Command::new("sfdisk").arg("--json").arg(&disk.path))?;
    let table: Value = serde_json::from_str(&said)?;
    let partitions = table["partitiontable"]["partitions"].as_array();
    Ok(partitions.context("sfdisk sees no partitions")?.clone())
}

#[test]
fn an_mbr_and_large_sectors_get_a_config_drive_that_the_kernel_mounts() -> Result<()> {
    let missing = apt::missing(&["qemu-system-x86", "ovmf", "busybox-static"]);
    if !missing.is_empty() {
        let reason = format!("{} missing; run `cargo xtask setup`", missing.join(", "));
        return lab::cannot_run("writing config drives in a virtual machine", &reason);
    }
    let directory = lab::tempdir()?;
    let file = |name: &str| directory.path().join(name);
    config_drive::create(&file("config-drive.iso"), config_drive::FILES)?;
    config_drive::lay_out(&file("tree"), config_drive::FILES)?;
    fs::write(file("init"), INIT)?;
    let kernel = Kernel::fetch()?;
    let landfall = product::build()?;
    let mut ramdisk = Builder::new(&kernel, &file("init"))?
        .program(Path::new("/bin/busybox"), "bin/busybox")?
        .program(&landfall, "usr/bin/landfall")?
        .file(&file("config-drive.iso"), "config-drive.iso")?;
    for (name, _) in config_drive::FILES {
        ramdisk = ramdisk.file(&file("tree").join(name), &format!("tree/{name}"))?;
    }
    ramdisk.write(&file("ramdisk"))?;
    let mbr = disk_with_mbr(&file("mbr.img"))?;
    let gpt = disk_with_large_sectors(&file("gpt.img"))?;
    let before = partitions_of_mbr(&mbr)?;
    let bytes = fs::read(&mbr.path)?;

    let said = Machine::new(&mbr)
        .second(&gpt)
        .kernel(
            &kernel.vmlinuz,
            &file("ramdisk"),
            "console=ttyS0 PATH=/bin:/usr/bin",
        )
        .echo("config drive: ")
        .run()?;

    assert!(said.contains("VM DONE") && !said.contains("VM FAILED"), "{said}");
    for (name, content) in config_drive::FILES {
        let digest: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for source in ["/config-drive.iso", "/tree"] {
            for kind in ["iso9660", "iso9660,norock", "vfat"] {
                let line = format!("VM {source} {kind} {digest}  ./{name}");
                assert!(said.contains(&line), "{line:?} is not in what was said:\n{said}");
            }
        }
    }

    let after = partitions_of_mbr(&mbr)?;
    let (old, new): (Vec<_>, Vec<_>) = after
        .into_iter()
        .partition(|partition| before.contains(partition));
    assert_eq!(old, before);
    let [new] = &new[..] else { panic!("{new:#?}") };
    let start = new["start"].as_u64().context("a start")? * 512;
    assert_eq!(
        (new["type"].as_str(), new["size"].as_u64()),
        (Some("c"), Some(64 * MIB / 512))
    );
    assert_eq!(start, (160 - 64) * MIB);
    let written = fs::read(&mbr.path)?;
    // The same files give the same bytes.
    let mut build = Command::new(&landfall);
    build.args(["config-drive", "build"]).arg(file("tree"));
    command::run(build.arg("--output").arg(file("built.iso")))?;
    let iso = fs::read(file("built.iso"))?;
    assert!(
        written[start as usize..][..iso.len()] == iso,
        "the config drive is another"
    );
    assert!(written[..440] == bytes[..440], "the boot code was changed");
    assert!(
        written[512..start as usize] == bytes[512..start as usize],
        "a partition was changed"
    );
    let mut blkid = Command::new("blkid");
    blkid.args(["--probe", "--output", "export", "--offset", &start.to_string()]);
    let probed = command::output(blkid.arg(&mbr.path))?;
    assert!(
        probed.contains("TYPE=iso9660") && probed.contains("LABEL=config-2"),
        "{probed}"
    );

    let found = scenario::check_disk(&gpt, None)?;
    assert!(
        found
            .iter()
            .any(|line| line.contains("config-2: TYPE=vfat LABEL=config-2")),
        "{found:#?}"
    );
    assert_eq!(
        found.len(),
        3,
        "a table, the partition that was there, and one config drive: {found:#?}"
    );
    Ok(())
}
