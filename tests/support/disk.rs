//! Disks made of files, and the programs that everyone else uses on them.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landfall::disk::{Arch, Backend, BlockSetup, BootcVersion, Geometry, LayoutRequest};
use tempfile::TempDir;

/// Runs a program to its end and returns what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    feed(program, arguments, "")
}

pub fn feed(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} can't be started ({error}): install it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}{errors}",
        output.status
    );
    text
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
        // The kernel keeps partitions that it was told of, even for the next file on this device. There may be none.
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
