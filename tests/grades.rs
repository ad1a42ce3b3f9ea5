//! What power the image's programs have, as the kernel and all that is around them see it; what they say of
//! themselves does not count.

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use lab::image::{Entry, Layer};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use support::{GIB, LANDFALL, Lab, LoopDisk, Ran, assert_nothing_left, landfall, start_until};

const UNTOUCHED: Option<i32> = Some(3);

/// A process of a container, by its directory in our `/proc`.
struct Seen(PathBuf);

impl Seen {
    /// The one that runs `sleep seconds`; it may have to begin yet.
    fn sleeping(seconds: &str) -> Self {
        let expected = format!("sleep\0{seconds}\0");
        loop {
            let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
            let is_it =
                |path: &PathBuf| fs::read(path.join("cmdline")).is_ok_and(|line| line == expected.as_bytes());
            if let Some(path) = processes.into_iter().find(is_it) {
                return Self(path);
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    /// A field of its status.
    fn status(&self, name: &str) -> String {
        let status = self.read("status");
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        value
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .to_owned()
    }

    /// The options of what is mounted there.
    fn mounted(&self, on: &str) -> Vec<String> {
        let mounts = self.read("mountinfo");
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let line = lines
            .rfind(|fields| fields[4] == on)
            .unwrap_or_else(|| panic!("no {on} in {mounts}"));
        line[5].split(',').map(String::from).collect()
    }

    #[track_caller]
    fn assert_mounted(&self, on: &str, option: &str) {
        let options = self.mounted(on);
        assert!(options.iter().any(|one| one == option), "{on}: {options:?}");
    }

    /// What is the same in both grades.
    fn assert_contained(&self) {
        assert_eq!(self.status("Seccomp"), "2");
        let limits = self.read("limits");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["1", "1"]);
        for on in ["/proc", "/sys", "/proc/cmdline"] {
            self.assert_mounted(on, "ro");
        }
        self.assert_mounted("/", "nodev");
        for descriptor in 0..3 {
            let to = fs::read_link(self.0.join(format!("fd/{descriptor}"))).unwrap();
            let to = to.to_str().unwrap();
            assert!(
                to == "/dev/null" || to.starts_with("pipe:"),
                "{descriptor} is {to}"
            );
        }
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        assert_eq!(fields.split(' ').nth(4), Some("0"), "it has a terminal: {stat}");
        for directory in ["tmp", "run", "dev/shm"] {
            let size = statvfs(&self.0.join("root").join(directory)).unwrap();
            assert!(
                size.blocks() * size.fragment_size() <= 256 << 20,
                "{directory} is not bounded"
            );
        }
    }
}

fn stop(mut child: Child) {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

/// At a terminal, as somebody types it.
#[test]
fn who_is_asked_can_do_next_to_nothing_and_has_no_terminal() {
    let lab = Lab::new();
    let image = lab.image("asked", "exit 0");
    let command = format!("exec {LANDFALL} run {image} --tls-verify=false -- sleep 98763");
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &command, "/dev/null"]);
    let child = script.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let seen = Seen::sleeping("98763");
    seen.assert_contained();
    assert_eq!(seen.status("NoNewPrivs"), "1");
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(seen.status(set), "000000008000001b");
    }
    let mut nodes: Vec<_> = fs::read_dir(seen.0.join("root/dev"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    nodes.sort();
    // A link, where the kernel shows its memory.
    nodes.retain(|name| name != "core");
    let expected = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ];
    assert_eq!(nodes, expected);
    stop(child);
}

#[test]
fn who_installs_has_the_capabilities_of_the_table_and_devices_that_it_cannot_rename() {
    let lab = Lab::new();
    let image = lab.image("installs", "echo ready; exec sleep 98762");
    let disk = lab.disk(GIB);
    let before = names_of_devices();
    let (child, finish) = start_until(&disk.install(&image, &["--progress=plain"]), "ready");
    let seen = Seen::sleeping("98762");
    seen.assert_contained();
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(seen.status(set), "000000008824001b");
    }
    seen.assert_mounted("/dev", "ro");
    assert_eq!(fs::read_dir(seen.0.join("root/dev/mapper")).unwrap().count(), 0);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    finish(child);
    assert_eq!(names_of_devices(), before);
    assert_nothing_left();
}

fn names_of_devices() -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir("/dev")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // Other tests have loop devices of their own.
    names.retain(|path| !path.to_str().unwrap().starts_with("/dev/loop"));
    names.sort();
    names
}

/// Makes nodes of all loop devices wherever it can, and overwrites what they lead to.
const OVERWRITES: &str = r#"
busybox=/usr/bin/busybox
for directory in /tmp /run /dev /dev/shm / /proc /sys; do
    for number in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        $busybox mknod $directory/evil$number b 7 $number 2>/dev/null
        [ -b $directory/evil$number ] && $busybox dd if=/usr/bin/busybox of=$directory/evil$number bs=4096 count=8 conv=fsync,notrunc 2>/dev/null
    done
