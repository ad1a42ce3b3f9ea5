//! What reaches a terminal: nothing of a stranger's that steers it, is invisible, or changes the order of
//! what is shown.

mod support;

use std::fs;
use std::process::Command;

use lab::faulty::{Fault, Faulty, Rule};
use lab::image::{Entry, Layer};
use landfall::{Layout, LayoutRequest, MIB, Role};
use support::disk::{Loop, image, request, run, stand_in_for_bootc, text};
use support::{GIB, LANDFALL, Lab, Ran, landfall, output};

/// Clears the screen, sets its title, changes the colour in the 8-bit way; then what can't be seen: an
/// override of the order of characters, an isolate, a space of no width, a soft hyphen, a tag, two that end a
/// line or a paragraph.
const HOSTILE: &str = "evil\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}\u{2066}\u{200b}\u{ad}\u{e0041}\u{2028}\u{2029}\nlandfall: all is well";

/// The same without what a file's name on FAT can't have.
const HOSTILE_ON_FAT: &str = "evil\u{202e}\u{2066}\u{200b}\u{ad}\u{2028}";

/// It tells of what is evil, and harms nobody by it.
#[track_caller]
fn assert_harmless(ran: &Ran) {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("evil"), "{ran:#?}");
    let harmful =
        |char: &char| char.is_control() && *char != '\n' || HOSTILE[4..].contains(*char) && !char.is_ascii();
    assert_eq!(said.chars().find(harmful), None, "{ran:#?}");
    assert!(
        !said.lines().any(|line| line == "landfall: all is well"),
        "{ran:#?}"
    );
}

#[test]
fn an_image_and_its_bootc_steer_no_terminal() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let install = |image: &str| landfall(disk.install(image, &["--keep-on-failure"]));

    let talks = support::installable(&format!("cat <<'END'\n{HOSTILE}\nEND\nexit 3")).label(HOSTILE, HOSTILE);
    lab.layout.add(&talks, "talks").unwrap();
    let talks = lab.place("talks");
    assert_harmless(&landfall(["inspect", &talks, "--tls-verify=false"]));
    let json = landfall(["inspect", &talks, "--tls-verify=false", "--json"]);
    assert_harmless(&json);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["labels"][HOSTILE], HOSTILE, "JSON means what it meant");
    assert_harmless(&install(&talks));

    // Escaped in JSON, it is harmless as long as nobody reads that.
    let configuration = serde_json::json!({ "block": [HOSTILE], "root-fs-type": "ext4" });
    let answers = format!(
        "#!/bin/sh\ncase \"$*\" in --version) echo 1.16.9;; *--help) ;; *) cat <<'END'\n{configuration}\nEND\nesac\n"
    );
    let allows = Layer::new([Entry::program("usr/bin/bootc", answers)]);
    lab.layout.derive("talks", &[allows], "allows").unwrap();
    assert_harmless(&install(&lab.place("allows")));

    let uki = Entry::file(format!("boot/EFI/Linux/{HOSTILE}.efi"), "no program");
    lab.layout.derive("talks", &[Layer::new([uki])], "uki").unwrap();
    assert_harmless(&install(&lab.place("uki")));
}

#[test]
fn a_registry_steers_no_terminal() {
    let lab = Lab::new();
    lab.image("1", "exit 0");
    let body = r#"{"errors":[{"code":"DENIED","message":"evil\u001b[2J\u009b31m\u202e\u2066\u200b\u00ad\u2028\nlandfall: all is well"}]}"#;
    let answer = Fault::Answer {
        status: 403,
        headers: &[],
        body,
    };
    let proxy = Faulty::start(&lab.registry.host(), vec![Rule::always("/manifests/", answer)]);
    assert_harmless(&landfall([
        "inspect",
        &format!("{}/os/test:1", proxy.host()),
        "--tls-verify=false",
    ]));
}

#[test]
fn a_disk_and_a_config_drive_steer_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let size = 700 * MIB;
    let device = Loop::over(&image(&directory, size), 512);
    let request = LayoutRequest {
        root_at_least_mib: 100,
        ..request(size, 512)
    };
    let layout = Layout::plan(&request).unwrap();
    stand_in_for_bootc(
        &directory,
        &device.0,
        &request,
        layout.root_size_mib,
        Some("EFI/BOOT/other.efi"),
    );
    let esp = layout.partition(Role::Esp).unwrap().extent.start_lba * 512;
    let esp = format!("{}@@{esp}", text(&device.0));
    let mtools = |arguments: &[&str]| {
        let [program, rest @ ..] = arguments else { panic!() };
        let mut command = Command::new(program);
        output(command.args(["-i", &esp]).args(rest).env("LC_ALL", "C.UTF-8"));
    };
    let vendor = format!("::EFI/{HOSTILE_ON_FAT}");
    mtools(&["mmd", &vendor]);
    mtools(&[
        "mcopy",
        text(&directory.path().join("program")),
        &format!("{vendor}/shimx64.efi"),
    ]);
    let ran = landfall(["verify", text(&device.0)]);
    assert!(ran.stdout.contains("shimx64.efi"), "{ran:#?}");
    assert_harmless(&ran);
    assert_harmless(&landfall(["verify", text(&device.0), "--json"]));

    run(
        "sgdisk",
        &["--change-name=1:evil\u{202e}\u{200b}", text(&device.0)],
    );
    assert_harmless(&landfall(["plan", "oci:/nowhere", text(&device.0)]));

    let drive = directory.path().join("drive.json");
    let json = serde_json::json!({ "meta_data": { "uuid": "u" }, "user_data": HOSTILE });
    fs::write(&drive, json.to_string()).unwrap();
    let show = Command::new(LANDFALL)
        .args(["config-drive", "show", "--contents", "--secrets", text(&drive)])
        .output();
    assert_harmless(&show.unwrap().into());
}
