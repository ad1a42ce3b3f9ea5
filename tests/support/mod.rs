//! What the end-to-end tests share: a lab with a registry, a disk and tiny images that install themselves.
#![allow(dead_code, missing_docs)] // Each test is a program of its own and uses a part of this.

pub mod disk;
pub mod proxy;
pub mod pull;
pub mod tokens;

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lab::able_kernel;
use lab::image::{Entry, Image, Layer, Layout};
use lab::registry::Registry;
use landfall::{Options, Policy, Timeouts};
use nix::unistd::{Whence, lseek};
use sha2::{Digest, Sha256};

use disk::Loop;

pub const LANDFALL: &str = env!("CARGO_BIN_EXE_landfall");
pub const GIB: u64 = 1 << 30;

/// The programs that Landfall looks for in an image; here they are all busybox, which never needs most of
/// them.
const PROGRAMS: [&str; 19] = [
    "conmon",
    "crun",
    "sh",
    "cat",
    "dd",
    "env",
    "find",
    "grep",
    "ls",
    "sleep",
    "skopeo",
    "podman",
    "udevadm",
    "sfdisk",
    "lsblk",
    "findmnt",
    "wipefs",
    "mkfs.fat",
    "mkfs.ext4",
];
const MORE_PROGRAMS: [&str; 8] = [
    "blkid",
    "mount",
    "umount",
    "fstrim",
    "fsfreeze",
    "ostree",
    "bootupctl",
    "ip",
];

/// What a test's bootc says before it does anything, as real ones do.
const BOOTC_HEAD: &str = r#"#!/bin/sh
case "$*" in
"--version") echo "bootc 1.16.9"; exit ;;
"install print-configuration") echo '{"block":["direct"],"root-fs-type":"ext4"}'; exit ;;
*" --nonsense "*)
    echo "error: unexpected argument '--nonsense' found" >&2; echo >&2; echo "Usage: bootc" >&2; exit 2 ;;
"install to-disk "*"--help")
    for name in source-imgref target-imgref root-size block-setup karg wipe skip-fetch-check generic-image bootloader root-ssh-authorized-keys; do echo "  --$name"; done
    exit ;;
esac
for device; do :; done
"#;

/// A place with all that a test needs. Nothing of it is left afterwards.
///
/// There is one at a time: what Landfall leaves behind is looked for in places that all of them share.
pub struct Lab {
    _alone: (MutexGuard<'static, ()>, File),
    pub directory: tempfile::TempDir,
    pub registry: Registry,
    pub layout: Layout,
}

impl Lab {
    pub fn new() -> Self {
        Self::with(Registry::start().unwrap())
    }

    pub fn with(registry: Registry) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        static ALONE: Mutex<()> = Mutex::new(());
        // A test that failed leaves the place to the others all the same.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Nor is there one in another program.
        let lock = File::create(std::env::temp_dir().join("landfall-lab.lock")).unwrap();
        lock.lock().unwrap();
        let directory = lab::tempdir().unwrap();
        let layout = Layout::create(&directory.path().join("layout")).unwrap();
        Self {
            _alone: (alone, lock),
            directory,
            registry,
            layout,
        }
    }

    /// Puts an image with this script as its bootc into the registry; gives its name.
    pub fn image(&self, tag: &str, bootc: &str) -> String {
        self.layout.add(&installable(bootc), tag).unwrap();
        self.place(tag)
    }

    pub fn place(&self, tag: &str) -> String {
        self.registry
            .place(&self.layout, tag, &format!("os/test:{tag}"))
            .unwrap();
        self.name(tag)
    }

    pub fn name(&self, tag: &str) -> String {
        format!("{}/os/test:{tag}", self.registry.host())
    }

