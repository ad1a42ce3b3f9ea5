//! Config drives as cloud-init finds and reads them: its own DataSourceConfigDrive, from the distribution's
//! package, on disks that Landfall wrote. Needs root.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall::MIB;
use serde_json::{Value, json};
use support::disk::{Loop, image, run, text};
use support::{landfall, output};

/// cloud-init and the Python modules that it needs, unpacked and not installed: nothing of it runs at the
/// next boot.
fn cloud_init() -> PathBuf {
    const PACKAGE: &str = "cloud-init";
    let directory = lab::target().join(format!("{PACKAGE}-{}", lab::apt::candidate(PACKAGE).unwrap()));
    if !directory.exists() {
        let unfinished = directory.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).unwrap();
        let is_module = |name: &str| name.starts_with("python3-");
        lab::apt::unpack(PACKAGE, is_module, &unfinished).unwrap();
        fs::rename(&unfinished, &directory).unwrap();
    }
    directory.join("usr/lib/python3/dist-packages")
}

/// Whether this kernel can mount both file systems itself.
fn kernel_mounts() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    ["vfat", "iso9660"].iter().all(|kind| known.contains(kind))
}

/// What cloud-init finds on a disk.
fn ask(device: &Path) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud_init");
    let usual = "/usr/sbin:/usr/bin:/sbin:/bin";
    let path = if kernel_mounts() {
        usual.to_string()
    } else {
        format!("{}:{usual}", own.display())
    };
    let answer = output(
        Command::new("python3")
            .arg(own.join("read.py"))
            .args([device, directory.path()])
            .env("PYTHONPATH", cloud_init())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PATH", path),
    );
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn cloud_init_reads_what_is_written_as_iso_and_as_fat() {
    let given = json!({
        "meta_data": {"uuid": "2f1a2f3c-2d0c-4b8b-9f55-6f0d2f6a5d10", "hostname": "node-17.lab", "name": "node-17"},
        "user_data": "#cloud-config\nhostname: ünïcode\n",
        "network_data": {"links": [], "networks": [], "services": [{"type": "dns", "address": "192.0.2.1"}]},
        "vendor_data": {"site": "lab"},
    });
    for (sector_bytes, kind) in [(512, "iso9660"), (4096, "vfat")] {
        let directory = tempfile::tempdir().unwrap();
        let device = Loop::over(&image(&directory, 200 * MIB), sector_bytes);
        run("sgdisk", &["--clear", "--new=1:1M:+20M", text(&device.0)]);
        let source = directory.path().join("drive.json");
        fs::write(&source, given.to_string()).unwrap();
        assert_eq!(ask(&device.0)["found"], false, "there is none yet");

        let ran = landfall(["config-drive", "write", text(&source), text(&device.0)]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        run("partx", &["--update", text(&device.0)]);
        let node = format!("{}p2", device.0.display());
        let probed = run(
            "blkid",
            &["--probe", "--output", "value", "--match-tag", "TYPE", &node],
        );
        assert_eq!(probed.trim(), kind);
        let found = ask(&device.0);
        assert_eq!(found["found"], true, "{kind}: {found:#}");
        assert_eq!(
            (&found["device"], &found["version"]),
            (&json!(node), &json!(2)),
            "{kind}"
        );
        assert_eq!(
            found["metadata"]["instance-id"], given["meta_data"]["uuid"],
            "{kind}"
        );
        assert_eq!(
            found["metadata"]["local-hostname"], "node-17.lab",
            "{kind}: {found:#}"
        );
        assert_eq!(found["user_data"], given["user_data"], "{kind}");
        assert_eq!(found["network"], given["network_data"], "{kind}");
    }
}
