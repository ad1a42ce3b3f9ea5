//! Signals are heard whatever Landfall is busy with, and nothing is left of what it began.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{
    LANDFALL, Lab, LoopDisk, Ran, assert_no_mounts_left, assert_nothing_left, landfall, output, start_until,
};

const UNTOUCHED: Option<i32> = Some(3);
const CHANGED: Option<i32> = Some(4);
const MIB: u64 = 1 << 20;

/// After so long something will never happen.
const LIMIT: Duration = Duration::from_secs(120);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < LIMIT, "{what}: not after {LIMIT:?}");
        yield_now();
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// The end of a process that will end. One that doesn't is killed.
fn ended(mut child: Child) -> Ran {
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if since.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("it goes on: {:#?}", Ran::from(child.wait_with_output().unwrap()));
        }
        sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap().into()
}

/// Whether all that was written to a pipe has been read.
fn is_read(pipe: &impl AsRawFd) -> bool {
    // The reading end of the same pipe.
    let reader = File::open(format!("/proc/self/fd/{}", pipe.as_raw_fd())).unwrap();
    let mut ends = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    poll(&mut ends, PollTimeout::ZERO).unwrap() == 0
}

#[test]
fn standard_input_that_never_ends_is_no_reason_to_be_deaf() {
    let nowhere = "127.0.0.1:1/os/test:1";
    let directory = tempfile::tempdir().unwrap();
    let disk = LoopDisk::new(&directory.path().join("disk"), MIB);
    for arguments in [
        &["plan", nowhere, "/dev/nonexistent", "--config-drive", "-"][..],
        &["config-drive", "write", "-", disk.device.to_str().unwrap()],
        &["inspect", nowhere, "--pull-secret", "-"],
    ] {
        let mut command = Command::new(LANDFALL);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"x").unwrap();
        wait_until("standard input is read", || is_read(&stdin));
        send(&child, Signal::SIGTERM);
        let ran = ended(child);
        drop(stdin);
        assert_eq!(ran.code, UNTOUCHED, "{arguments:?} {ran:#?}");
        assert!(
            ran.error().contains("stopped by SIGTERM"),
            "{arguments:?} {ran:#?}"
        );
    }
}

/// An ext4 file system in a file, mounted.
struct Filesystem(PathBuf);

impl Filesystem {
    fn new(directory: &Path, size_bytes: u64) -> Self {
        let (image, mounted) = (directory.join("ext4"), directory.join("mounted"));
        File::create(&image).unwrap().set_len(size_bytes).unwrap();
        fs::create_dir(&mounted).unwrap();
        output(Command::new("mkfs.ext4").arg("-q").arg(&image));
        output(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &mounted]),
        );
        Self(mounted)
    }

    /// Whoever writes waits, until this is dropped.
    fn freeze(&self) -> Frozen {
        // A process of its own thaws it whatever becomes of this one: a machine with a frozen file system
        // can't even sync.
        let freezing = "fsfreeze --freeze \"$1\" && echo frozen && read -r _; fsfreeze --unfreeze \"$1\"";
        let mut freezer = Command::new("setsid")
            .args(["sh", "-c", freezing, "sh"])
            .arg(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(freezer.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        assert_eq!(said, "frozen\n");
        Frozen(freezer)
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// A frozen file system. The freezer thaws it when its standard input ends.
struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_hangs_while_it_is_written_to_is_no_reason_to_be_deaf() {
    let directory = tempfile::tempdir().unwrap();
    let filesystem = Filesystem::new(directory.path(), 300 * MIB);
    let disk = LoopDisk::new(&filesystem.0.join("disk"), 200 * MIB);
    let device = disk.device.to_str().unwrap();
    output(Command::new("sgdisk").args(["--clear", device]));
    let source = directory.path().join("drive.json");
    fs::write(&source, r#"{"meta_data": {"uuid": "u-1"}}"#).unwrap();

    let frozen = filesystem.freeze();
    let write = [
        "config-drive",
        "write",
        source.to_str().unwrap(),
        device,
        "--progress=plain",
    ];
    let mut command = Command::new(LANDFALL);
    let mut child = command
        .args(write)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Writing the config drive")));
    send(&child, Signal::SIGTERM);
    // Also while it can do nothing about it.
    let (heard, hearing) = std::sync::mpsc::channel();
    let rest = std::thread::spawn(move || {
        let mut rest = Vec::new();
        for line in lines {
            let _ = heard.send(line.clone());
            rest.push(line);
        }
        rest
    });
    let said = hearing.recv_timeout(LIMIT).unwrap_or_default();
    drop(frozen);
    let ran = ended(child);
    let rest = rest.join().unwrap();
    assert_eq!(said, "note: SIGTERM: stopping", "{rest:#?}");
    assert_eq!(ran.code, CHANGED, "{rest:#?}");
    assert!(rest.last().unwrap().contains("stopped by SIGTERM"), "{rest:#?}");
}

/// Whether this is so of one of the processes that were started after Landfall.
fn any_after(landfall: &Child, is_so: impl Fn(&str, &[u8]) -> bool) -> bool {
    let limit = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    (1..1000).any(|later| {
        // After the highest number the kernel begins again.
        let id = (landfall.id() + later) % limit;
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        is_so(name.trim_end(), &words)
    })
}

/// Whether a command line has this word.
fn has_word(words: &[u8], word: &str) -> bool {
    words.split(|byte| *byte == 0).any(|each| each == word.as_bytes())
}

/// Starts a Landfall, and gives it when its container is being made.
fn caught_in_the_making(arguments: &[&str]) -> Started {
    loop {
        let child = Started(start_until(arguments, "to pull").0);
        let mut caught = false;
        wait_until("a container is made", || {
            caught = any_after(&child, |name, _| name == "youki:[2:INIT]");
            caught || any_after(&child, |name, words| name == "sleep" && has_word(words, "98763"))
        });
        if caught {
            return child;
        }
        // It was too fast.
    }
}

/// A Landfall that ends with the test, whatever becomes of that.
struct Started(Child);

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            send(&self.0, Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_container_in_the_making_ends_with_landfall() {
    let lab = Lab::new();
    let image = lab.image("waits", "exit 0");
    let run = [
        "run",
        &image,
        "--tls-verify=false",
        "--progress=plain",
        "--",
        "sleep",
        "98763",
    ];
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut child = caught_in_the_making(&run);
        send(&child, signal);
        let status = child.0.wait().unwrap();
        assert_eq!(
            status.code(),
            (signal == Signal::SIGTERM).then_some(125),
            "{status}"
        );
        wait_until("the container ends", || {
            !any_after(&child, |name, words| {
                name.starts_with("youki:") || has_word(words, "98763") || has_word(words, "container-helper")
            })
        });
        assert_no_mounts_left();
        if signal == Signal::SIGKILL {
            // It could not remove its control group: the next one does.
            landfall(["run", &image, "--tls-verify=false", "--", "ls"]);
        }
        assert_nothing_left();
    }
}
