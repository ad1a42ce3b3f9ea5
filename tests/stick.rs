//! Sticks, by the labels of their file systems: images are written to them and read from them.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::pull::{lab, layer, pull, skopeo_digest, stopped_half_way};
use support::{Lab, LoopDisk, Ran, assert_nothing_left, landfall, output};

const UNTOUCHED: Option<i32> = Some(3);

/// A stick with an empty file system.
fn stick(lab: &Lab, file: &str) -> LoopDisk {
    let disk = LoopDisk::new(&lab.directory.path().join(file), 64 << 20);
    output(
        Command::new("mkfs.ext4")
            .args(["-q", "-L", "LANDFALL-TEST"])
            .arg(&disk.device),
    );
    disk
}

/// A stick where someone else has mounted it.
struct Mounted(PathBuf);

impl Mounted {
    fn new(lab: &Lab, disk: &LoopDisk, options: &str) -> Self {
        let at = lab.directory.path().join("mounted");
        fs::create_dir_all(&at).unwrap();
        output(
            Command::new("mount")
                .args(["-o", options])
                .arg(&disk.device)
                .arg(&at),
        );
        Self(at)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        output(Command::new("umount").arg(&self.0));
    }
}

/// Nobody knows where we mount things.
fn assert_says_no_path_of_ours(ran: &Ran) {
    for path in ["/proc/driver", "/run/landfall"] {
        assert!(!ran.stderr.contains(path), "{ran:#?}");
    }
}

fn succeeded(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_says_no_path_of_ours(&ran);
    assert_nothing_left();
    ran
}

fn refused(ran: &Ran, expected: &str) {
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(ran.error().contains(expected), "{expected:?} is not in {ran:#?}");
    assert_says_no_path_of_ours(ran);
    assert_nothing_left();
}

#[test]
fn an_image_is_written_to_a_stick_and_read_from_it() {
    let (lab, name) = lab();
    let disk = stick(&lab, "stick");
    let ran = succeeded(pull(&name, "oci:LABEL=LANDFALL-TEST/images:web"));
    assert!(ran.stderr.contains("it can be unplugged"), "{ran:#?}");
    let programs = lab.image("programs", "exit 0");
    succeeded(pull(&programs, "oci:LABEL=LANDFALL-TEST/images:programs"));
    succeeded(pull(&name, "oci-archive:LABEL=LANDFALL-TEST/web.tar:web"));
    assert!(!Path::new("LABEL=LANDFALL-TEST").exists());
    // It was unmounted properly, and everyone else finds the very image on it.
    output(Command::new("e2fsck").args(["-f", "-n"]).arg(&disk.device));
    let mounted = Mounted::new(&lab, &disk, "ro");
    let digest = lab.layout.resolve("1").unwrap().to_string();
    let at = mounted.path().display();
    for place in [
        format!("oci:{at}/images:web"),
        format!("oci-archive:{at}/web.tar:web"),
    ] {
        assert_eq!(skopeo_digest(&place), digest);
    }
    drop(mounted);

    let root = lab.directory.path().join("root");
    let unpack = |image: &str| landfall(["unpack", image, "--to", root.to_str().unwrap()]);
    succeeded(unpack("oci:LABEL=LANDFALL-TEST/images:web"));
    assert!(root.join("noise").exists());
    let image = "oci:LABEL=LANDFALL-TEST/images:programs";
    let ran = succeeded(landfall(["run", image, "--", "ls", "/usr/bin/bootc"]));
    assert_eq!(ran.stdout.trim(), "/usr/bin/bootc");
    // It can't be the target at the same time.
    let device = disk.device.to_str().unwrap();
    refused(
        &landfall(["plan", "oci:LABEL=LANDFALL-TEST/images:web", device, "--wipe"]),
        "is in use: LABEL=LANDFALL-TEST (/dev/loop",
    );
    refused(
        &unpack("oci:LABEL=LANDFALL-TEST/images:none"),
        "LABEL=LANDFALL-TEST/images has no image named \"none\"",
    );
    refused(
        &unpack("oci:LABEL=LANDFALL-TEST/nothing:web"),
        "opening LABEL=LANDFALL-TEST/nothing/oci-layout",
    );
    refused(
        &unpack("oci:LABEL=LANDFALL-NONE/images:web"),
        "no file system with the label \"LANDFALL-NONE\"",
    );
    let _second = stick(&lab, "second");
    for ran in [
        unpack("oci:LABEL=LANDFALL-TEST/images:web"),
        pull(&name, "oci:LABEL=LANDFALL-TEST/images:web"),
    ] {
        refused(&ran, "both have the label \"LANDFALL-TEST\"");
    }
}

