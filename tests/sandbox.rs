//! What the image's programs see while the image installs itself, and what is left when they fail or are
//! stopped.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab::able_kernel;
use lab::image::{Entry, Layer};
use lab::registry::Registry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::disk::run;
use support::{
    GIB, Lab, Ran, assert_no_mounts_left, assert_nothing_left, control_groups, landfall, noise, output,
    start_until,
};

const CHANGED: Option<i32> = Some(4);
const UNTOUCHED: Option<i32> = Some(3);
const PASSWORD: &str = "s3cret-of-the-lab";

/// Overwrites the head of the disk, as any installer does first.
const WRITES: &str =
    "dd if=/bin/busybox of=$device bs=1M count=1 conv=fsync,notrunc 2>/dev/null; echo overwriting\n";

#[test]
fn a_bootc_that_fails_half_way() {
    let lab = Lab::new();
    let image = lab.image(
        "fails",
        &format!("{WRITES}echo to standard error >&2; echo the last line; exit 3"),
    );
    let disk = lab.disk(GIB);
    let before = disk.hash();
    let report = lab.directory.path().join("report.json");
    let report = report.to_str().unwrap();
    let install = |option| landfall(disk.install(&image, &["--report", report, option]));

    let ran = install("--keep-on-failure");
    assert_eq!(ran.code, CHANGED, "{ran:#?}");
    for expected in ["failed with exit status 3", "to standard error\n  the last line"] {
        assert!(ran.stderr.contains(expected), "{expected:?} is not in {ran:#?}");
    }
    assert_nothing_left();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(written["disk_state"], "changed");
    assert_eq!(written["success"], false);
    assert_eq!(written["bootc"]["exit_status"], "exit status 3");
    assert_eq!(
        written["bootc"]["output"],
        serde_json::json!(["overwriting", "to standard error", "the last line"])
    );
    assert_ne!(disk.hash(), before);

    // Without being asked to keep it, a half-installed disk is made unbootable.
    let ran = install("--wipe");
    assert_eq!(ran.code, CHANGED, "{ran:#?}");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(written["disk_state"], "cleared");
    let head = output(
        Command::new("od")
            .args(["-An", "-tx1", "-N512"])
            .arg(&disk.device),
    );
    assert!(
        head.split_whitespace().all(|word| word == "00" || word == "*"),
        "the boot sector is still there: {head}"
    );
}

#[test]
fn a_bootc_that_lies_about_its_success_is_found_out() {
    let lab = Lab::new();
    let image = lab.image("lies", "exit 0");
    let disk = lab.disk(GIB);
    let ran = landfall(disk.install(&image, &[]));
    // What it left is what was there.
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(ran.error().contains("verifying what was installed"), "{ran:#?}");
    assert_nothing_left();
}

#[test]
fn a_disk_that_bootc_did_not_write_to_keeps_its_system() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    run(
        "sgdisk",
        &["--clear", "--new=1:1M:+100M", "--new=2:200M:+100M", device],
    );
    let report = lab.directory.path().join("report.json");
    let install = |image: &str, more: &[&str]| {
        let fixed = disk.install(image, &["--wipe", "--report", report.to_str().unwrap()]);
        let ran = landfall([&fixed, more].concat());
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        (ran, written["disk_state"].as_str().unwrap().to_string())
    };

    let before = disk.hash();
    let refuses = lab.image(
        "refuses",
        "dd if=$device of=/dev/null bs=1M count=9; echo no; exit 2",
    );
    for more in [&[][..], &["--keep-on-failure"]] {
        let (ran, state) = install(&refuses, more);
        assert_eq!((ran.code, state.as_str()), (UNTOUCHED, "untouched"), "{ran:#?}");
        assert!(ran.error().ends_with("; the disk was not touched"), "{ran:#?}");
        assert_eq!(disk.hash(), before);
    }

    // One byte, where no table and no superblock is.
    let writes = "printf x | dd of=$device bs=1 seek=150000000 conv=notrunc 2>/dev/null; exit 2";
    let writes = lab.image("writes", writes);
    let (ran, state) = install(&writes, &["--keep-on-failure"]);
    assert_eq!((ran.code, state.as_str()), (CHANGED, "changed"), "{ran:#?}");
    let (ran, state) = install(&writes, &[]);
    assert_eq!((ran.code, state.as_str()), (CHANGED, "cleared"), "{ran:#?}");
    assert!(
        output(Command::new("wipefs").arg(device)).is_empty(),
        "a table is left"
    );
}

