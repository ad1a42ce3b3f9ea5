//! Which disk: what `landfall disks` says against what lsblk says, disks that are named and must fit hints,
//! and the question before a wipe. Needs root.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use lab::able_kernel;
use nix::pty::openpty;
use serde_json::Value;
use support::{GIB, LANDFALL, Lab, landfall, output};

fn inventory(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let ran = landfall([&["disks", "--json"], arguments].concat());
    (ran.code, serde_json::from_str(&ran.stdout).unwrap(), ran.stderr)
}

#[test]
fn disks_are_those_of_lsblk() {
    let (code, listed, _) = inventory(&[]);
    assert_eq!(code, Some(0));
    let columns = "NAME,SIZE,LOG-SEC,TYPE,RO,RM,ROTA";
    let theirs: Value = serde_json::from_str(&output(
        Command::new("lsblk").args(["--json", "--bytes", "--nodeps", "--paths", "--output", columns]),
    ))
    .unwrap();
    let theirs = theirs["blockdevices"].as_array().unwrap();
    let ours = listed["disks"].as_array().unwrap();
    let expected: Vec<&Value> = theirs
        .iter()
        .filter(|disk| disk["type"] == "disk" && !disk["name"].as_str().unwrap().contains("ram"))
        .collect();
    assert!(!expected.is_empty(), "lsblk sees no disk");
    for disk in expected {
        let name = &disk["name"];
        let same = ours.iter().find(|ours| ours["name"] == *name);
        let same = same.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(same["size_bytes"], disk["size"], "{name}");
        assert_eq!(same["sector_bytes"], disk["log-sec"], "{name}");
        assert_eq!(same["removable"], disk["rm"], "{name}");
        assert_eq!(same["rotational"], disk["rota"], "{name}");
        let is_chosen = listed["chosen"] == *name;
        assert_eq!(same["not_chosen"].is_null(), is_chosen, "{name}");
    }
}

#[test]
fn the_disk_of_the_root_file_system_is_in_use() {
    let source = output(Command::new("findmnt").args(["--noheadings", "--output", "SOURCE", "/"]));
    let (_, listed, _) = inventory(&[]);
    let disks = listed["disks"].as_array().unwrap();
    let Some(disk) = disks
        .iter()
        .find(|disk| source.trim().starts_with(disk["name"].as_str().unwrap()))
    else {
        // The root is on no disk: an overlay or a file system in memory.
        assert!(
            !Path::new(source.trim()).exists(),
            "{source} is on none of {disks:#?}"
        );
        return;
    };
    let name = disk["name"].as_str().unwrap();
    let ran = landfall(["plan", "localhost:1/os/web", name, "--wipe"]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    let expected = format!("{name} is in use: ");
    assert!(
        ran.error().contains(&expected) && ran.error().contains(" is mounted at /"),
        "{ran:#?}"
    );
    let is_root = |each: &Value| each["use"] == "mounted" && each["at"] == "/";
    assert!(disk["uses"].as_array().unwrap().iter().any(is_root), "{disk:#?}");
    let text = landfall(["disks"]).stdout;
    assert!(text.contains(" is mounted at /\n"), "{text}");
}

#[test]
fn hints_that_no_disk_satisfies_are_an_error_that_says_why() {
    let (code, listed, error) =
        inventory(&["--device-hint", "size=99999", "--device-hint", "serial=none-such"]);
    assert_eq!((code, &listed["chosen"]), (Some(3), &Value::Null));
    for disk in listed["disks"].as_array().unwrap() {
        let because = disk["not_chosen"].as_str().unwrap();
        assert!(error.contains(because), "{because} is not in {error}");
    }
    let ran = landfall(["disks", "--device-hint", "size=large"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("positive integer, in GiB"), "{}", ran.stderr);
}

#[test]
fn a_disk_that_is_named_must_satisfy_the_hints() {
    let lab = Lab::new();
    let image = lab.image("good", "exit 0");
    let disk = lab.disk(2 * GIB);
    let device = disk.device.to_str().unwrap();
    let plan = |hint| {
        landfall([
            "plan",
            &image,
            device,
            "--tls-verify=false",
            "--device-hint",
            hint,
        ])
    };
    let ran = plan("size=2");
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let ran = plan("size=3");
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    let expected = format!("{device} does not match the hints: size is 2 GiB, wanted \"3\"");
    assert!(ran.error().contains(&expected), "{ran:#?}");
}

/// Runs an installation at a terminal, answers its question, and gives its status and what it said.
fn at_a_terminal(arguments: &[&str], answer: &str) -> (Option<i32>, String) {
    let terminal = openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut child = able_kernel::command(LANDFALL)
        .args(arguments)
        .stdin(slave())
        .stdout(Stdio::null())
        .stderr(slave())
        .spawn()
        .unwrap();
    drop(terminal.slave);
    let mut master = File::from(terminal.master);
    let (mut said, mut byte, mut answered) = (Vec::new(), [0], false);
    // Reading fails when the last one has closed the other end.
    while let Ok(1) = master.read(&mut byte) {
        said.push(byte[0]);
        if !answered && said.ends_with(b"holds:\r\n") {
            master.write_all(answer.as_bytes()).unwrap();
            answered = true;
        }
    }
    (
        child.wait().unwrap().code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_person_is_asked_before_anything_is_lost() {
    let lab = Lab::new();
    let script = "dd if=/bin/busybox of=$device bs=512 count=1 conv=notrunc 2>/dev/null; exit 7";
    let image = lab.image("good", script);
    let disk = lab.disk(2 * GIB);
    let device = disk.device.to_str().unwrap();
    output(Command::new("mkfs.ext4").args(["-q", "-L", "precious", device]));
    let before = disk.hash();
    let fixed = disk.install(&image, &["--wipe"]);
    for answer in ["no\n", "\n", "y\n", "\u{4}"] {
        let (code, said) = at_a_terminal(&fixed, answer);
        assert_eq!(code, Some(3), "{said}");
        assert!(
            said.contains("will lose what it holds: ext4 \"precious\""),
            "{said}"
        );
        assert!(
            said.contains("not confirmed: answer yes, or give --yes"),
            "{said}"
        );
        assert_eq!(disk.hash(), before);
    }
    let (code, said) = at_a_terminal(&fixed, "yes\n");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("exit status 7"), "{said}");

    output(Command::new("mkfs.ext4").args(["-q", "-L", "precious", device]));
    let (code, said) = at_a_terminal(&[&fixed[..], &["--yes"]].concat(), "no\n");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("will lose") && !said.contains("Type yes"), "{said}");
    let (code, said) = at_a_terminal(&fixed, "no\n");
    assert!(
        code == Some(4) && !said.contains("will lose"),
        "an empty disk has nothing to lose: {said}"
    );
}