done
"#;

#[test]
fn who_is_asked_reaches_no_disk() {
    let lab = Lab::new();
    let (target, other) = (
        lab.disk(GIB),
        LoopDisk::new(&lab.directory.path().join("other"), GIB),
    );
    let before = [target.hash(), other.hash()];
    let image = lab.image("plain", "exit 0");
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", OVERWRITES]);
    assert!(ran.code.is_some(), "{ran:#?}");
    assert_eq!([target.hash(), other.hash()], before);

    // As the question that comes first.
    let bootc = Entry::program("usr/bin/bootc", format!("#!/bin/sh\n{OVERWRITES}\nexit 9"));
    lab.layout
        .derive("plain", &[Layer::new([bootc])], "evil")
        .unwrap();
    let ran = landfall(target.install(&lab.place("evil"), &[]));
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert_eq!([target.hash(), other.hash()], before);
}

/// Writes to what is the kernel's, and makes files where the machine's devices are.
const MEDDLES: &str = r#"
echo 11 > /proc/sys/kernel/printk_ratelimit_burst
/usr/bin/busybox mknod /dev/landfall-evil b 7 99
/usr/bin/busybox mkdir /dev/landfall-evils
/usr/bin/busybox touch /dev/landfall-evil-file
/usr/bin/busybox rm -f /dev/loop-control /dev/null
"#;

#[test]
fn the_machines_kernel_and_its_devices_stay_as_they_are() {
    const SETTING: &str = "/proc/sys/kernel/printk_ratelimit_burst";
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let (setting, devices) = (fs::read_to_string(SETTING).unwrap(), names_of_devices());
    let image = lab.image("meddles", &format!("{MEDDLES}\nexit 3"));
    let run = landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", MEDDLES]);
    let install = landfall(disk.install(&image, &[]));
    let left = fs::read_to_string(SETTING).unwrap();
    fs::write(SETTING, &setting).unwrap();
    assert_eq!(left, setting, "{run:#?}, {install:#?}");
    assert_eq!(names_of_devices(), devices, "{run:#?}, {install:#?}");
    assert!(Path::new("/dev/loop-control").exists());
}

#[test]
fn nothing_runs_landfall_in_the_container() {
    let lab = Lab::new();
    lab.image("plain", "exit 0");
    let scripts = [
        Entry::program("usr/bin/itself", "#!/proc/self/exe disks\n"),
        Entry::symlink("usr/bin/link", "/proc/self/exe"),
        Entry::program("usr/bin/by-link", "#!/usr/bin/link disks\n"),
    ];
    lab.layout
        .derive("plain", &[Layer::new(scripts)], "itself")
        .unwrap();
    let image = lab.place("itself");
    for program in ["itself", "by-link", "link", "/proc/self/exe"] {
        let ran = landfall(["run", &image, "--tls-verify=false", "--", program]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(126), ""), "{ran:#?}");
        assert!(ran.error().contains("is not executable"), "{ran:#?}");
    }
    assert_nothing_left();
}

fn run(image: &str, script: &str, stdout: Stdio) -> Child {
    let mut command = Command::new(LANDFALL);
    command.args([
        "run",
        image,
        "--tls-verify=false",
        "--progress=none",
        "--",
        "sh",
        "-c",
        script,
    ]);
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_commands_output_comes_as_it_is_and_apart() {
    let lab = Lab::new();
    let image = lab.image("speaks", "exit 0");
    let script =
        r"printf 'no end of line'; printf 'aside\n' >&2; printf '\033[1m\000\377'; cat /usr/bin/busybox";
    let ran = run(&image, script, Stdio::piped()).wait_with_output().unwrap();
    let expected = [
        b"no end of line\x1b[1m\0\xff",
        fs::read("/usr/bin/busybox").unwrap().as_slice(),
    ]
    .concat();
    assert!(ran.stdout == expected, "{} bytes", ran.stdout.len());
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "aside\n");

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let ran: Ran = run(&image, "echo much", full.into())
        .wait_with_output()
        .unwrap()
        .into();
    let expected = "landfall: writing to standard output: No space left on device (os error 28)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(125), expected));
}

#[test]
fn a_command_whose_reader_goes_away_ends_as_it_would_without_landfall() {
    let lab = Lab::new();
    let image = lab.image("speaks", "exit 0");
    // Not as the container's first process, which the kernel protects from signals.
    let script = "(while echo y; do :; done); exit $?";
    let mut child = run(&image, script, Stdio::piped());
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
}