#[test]
fn a_disk_that_cannot_be_read_after_its_installation_is_not_judged() {
    let lab = Lab::new();
    // Tells that it has come so far, and waits until the disk can't be read.
    let script = format!(
        "{WRITES}block=1000; while dd if=$device of=/dev/null bs=4096 count=1 skip=$block 2>/dev/null; \
         do sleep 1; block=$((block + 1000)); done; exit 0"
    );
    let image = lab.image("breaks", &script);
    let disk = lab.disk(GIB);
    let report = lab.directory.path().join("report.json");
    let arguments = disk.install(&image, &["--report", report.to_str().unwrap()]);
    let (child, finish) = start_until(&arguments, "overwriting");
    disk.lose_everything();
    let ran = finish(child);
    assert_eq!(ran.code, CHANGED, "{ran:#?}");
    assert!(ran.error().contains("could not be checked"), "{ran:#?}");
    assert!(ran.error().contains("Input/output error"), "{ran:#?}");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(written["disk_state"], "unverified");
    assert_nothing_left();
}

/// Everything that a program can look at. The secret is put together there, so that this text is not found
/// itself.
const LOOK_AROUND: &str = r#"
echo "first process: $(cat /proc/1/comm)"
[ /proc/1/root/usr/bin/bootc -ef /usr/bin/bootc ] && echo "root of the first process: the image"
echo "interfaces: $(ls /sys/class/net | tr '\n' ' ')"
echo "processes: $(ls /proc | grep -c '^[0-9]')"
word=s3cret-of
echo "$word-the-lab" > /tmp/secret
grep -rl -f /tmp/secret /etc /usr /run /proc/*/environ /proc/*/cmdline 2>/dev/null && echo "found the secret"
env | sed 's/^/variable: /'
echo "keys: $(cat /etc/landfall/root-ssh-authorized-keys)"
echo "arguments: $*"
exit 3
"#;

#[test]
fn the_sandbox_shows_the_image_and_nothing_else() {
    let registry = Registry::builder().user("anna", PASSWORD).start().unwrap();
    let lab = Lab::with(registry);
    let tag = "looks-around";
    lab.layout
        .add(
            &support::installable(LOOK_AROUND).env("FROM_THE_IMAGE=yes"),
            "base",
        )
        .unwrap();
    lab.layout
        .derive(
            "base",
            &[Layer::new([Entry::symlink("usr/bin/sed", "busybox")])],
            "more",
        )
        .unwrap();
    let tools = ["tr", "echo"].map(|name| Entry::symlink(format!("usr/bin/{name}"), "busybox"));
    let digest = lab.layout.derive("more", &[Layer::new(tools)], tag).unwrap();
    let image = lab.place(tag);
    let secret = STANDARD.encode(format!("anna:{PASSWORD}"));
    let auths = format!(
        r#"{{"auths":{{"{}":{{"auth":"{secret}"}}}}}}"#,
        lab.registry.host()
    );
    let authfile = lab.file("auth.json", auths);
    let keys = lab.file("keys", "ssh-ed25519 AAAA anna");
    let report = lab.directory.path().join("report.json");
    let disk = lab.disk(GIB);
    let mut command = able_kernel::command(support::LANDFALL);
    command
        .args([
            "install",
            &image,
            disk.device.to_str().unwrap(),
            "--tls-verify=false",
            "--generic-image",
            "--karg",
            "quiet",
        ])
        .args([
            "--target-imgref",
            "other.lab/os/test:2",
            "--bootc-arg=--new-option",
        ])
        .arg("--authfile")
        .arg(&authfile)
        .arg("--root-ssh-authorized-keys")
        .arg(&keys)
        .arg("--report")
        .arg(&report)
        .env("HOST_VARIABLE", PASSWORD);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    let report = fs::read_to_string(report).unwrap();
    let value: serde_json::Value = serde_json::from_str(&report).unwrap();
    let lines: Vec<&str> = value["bootc"]["output"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|l| l.as_str())
        .collect();
    let value_of = |head: &str| {
        lines
            .iter()
            .find_map(|line| line.strip_prefix(head))
            .unwrap_or_default()
            .trim()
    };

    assert_eq!(value_of("root of the first process: "), "the image", "{lines:#?}");
    assert_eq!(value_of("interfaces: "), "lo");
    let processes: u32 = value_of("processes: ").parse().unwrap();
    assert!((2..8).contains(&processes), "{processes} processes are visible");
    assert!(!lines.contains(&"found the secret"), "{lines:#?}");
    assert_eq!(value_of("keys: "), "ssh-ed25519 AAAA anna");
    assert!(lines.contains(&"variable: FROM_THE_IMAGE=yes"), "{lines:#?}");
    assert!(
        !lines.iter().any(|line| line.contains("HOST_VARIABLE")),
        "{lines:#?}"
    );
    let name = format!("{}/os/test", lab.registry.host());
    assert_eq!(
        value_of("arguments: "),
        format!(
            "install to-disk --new-option --source-imgref=docker://{name}@{digest} \
             --target-imgref=other.lab/os/test:2 --skip-fetch-check --root-size={}M --block-setup=direct \
             --root-ssh-authorized-keys=/etc/landfall/root-ssh-authorized-keys --generic-image --karg=quiet {}",
            value["bootc"]["command"]
                .to_string()
                .split("--root-size=")
                .nth(1)
                .unwrap()
                .split('M')
                .next()
                .unwrap(),
            disk.device.display()
        )
    );
    for text in [&report, &ran.stderr, &ran.stdout] {
        assert!(
            !text.contains(PASSWORD) && !text.contains(&secret),
            "a secret is shown: {text}"
        );
    }
}

