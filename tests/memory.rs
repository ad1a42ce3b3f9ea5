//! How much memory a pull takes.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use lab::image::{Compression, Entry, Image, Layer, Layout};
use support::LANDFALL;

const MIB: u64 = 1 << 20;
/// What the window of one layer takes.
const WINDOW_BYTES: u64 = 64 * MIB;
/// What all else takes, with room.
const BESIDE_BYTES: u64 = 90 * MIB;

/// The most memory that a process has had so far; nothing when it has ended.
fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn layers_with_large_windows_take_no_more_than_one_of_them() {
    let folder = lab::tempdir().unwrap();
    let layout = Layout::create(&folder.path().join("layout")).unwrap();
    // Enough for a decoder to use all of its window.
    let content = vec![0; (WINDOW_BYTES + 4 * MIB) as usize];
    let layer = |name| Layer::new([Entry::file(name, content.clone())]).compressed(Compression::ZstdLong);
    layout
        .add(&Image::new().layers(["one", "two", "three"].map(layer)), "long")
        .unwrap();
    let mut unpack = Command::new(LANDFALL)
        .args(["unpack", &format!("oci:{}:long", layout.path().display()), "--to"])
        .arg(folder.path().join("root"))
        .args(["--progress", "none"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let ended = loop {
        // It never becomes less while it runs.
        peak = peak.max(peak_bytes(unpack.id()).unwrap_or(0));
        if let Some(ended) = unpack.try_wait().unwrap() {
            break ended;
        }
        sleep(Duration::from_millis(1));
    };
    assert!(ended.success(), "{ended}");
    assert!(peak > WINDOW_BYTES, "no window was used: {} MiB", peak / MIB);
    assert!(peak < WINDOW_BYTES + BESIDE_BYTES, "{} MiB", peak / MIB);
}
