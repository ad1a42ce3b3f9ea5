//! Disks made of files, and the programs that everyone else uses on them.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall::{Arch, Backend, BlockSetup, BootcVersion, Geometry, Layout, LayoutRequest, MIB, Role};
use tempfile::TempDir;

/// Runs a program to its end and returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    feed(program, arguments, "")
}

#[track_caller]
pub fn feed(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1");
    lab::command::filter(&mut command, input.as_bytes()).unwrap_or_else(|error| panic!("{error:#}"))
}

pub fn image(directory: &TempDir, size_bytes: u64) -> PathBuf {
    let path = directory.path().join("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(size_bytes).unwrap();
    path
}

pub fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device with sectors of a chosen size.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn over(file: &Path, sector_bytes: u64) -> Self {
        let sector = sector_bytes.to_string();
        let node = run(
            "losetup",
            &["--find", "--show", "--sector-size", &sector, text(file)],
        );
        Self(PathBuf::from(node.trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The kernel keeps partitions that it was told of, even for the next file on this device. There may
        // be none.
        let _ = Command::new("partx").arg("--delete").arg(&self.0).output();
        run("losetup", &["--detach", text(&self.0)]);
    }
}

pub fn request(size_bytes: u64, sector_bytes: u64) -> LayoutRequest {
    LayoutRequest {
        geometry: Geometry::plain(size_bytes, sector_bytes),
        arch: Arch::X86_64,
        backend: Backend::Ostree,
        block_setup: BlockSetup::Direct,
        bootc: BootcVersion::default(),
        config_drive: true,
        root_at_least_mib: 1024,
        root_exactly_mib: None,
    }
}

/// Partitions as sfdisk sees them: start, size, type, name.
pub fn dump(device: &Path) -> Vec<(u64, u64, String, String)> {
    let json: serde_json::Value = serde_json::from_str(&run("sfdisk", &["--json", text(device)])).unwrap();
    let partitions = json["partitiontable"]["partitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    partitions
        .iter()
        .map(|each| {
            (
                each["start"].as_u64().unwrap(),
                each["size"].as_u64().unwrap(),
                text(&each["type"]).to_lowercase(),
                text(&each["name"]),
            )
        })
        .collect()
}

/// Makes the partition table that this script asks for.
pub fn sfdisk(device: &Path, script: &str) {
    let quiet = ["--quiet", "--wipe=always", "--no-reread", "--no-tell-kernel"];
    feed("sfdisk", &[&quiet[..], &[text(device)]].concat(), script);
}

pub fn assert_sgdisk_is_content(device: &Path) {
    let verdict = run("sgdisk", &["--verify", text(device)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
}

pub fn overwrite(disk: &mut File, offset: u64, length: usize) {
    disk.seek(SeekFrom::Start(offset)).unwrap();
    disk.write_all(&vec![0xa5; length]).unwrap();
}

/// `TYPE`, `LABEL` and `UUID` as blkid tells them.
pub fn blkid(path: &Path) -> (String, Option<String>, Option<String>) {
    let output = run("blkid", &["--probe", "--output", "export", text(path)]);
    let value = |key: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.replace('\\', ""))
    };
    (value("TYPE").expect("a type"), value("LABEL"), value("UUID"))
}

/// What bootc tells sfdisk (its `install/baseline.rs`), written down here a second time on purpose.
pub fn sfdisk_script(request: &LayoutRequest, root_size_mib: u64) -> String {
    let mut script = String::from("label: gpt\n");
    if request.arch == Arch::X86_64 {
        script += "size=1MiB, bootable, type=21686148-6449-6E6F-744E-656564454649, name=\"BIOS-BOOT\"\n";
    }
    let esp = if request.backend == Backend::Composefs {
        1024
    } else {
        512
    };
    script += &format!("size={esp}MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI-SYSTEM\"\n");
    if request.block_setup == BlockSetup::Tpm2Luks {
        script += "size=510MiB, name=\"boot\"\n";
    }
    let root = match request.arch {
        Arch::X86_64 => "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        Arch::Aarch64 => "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
    };
    script + &format!("size={root_size_mib}MiB, type={root}, name=\"root\"\n")
}

/// An EFI system partition with a boot loader, as an image file.
pub fn esp(directory: &TempDir, size_bytes: u64, sector_bytes: u64, loader: Option<&str>) -> PathBuf {
    let path = directory.path().join("esp.img");
    File::create(&path).unwrap().set_len(size_bytes).unwrap();
    run(
        "mkfs.fat",
        &["-S", &sector_bytes.to_string(), "-n", "EFI-SYSTEM", text(&path)],
    );
    let program = directory.path().join("program");
    fs::write(&program, b"MZ\x90and so on").unwrap();
    if let Some(loader) = loader {
        run("mmd", &["-i", text(&path), "::EFI", "::EFI/BOOT", "::EFI/Linux"]);
        run(
            "mcopy",
            &["-i", text(&path), text(&program), &format!("::{loader}")],
        );
    }
    path
}

/// Copies a file to where only zeros are; its holes stay holes.
pub fn copy_sparse(from: &Path, disk: &File, start: u64) {
    let source = File::open(from).unwrap();
    let length = source.metadata().unwrap().len();
    let mut chunk = vec![0; MIB as usize];
    for offset in (0..length).step_by(MIB as usize) {
        source.read_exact_at(&mut chunk, offset).unwrap();
        if chunk.iter().any(|byte| *byte != 0) {
            disk.write_all_at(&chunk, start + offset).unwrap();
        }
    }
}

/// Does to a device what bootc does, as far as a look at the disk can tell.
pub fn stand_in_for_bootc(
    directory: &TempDir,
    device: &Path,
    request: &LayoutRequest,
    root_size_mib: u64,
    loader: Option<&str>,
) {
    run("blkdiscard", &["--force", text(device)]);
    let script = sfdisk_script(request, root_size_mib);
    sfdisk(device, &script);
    let sector_bytes = request.geometry.sector_bytes;
    let layout = Layout::plan(request).unwrap();
    let disk = open(device);
    let put = |role: Role, file: &Path| {
        let start = layout.partition(role).unwrap().extent.start_lba * sector_bytes;
        copy_sparse(file, &disk, start);
    };
    let esp_bytes = layout.partition(Role::Esp).unwrap().extent.sectors * sector_bytes;
    put(Role::Esp, &esp(directory, esp_bytes, sector_bytes, loader));
    let root = directory.path().join("root.img");
    File::create(&root).unwrap().set_len(64 * MIB).unwrap();
    run("mkfs.ext4", &["-q", "-L", "root", text(&root)]);
    put(Role::Root, &root);
    disk.sync_all().unwrap();
}