#[test]
fn a_command_runs_in_the_same_sandbox_without_the_disks() {
    let lab = Lab::new();
    let image = lab.image("run", "exit 0");
    let run = |script: &str| landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", script]);
    let devices = run("ls /dev");
    assert_eq!(devices.code, Some(0), "{devices:#?}");
    assert!(
        devices.stdout.contains("null\n")
            && devices.stdout.contains("shm\n")
            && !devices.stdout.contains("loop"),
        "{devices:#?}"
    );
    assert_eq!(run("exit 7").code, Some(7));
    assert_eq!(run("sh -c 'kill -9 $$'; exit $?").code, Some(137));
    // As other container tools and shells have it: 127 for what is not there, 126 for what is no program.
    for (program, code, expected) in [
        ("frobnicate", 127, "the image has no program \"frobnicate\""),
        ("/usr/bin/frobnicate", 127, "the image has no program"),
        ("/usr/lib/bootupd/updates/EFI.json", 126, "is not executable"),
        ("/usr/bin", 126, "is not executable"),
    ] {
        let ran = landfall(["run", &image, "--tls-verify=false", "--", program]);
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        assert!(ran.error().contains(expected), "{ran:#?}");
        assert!(!ran.stderr.contains("container"), "an internal text: {ran:#?}");
    }
    assert_nothing_left();
}