#[test]
fn a_stick_that_someone_else_has_mounted_is_used_all_the_same() {
    let (lab, name) = lab();
    let disk = stick(&lab, "stick");
    let to = "oci:LABEL=LANDFALL-TEST/images:web";
    let mounted = Mounted::new(&lab, &disk, "rw");
    let layer = layer(&lab, 0);
    let images = mounted.path().join("images");
    let partial = images.join(".landfall-partial").join(layer.hex());
    stopped_half_way(&lab, to, || Some(partial.clone()));
    lab.registry.let_it_log();
    let log = lab.registry.log();
    let ran = succeeded(pull(&name, to));
    assert!(ran.stderr.contains("it is mounted elsewhere as well"), "{ran:#?}");
    // It went on where it was.
    lab.registry.let_it_log();
    let now = lab.registry.log();
    let parts = now[log.len()..]
        .lines()
        .filter(|line| line.contains(&format!("blobs/{layer}\"")));
    assert!(
        parts.clone().count() > 0
            && parts
                .clone()
                .all(|line| line.contains("http.response.status=206")),
        "{}",
        &now[log.len()..]
    );
    let blob = images.join("blobs/sha256").join(layer.hex());
    assert_eq!(
        fs::read(blob).unwrap(),
        fs::read(lab.registry.blob(&layer)).unwrap()
    );

    let root = lab.directory.path().join("root");
    succeeded(landfall(["unpack", to, "--to", root.to_str().unwrap()]));
    assert!(root.join("noise").exists());
    drop(mounted);
    let _mounted = Mounted::new(&lab, &disk, "ro");
    refused(
        &pull(&name, to),
        "it is mounted read-only elsewhere: unmount it there",
    );
}

#[test]
fn what_cannot_be_written_to_a_stick_is_said() {
    let (lab, name) = lab();
    let disk = stick(&lab, "stick");
    let elsewhere = lab.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    {
        let mounted = Mounted::new(&lab, &disk, "rw");
        symlink(&elsewhere, mounted.path().join("away")).unwrap();
    }
    for (to, expected) in [
        (
            "oci:LABEL=LANDFALL-TEST/images/os",
            "directory LABEL=LANDFALL-TEST/images does not exist: create it",
        ),
        (
            "oci-archive:LABEL=LANDFALL-TEST/images/os.tar",
            "directory LABEL=LANDFALL-TEST/images does not exist: create it",
        ),
        // It would lead what is written to another file system.
        (
            "oci:LABEL=LANDFALL-TEST/away",
            "writing to LABEL=LANDFALL-TEST/away",
        ),
        (
            "oci:LABEL=LANDFALL-NONE/images",
            "no file system with the label \"LANDFALL-NONE\"",
        ),
    ] {
        refused(&pull(&name, to), expected);
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    lab.layout
        .edit_manifest("1", |manifest| manifest["layers"][0]["size"] = (100 << 20).into())
        .unwrap();
    refused(
        &pull(&lab.place("1"), "oci:LABEL=LANDFALL-TEST/images"),
        "more is needed there",
    );
    output(Command::new("blockdev").arg("--setro").arg(&disk.device));
    refused(
        &pull(&name, "oci:LABEL=LANDFALL-TEST/images"),
        "it is write-protected",
    );
    output(Command::new("blockdev").arg("--setrw").arg(&disk.device));
    for to in ["oci:LABEL=/os", "oci-archive:LABEL=LANDFALL-TEST"] {
        let ran = pull(&name, to);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
    }
}