    pub fn disk(&self, size_bytes: u64) -> LoopDisk {
        LoopDisk::new(&self.directory.path().join("disk"), size_bytes)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// A small image that has all that an installation asks for, with this script as its bootc.
pub fn installable(bootc: &str) -> Image {
    let busybox = fs::read("/usr/bin/busybox").expect("busybox-static: run `cargo xtask setup`");
    let programs = PROGRAMS.iter().chain(&MORE_PROGRAMS);
    let links = programs.map(|name| Entry::symlink(format!("usr/bin/{name}"), "busybox"));
    let base = [
        Entry::directory("usr/bin"),
        Entry::program("usr/bin/busybox", busybox),
    ];
    let script = format!("{BOOTC_HEAD}{bootc}");
    Image::new()
        .layer(Layer::new(
            base.into_iter()
                .chain(links)
                .chain([Entry::symlink("bin", "usr/bin")]),
        ))
        .layer(Layer::new([
            Entry::program("usr/bin/bootc", script),
            Entry::file("usr/lib/ostree/prepare-root.conf", ""),
            Entry::file("usr/lib/bootupd/updates/EFI.json", "{}"),
            Entry::symlink("usr/libexec/podman/netavark", "../../bin/busybox"),
            Entry::directory("etc"),
            Entry::directory("proc"),
            Entry::directory("sys"),
            Entry::directory("dev"),
            Entry::directory("run"),
            Entry::directory("tmp"),
        ]))
}

/// A disk made of a file.
pub struct LoopDisk {
    pub device: PathBuf,
    file: PathBuf,
    _attached: Loop,
}

impl LoopDisk {
    pub fn new(file: &Path, size_bytes: u64) -> Self {
        File::create(file).unwrap().set_len(size_bytes).unwrap();
        let attached = Loop::over(file, 512);
        Self {
            device: attached.0.clone(),
            file: file.into(),
            _attached: attached,
        }
    }

    /// The arguments that install `image` onto it, from a registry without TLS.
    pub fn install<'a>(&'a self, image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let device = self.device.to_str().unwrap();
        let fixed = ["install", image, device, "--tls-verify=false", "--generic-image"];
        [&fixed, more].concat()
    }

    /// The hash of all that is on it: of each block that isn't zero, and where it is.
    pub fn hash(&self) -> String {
        output(Command::new("blockdev").arg("--flushbufs").arg(&self.device));
        hash_of_data(&self.file)
    }

    /// Makes it a disk that can't be read any more.
    pub fn lose_everything(&self) {
        File::create(&self.file).unwrap();
    }
}

/// The hash of all that is in a file: of each block that isn't zero, and where it is.
pub fn hash_of_data(file: &Path) -> String {
    let file = File::open(file).unwrap();
    let mut hasher = Sha256::new();
    let mut end = 0;
    while let Ok(start) = lseek(&file, end, Whence::SeekData) {
        end = lseek(&file, start, Whence::SeekHole).unwrap();
        let mut data = vec![0; usize::try_from(end - start).unwrap()];
        file.read_exact_at(&mut data, start.cast_unsigned()).unwrap();
        for (index, block) in data.chunks(512).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                hasher.update((start / 512 + i64::try_from(index).unwrap()).to_le_bytes());
                hasher.update(block);
            }
        }
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a run of Landfall gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The error, which is the last that is said.
    pub fn error(&self) -> &str {
        let begin = self.stderr.find("\nlandfall: ").map(|newline| newline + 1);
        let begin = begin.or(self.stderr.starts_with("landfall: ").then_some(0));
        begin.map_or("", |begin| self.stderr[begin..].trim_end())
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub fn landfall(arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Ran {
    let mut command = able_kernel::command(LANDFALL);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into()
}

/// Starts Landfall, and gives it with what it prints on standard error once `line` has been printed.
pub fn start_until(arguments: &[&str], line: &str) -> (Child, impl FnOnce(Child) -> Ran + use<>) {
    start_with_until(&[], arguments, line)
}

/// The same with more variables in its environment.
pub fn start_with_until(
    variables: &[(&str, &str)],
    arguments: &[&str],
    line: &str,
) -> (Child, impl FnOnce(Child) -> Ran + use<>) {
    let mut command = able_kernel::command(LANDFALL);
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&said).contains(line) {
        let count = stderr.read(&mut byte).unwrap();
        assert_eq!(
            count,
            1,
            "it ended before it said {line:?}: {}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
    let finish = move |mut child: Child| {
        stderr.read_to_end(&mut said).unwrap();
        let code = child.wait().unwrap().code();
        Ran {
            code,
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&said).into_owned(),
        }
    };
    (child, finish)
}

/// The process and all that descend from it.
pub fn family(of: u32) -> Vec<u32> {
    let mut family = vec![of];
    let mut at = 0;
    while let Some(pid) = family.get(at) {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|pids| {
                pids.split_whitespace()
                    .map(|pid| pid.parse().unwrap())
                    .collect::<Vec<_>>()
            })
            .collect();
        family.extend(children);
        at += 1;
    }
    family
}

/// What Landfall must not leave behind: its control groups, and its mounts. Whatever else it makes, it makes
/// in them.
pub fn assert_nothing_left() {
    assert_no_mounts_left();
    assert_eq!(control_groups(), Vec::<PathBuf>::new(), "a control group is left");
}

/// Our control groups, in all hierarchies.
pub fn control_groups() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchies = mounts
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, at, "cgroup" | "cgroup2", ..] => Some(at),
            _ => None,
        });
    let groups = hierarchies.flat_map(|at| fs::read_dir(at).unwrap().flatten());
    let ours = groups.filter(|group| group.file_name().to_string_lossy().starts_with("landfall-"));
    ours.map(|group| group.path()).collect()
}

/// What even a Landfall that was killed does not leave.
pub fn assert_no_mounts_left() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = mounts
        .lines()
        .filter(|line| line.starts_with("landfall ") || line.contains(" /proc/driver"));
    assert_eq!(ours.count(), 0, "a mount is left:\n{mounts}");
}

/// A proxy in front of a registry that stops passing on answers after so many bytes, and says nothing more.
pub fn stalling_proxy(registry: &Registry, after_bytes: u64) -> String {
    let upstream = registry.host();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&upstream).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            thread::spawn(move || {
                let mut client = client;
                let _ = io::copy(&mut server.take(after_bytes), &mut client);
                // The connection stays open until the test is over.
                std::mem::forget(client);
            });
        }
    });
    host
}

/// How to pull from registries without TLS, trying again at once.
pub fn quick() -> Options {
    Options {
        tls_verify: false,
        policy: Policy {
            retries: 2,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(2),
            ..Policy::default()
        },
        ..Options::default()
    }
}

/// The same from a registry that falls silent or drips. From any other one, this would say so of a machine
/// that is busy.
pub fn impatient() -> Options {
    let quick = quick();
    Options {
        policy: Policy {
            least_bytes: 64 << 10,
            slow_after: Duration::from_secs(1),
            ..quick.policy
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(2),
            stall: Duration::from_secs(1),
            document: Duration::from_secs(2),
        },
        ..quick
    }
}

/// Bytes that can't be compressed, others for each seed: a layer of them is as large as they are.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Runs `work` to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

#[track_caller]
pub fn output(command: &mut Command) -> String {
    lab::command::output(command).unwrap_or_else(|error| panic!("{error:#}"))
}