/// Also of those that our own files are put into, in the one layer or the other.
#[test]
fn directories_look_as_the_layers_say() {
    let lab = Lab::new();
    let stat = "stat -c '%n %a %u:%g %Y' / /etc /etc/containers /usr";
    let tool = Entry::symlink("usr/bin/stat", "busybox");
    let image = support::installable(&format!("{stat}; cat /etc/containers/policy.json; exit 3"))
        .layer(Layer::new([
            Entry::directory("./")
                .mode(0o555)
                .owner(0, 7)
                .mtime(1_500_000_001),
            Entry::directory("etc")
                .mode(0o711)
                .owner(5, 6)
                .mtime(1_500_000_002),
            Entry::directory("etc/containers")
                .mode(0o2750)
                .owner(8, 9)
                .mtime(1_500_000_003),
            Entry::directory("etc/containers/registries.conf.d"),
            Entry::symlink("etc/containers/policy.json", "/usr/lib/policy.json"),
        ]))
        // Says nothing of the root, nor of /etc.
        .layer(Layer::new([Entry::directory("usr").mtime(1_500_000_004), tool]));
    lab.layout.add(&image, "dressed").unwrap();
    let name = lab.place("dressed");
    let expected = "/ 555 0:7 1500000001\n/etc 711 5:6 1500000002\n/etc/containers 2750 8:9 1500000003\n\
                    /usr 755 0:0 1500000004\n";

    let ran = landfall(["run", &name, "--tls-verify=false", "--", "sh", "-c", stat]);
    assert_eq!(ran.stdout, expected, "{ran:#?}");

    let disk = lab.disk(GIB);
    let ran = landfall(disk.install(&name, &[]));
    let shown: String = ran
        .stderr
        .lines()
        .filter_map(|line| Some(format!("{}\n", line.strip_prefix("  | ")?)))
        .collect();
    assert!(shown.starts_with(expected), "{ran:#?}");
    // The image's own policy is where it was, and ours is what its tools read.
    assert!(shown.contains("\"reject\""), "{ran:#?}");
    assert_nothing_left();
}

#[test]
fn a_root_file_system_is_unpacked_complete_or_not_at_all() {
    let lab = Lab::new();
    lab.image("base", "exit 0");
    lab.layout
        .derive("base", &[Layer::new([Entry::whiteout("usr/bin/bootc")])], "upper")
        .unwrap();
    let image = lab.place("upper");
    let to = lab.directory.path().join("root");
    let unpack = || {
        landfall([
            "unpack",
            &image,
            "--tls-verify=false",
            "--to",
            to.to_str().unwrap(),
        ])
    };
    let ran = unpack();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(to.join("usr/bin/busybox").exists() && !to.join("usr/bin/bootc").exists());
    let again = unpack();
    assert_eq!(again.code, UNTOUCHED);
    assert!(again.error().contains("not empty"), "{again:#?}");
    let names: Vec<_> = fs::read_dir(lab.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".landfall")),
        "{names:?}"
    );
}

/// Stops an installation with `signal` once it has said `line`; gives its exit status and whether the disk
/// changed.
fn stopped(lab: &Lab, image: &str, line: &str, signal: Signal) -> (Ran, bool) {
    let disk = lab.disk(GIB);
    let before = disk.hash();
    let arguments = disk.install(image, &["--keep-on-failure", "--progress=plain"]);
    let (child, finish) = start_until(&arguments, line);
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    let ran = finish(child);
    match signal {
        Signal::SIGKILL => assert_no_mounts_left(),
        _ => assert_nothing_left(),
    }
    (ran, disk.hash() != before)
}

#[test]
fn stopping_leaves_nothing_behind_whenever_it_comes() {
    let lab = Lab::new();
    let noise = Layer::new([Entry::file("noise", noise(1, 1 << 20))]);
    let image = support::installable(&format!("{WRITES}sleep 98765; exit 0")).layer(noise);
    lab.layout.add(&image, "waits").unwrap();
    let image = lab.place("waits");

    // While the image is looked for: the registry never says anything.
    let name = format!("{}/os/test:waits", support::stalling_proxy(&lab.registry, 0));
    let (ran, changed) = stopped(&lab, &name, "Planning", Signal::SIGTERM);
    assert_eq!((ran.code, changed), (UNTOUCHED, false), "{ran:#?}");
    assert!(ran.error().contains("stopped by SIGTERM"), "{ran:#?}");

    // While a layer is pulled: its end never comes.
    let name = format!(
        "{}/os/test:waits",
        support::stalling_proxy(&lab.registry, 400_000)
    );
    let (ran, changed) = stopped(&lab, &name, "to pull", Signal::SIGINT);
    assert_eq!((ran.code, changed), (UNTOUCHED, false), "{ran:#?}");

    // While the image installs itself.
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (ran, changed) = stopped(&lab, &image, "overwriting", signal);
        assert_eq!((ran.code, changed), (CHANGED, true), "{ran:#?}");
    }
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let command_lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let left = command_lines
        .filter(|line| line.windows(5).any(|word| word == b"98765"))
        .count();
    assert_eq!(left, 0, "a process of the container is left");
}

