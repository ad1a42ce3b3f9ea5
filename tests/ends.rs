//! How commands end: the last line says what was done, or why it was not and what became of the disk.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use lab::image::{Entry, Layer};
use support::{GIB, LANDFALL, Lab, LoopDisk, Ran, landfall, output, stalling_proxy, start_until};

const UNTOUCHED: Option<i32> = Some(3);
const CHANGED: Option<i32> = Some(4);

fn last_line(ran: &Ran) -> &str {
    ran.stderr.lines().next_back().unwrap_or_default()
}

/// The last line of a command that succeeds.
fn last_word(arguments: &[&str]) -> (Ran, String) {
    let ran = landfall([arguments, &["--progress=plain"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let last = last_line(&ran).to_owned();
    let quiet = landfall([arguments, &["--progress=none"]].concat());
    // Done again, some of it can't be done; but nothing is said of what was.
    assert!(!quiet.stderr.contains(" in 0."), "{quiet:#?}");
    (ran, last)
}

fn assert_says_first_and_last(said: &str, first: &str, last: &str) {
    assert!(said.starts_with(first), "{said:?}");
    let (_, time) = said
        .rsplit_once(last)
        .unwrap_or_else(|| panic!("{last:?} is not in {said:?}"));
    assert!(time.starts_with(" in ") && time.ends_with(" s"), "{said:?}");
}

/// The last that is said of progress.
#[track_caller]
fn assert_ends_with_all_layers(ran: &Ran, count: usize) {
    let mut lines = ran.stderr.lines();
    let progress = lines.rfind(|line| line.contains(" layers done")).unwrap();
    let all = format!(" {count} of {count} layers done");
    assert!(
        progress.starts_with("100 %") && progress.ends_with(&all),
        "{ran:#?}"
    );
}

#[test]
fn a_pull_ends_with_all_its_layers_and_where_they_are() {
    let lab = Lab::new();
    let twice = || Layer::new([Entry::file("twice", "the same blob")]);
    lab.layout
        .add(
            &support::installable("exit 0").layer(twice()).layer(twice()),
            "twice",
        )
        .unwrap();
    let image = lab.place("twice");
    for form in ["oci", "oci-archive"] {
        let to = lab.directory.path().join(form);
        let destination = format!("{form}:{}", to.display());
        let (ran, last) = last_word(&["pull", &image, "--tls-verify=false", "--to", &destination]);
        let name = image.rsplit_once(':').unwrap().0;
        let end = format!(" to {} as {image}", to.display());
        assert_says_first_and_last(&last, &format!("saved {name}@sha256:"), &end);
        assert_ends_with_all_layers(&ran, 3);
    }
}

#[test]
fn an_unpacked_root_and_a_config_drive_are_the_last_that_is_said() {
    let lab = Lab::new();
    let image = lab.image("unpacked", "exit 0");
    let root = lab.directory.path().join("root");
    let to = root.to_str().unwrap();
    let (ran, last) = last_word(&["unpack", &image, "--tls-verify=false", "--to", to]);
    assert_says_first_and_last(&last, "unpacked ", &format!(" into {to}"));
    assert_ends_with_all_layers(&ran, 2);

    let source = lab.file("drive.json", r#"{"meta_data": {"uuid": "u-1"}}"#);
    let (source, built) = (source.to_str().unwrap(), lab.directory.path().join("built.iso"));
    let built = built.to_str().unwrap();
    let (_, last) = last_word(&["config-drive", "build", source, "-o", built]);
    assert_says_first_and_last(&last, &format!("wrote the config drive {built} (ISO 9660, "), ")");
    let disk = LoopDisk::new(&lab.directory.path().join("disk"), 200 << 20);
    let device = disk.device.to_str().unwrap();
    output(Command::new("sgdisk").args(["--clear", device]));
    let (_, last) = last_word(&["config-drive", "write", source, device]);
    assert_says_first_and_last(&last, "wrote the config drive (ISO 9660, ", ")");
}

#[test]
fn a_command_has_the_last_word_itself() {
    let lab = Lab::new();
    let image = lab.image("speaks", "exit 0");
    let speak = "echo spoken >&2";
    let run = [
        "run",
        &image,
        "--tls-verify=false",
        "--progress=plain",
        "--",
        "sh",
        "-c",
        speak,
    ];
    assert_eq!(last_line(&landfall(run)), "spoken");
}

#[test]
fn a_failure_ends_with_what_became_of_the_disk() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let image = lab.image(
        "fails",
        "dd if=/bin/busybox of=$device count=1 2>/dev/null; exit 3",
    );
    let speaks = lab.image(
        "speaks",
        "dd if=/bin/busybox of=$device count=1 2>/dev/null; echo one; echo two; exit 3",
    );
    for (image, more, code, end) in [
        (
            &speaks[..],
            &[][..],
            CHANGED,
            "\nlandfall: failed; the disk was changed; its partition table is cleared, so that it cannot \
             boot",
        ),
        (
            "127.0.0.1:1/os/x:1",
            &["--retries=0"],
            UNTOUCHED,
            "; the disk was not touched",
        ),
        (
            &image,
            &["--wipe"],
            CHANGED,
            "; the disk was changed; its partition table is cleared, so that it cannot boot",
        ),
        (
            &image,
            &["--wipe", "--keep-on-failure"],
            CHANGED,
            "; the disk was changed and is incomplete",
        ),
    ] {
        let ran = landfall([disk.install(image, &["--progress=plain"]), more.to_vec()].concat());
        assert_eq!(ran.code, code, "{ran:#?}");
        assert!(
            ran.error().starts_with("landfall: ") && ran.stderr.trim_end().ends_with(end),
            "{ran:#?}"
        );
    }
}

#[test]
fn a_report_that_can_not_be_written_is_known_before_anything_is_asked() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    let missing = lab.directory.path().join("missing/report.json");
    let in_a_file = lab.file("file", "").join("report.json");
    for (report, expected) in [
        ("https://lab.example.com/report", "it takes a file, not a URL"),
        (missing.to_str().unwrap(), "no file can be created in "),
        (lab.directory.path().to_str().unwrap(), "it is a directory"),
        (in_a_file.to_str().unwrap(), "Not a directory"),
    ] {
        // Nobody is there: whoever is asked, it would be the error.
        let ran = landfall(["install", "127.0.0.1:1/os/x:1", device, "--report", report]);
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
        let error = last_line(&ran);
        assert!(
            error.starts_with(&format!("landfall: --report {report}: {expected}")),
            "{ran:#?}"
        );
        assert!(error.ends_with("; the disk was not touched"), "{ran:#?}");
    }
    assert!(!fs::exists("https:").unwrap());
}

#[test]
fn a_report_that_could_not_be_written_after_a_failure_is_mentioned() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    // It can be opened, and takes nothing.
    let ran = landfall([
        "install",
        "127.0.0.1:1/os/x:1",
        device,
        "--retries=0",
        "--report",
        "/dev/full",
    ]);
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    let warning = "warning: writing the report to /dev/full: No space left on device";
    assert!(
        ran.stderr.lines().any(|line| line.starts_with(warning)),
        "{ran:#?}"
    );
    assert!(
        last_line(&ran).contains("127.0.0.1:1") && last_line(&ran).ends_with("; the disk was not touched"),
        "{ran:#?}"
    );
}

#[test]
fn on_a_terminal_an_error_has_its_own_line_and_is_the_last() {
    let lab = Lab::new();
    let image = lab.image("1", "exit 0");
    let command = format!(
        "stty cols 80 rows 24; exec {LANDFALL} pull {image} --tls-verify=false --progress=bars --to oci:/nowhere/os"
    );
    let mut script = Command::new("script");
    let ran = script.args(["-q", "-e", "-c", &command, "/dev/null"]);
    let ran: Ran = ran.stdin(Stdio::null()).output().unwrap().into();
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    let (bar, error) = ran.stdout.split_once("landfall: ").unwrap();
    // What was on the line before is erased.
    assert!(bar.is_empty() || bar.ends_with("\r\x1b[2K"), "{ran:#?}");
    let expected = "writing to /nowhere/os: directory /nowhere does not exist: create it, or mount what \
                    belongs there\r\n";
    assert_eq!(error, expected);
}

#[test]
fn what_a_killed_unpack_left_is_said_by_the_next_and_no_directory_above_is_made() {
    let lab = Lab::new();
    let image = lab.image("1", "exit 0");
    let slow = format!("{}/os/test:1", stalling_proxy(&lab.registry, 100 << 10));
    let to = |name: &str| lab.directory.path().join(name).to_str().unwrap().to_owned();
    let unpack = |name: &str| landfall(["unpack", &image, "--tls-verify=false", "--to", &to(name)]);
    let arguments = ["unpack", &slow, "--tls-verify=false", "--to", &to("root")];
    let (mut child, finish) = start_until(&arguments, " to pull");
    let beside = unpack("beside");
    child.kill().unwrap();
    finish(child);
    assert_eq!(beside.code, Some(0), "{beside:#?}");
    let left = "was left behind by a killed landfall: remove it";
    assert!(!beside.stderr.contains(left), "{beside:#?}");
    let next = unpack("root");
    assert_eq!(next.code, Some(0), "{next:#?}");
    assert!(next.stderr.contains(left), "{next:#?}");

    let ran = unpack("nowhere/root");
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(
        last_line(&ran).ends_with("nowhere does not exist: create it, or mount what belongs there"),
        "{ran:#?}"
    );
    assert!(!fs::exists(to("nowhere")).unwrap());
}