/// The names of all that is in the directories where programs keep things while they run.
fn kept_by_programs() -> BTreeSet<PathBuf> {
    let of = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let top = ["/run", "/proc/driver", "/mnt", "/var/tmp"].map(|path| of(Path::new(path)));
    let below: Vec<_> = top.iter().flatten().flat_map(|path| of(path)).collect();
    top.into_iter().flatten().chain(below).collect()
}

/// Nothing can be cleaned up then: so nothing may be there that would have to be.
#[test]
fn a_landfall_that_is_killed_leaves_no_directories() {
    let lab = Lab::new();
    let image = lab.image("killed", &format!("{WRITES}sleep 98764; exit 0"));
    let stalled = format!(
        "{}/os/test:killed",
        support::stalling_proxy(&lab.registry, 400_000)
    );
    let before = kept_by_programs();
    for (image, line) in [(&stalled, "to pull"), (&image, "overwriting")] {
        stopped(&lab, image, line, Signal::SIGKILL);
        let left: Vec<_> = kept_by_programs().difference(&before).cloned().collect();
        assert!(
            !left
                .iter()
                .any(|path| path.to_string_lossy().contains("landfall")),
            "{left:?}"
        );
    }
    // But for a control group, which the next one removes.
    assert!(!control_groups().is_empty());
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "ls"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_nothing_left();
}

/// An image with as many variables as the kernel takes.
fn with_many_variables(lab: &Lab) -> String {
    let variables = (0..80_000).map(|number| format!("V{number}=x"));
    let image = variables.fold(support::installable("exit 0"), |image, variable| {
        image.env(&variable)
    });
    lab.layout.add(&image, "many").unwrap();
    lab.place("many")
}

#[test]
fn as_many_variables_as_the_kernel_takes_are_all_there() {
    let lab = Lab::new();
    let image = with_many_variables(&lab);
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "env"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(
        ran.stdout.lines().filter(|line| line.starts_with('V')).count(),
        80_000
    );
}

/// Whether a process is alive; nobody may have taken its exit status yet.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim().starts_with(['Z', 'X']))
}

/// Nothing of it goes on, although there is much to do before its command runs.
#[test]
fn a_container_that_is_stopped_while_it_starts_is_gone() {
    let lab = Lab::new();
    let image = with_many_variables(&lab);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let arguments = [
            "run",
            &image,
            "--tls-verify=false",
            "--progress=plain",
            "--",
            "sleep",
            "98762",
        ];
        let (child, finish) = start_until(&arguments, "to pull");
        // The first to descend from it starts the container.
        let mut family = support::family(child.id());
        while family.len() == 1 {
            family = support::family(child.id());
        }
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let ran = finish(child);
        if signal == Signal::SIGTERM {
            assert!(ran.error().contains("stopped by SIGTERM"), "{ran:#?}");
            assert!(!family.iter().any(|pid| is_alive(*pid)), "{ran:#?}");
        }
        // Those of a Landfall that was killed are killed by the kernel. One that went on would sleep.
        while family.iter().any(|pid| is_alive(*pid)) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn an_environment_that_no_program_can_have_is_refused_before_anything_is_pulled() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    for (tag, variable, expected) in [
        (
            "zero",
            "A=\0b".to_owned(),
            "the variable \"A\" of the image's environment contains a NUL byte",
        ),
        ("nameless", "=b".into(), "has no name"),
        (
            "long",
            format!("A={}", "x".repeat(200_000)),
            "is longer than the 128 KiB",
        ),
    ] {
        lab.layout
            .add(&support::installable("exit 0").env(&variable), tag)
            .unwrap();
        let image = lab.place(tag);
        let run = landfall(["run", &image, "--tls-verify=false", "--", "true"]);
        assert_eq!(run.code, Some(125), "{run:#?}");
        let plan = landfall(["plan", &image, device, "--tls-verify=false"]);
        assert_eq!(plan.code, UNTOUCHED, "{plan:#?}");
        for ran in [run, plan] {
            assert!(
                ran.error().contains(expected) && !ran.stderr.contains("to pull"),
                "{ran:#?}"
            );
        }
    }
}
