//! What the kernel keeps an image from, and what Landfall says where the kernel can't. Judged from outside: by
//! the host's settings, another disk, the number of processes.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::able_kernel;
use support::{GIB, LANDFALL, Lab, LoopDisk, Ran, assert_nothing_left, landfall};

/// Becomes a program that the kernel refuses bpf(2).
const WITHOUT_BPF: &str = r#"
import ctypes, os, platform, struct, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
load, if_equal, answer = 0x20, 0x15, 0x06
refuse, allow = 0x50001, 0x7fff0000
lines = [(load, 0, 0, 0), (if_equal, 0, 1, number), (answer, 0, 0, refuse), (answer, 0, 0, allow)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
program = struct.pack("H6xQ", len(lines), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// A setting that hurts nobody.
const SETTING: &str = "/proc/sys/vm/stat_interval";

fn without_bpf(arguments: &[&str]) -> Ran {
    let mut command = able_kernel::command("python3");
    command.args(["-c", WITHOUT_BPF, LANDFALL]).args(arguments);
    command.output().unwrap().into()
}

/// Under a kernel that says its filters give these answers alone.
fn with_answers(answers: &str, arguments: &[&str]) -> Ran {
    let script = "told=$(mktemp) && echo \"$1\" >\"$told\" && shift && \
                  mount --bind \"$told\" /proc/sys/kernel/seccomp/actions_avail && rm \"$told\" && exec \"$@\"";
    let mut command = able_kernel::command("sh");
    command
        .args(["-c", script, "sh", answers, LANDFALL])
        .args(arguments);
    command.output().unwrap().into()
}

/// The value of the report.
fn read(report: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
}

#[test]
fn settings_of_the_kernel_stay_as_they_are() {
    let lab = Lab::new();
    let settings =
        || [SETTING, "/proc/sys/kernel/core_pattern"].map(|path| fs::read_to_string(path).unwrap());
    let before = settings();
    let script = format!(
        "for sys in /proc/sys /tmp/proc/sys; do echo 7 >$sys/vm/stat_interval; done; \
         echo \"it is $(cat {SETTING})\"; exit 3"
    );
    let script =
        format!("mkdir /tmp/proc; mount -t proc proc /tmp/proc; mount -o remount,rw /proc/sys; {script}");
    let image = lab.image("sets", &script);
    let disk = lab.disk(GIB);
    let ran = landfall(disk.install(&image, &[]));
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("it is {}", before[0])), "{ran:#?}");
    assert_eq!(settings(), before);
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", &script]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert_eq!(settings(), before);
    assert_nothing_left();
}

#[test]
fn an_installation_opens_its_own_disk_alone() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let other = LoopDisk::new(&lab.directory.path().join("other"), GIB);
    let (name, before) = (other.device.display().to_string(), other.hash());
    let number = name.trim_start_matches("/dev/loop");
    let script = format!(
        "busybox mknod /dev/shm/other b 7 {number}; for other in {name} /dev/shm/other; do \
         echo hostile >$other; dd if=$other of=/dev/null count=1; done; \
         dd if=/bin/busybox of=$device bs=1M count=1 conv=fsync,notrunc; echo went on; exit 3"
    );
    let image = lab.image("reaches", &script);
    let report = lab.directory.path().join("report.json");
    let ran = landfall(disk.install(
        &image,
        &["--keep-on-failure", "--report", report.to_str().unwrap()],
    ));
    assert_eq!(ran.code, Some(4), "{ran:#?}");
    assert_eq!(other.hash(), before);
    let told = format!("open the block device 7:{number} ({name})");
    assert!(
        ran.stderr
            .contains(&format!("the image tried to {told}: refused")),
        "{ran:#?}"
    );
    let written = read(&report);
    assert_eq!(written["bootc"]["refused"], serde_json::json!([told]));
    let output = written["bootc"]["output"].as_array().unwrap();
    assert_eq!(output.last().unwrap(), "went on");
    assert_nothing_left();
}

/// How many processes there are on the machine.
fn processes() -> usize {
    let names = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name());
    names
        .filter(|name| {
            name.to_string_lossy()
                .starts_with(|first: char| first.is_ascii_digit())
        })
        .count()
}

#[test]
fn an_image_has_so_many_processes_and_no_more() {
    let lab = Lab::new();
    let image = lab.image("forks", "exit 0");
    // Each starts the next, and then waits.
    let forks = "next() { [ $1 -gt 0 ] && { next $(($1 - 1)) & }; sleep 98763; }; \
                 for chain in 1 2 3 4 5 6 7 8; do next 500 & done; sleep 5";
    let (before, over) = (processes(), Arc::new(AtomicBool::new(false)));
    let seen = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(processes());
                thread::sleep(Duration::from_millis(20));
            }
            most
        })
    };
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", forks]);
    over.store(true, Ordering::Relaxed);
    let most = seen.join().unwrap();
    assert!(
        ran.stderr
            .contains("the image tried to run more than 2048 processes and threads at once: refused"),
        "{ran:#?}"
    );
    assert!(
        (500..3000).contains(&(most - before)),
        "{before} processes became {most}"
    );
    assert_nothing_left();
}

#[test]
fn an_image_has_so_much_memory_and_no_more() {
    let lab = Lab::new();
    let image = lab.image("fills", "exit 0");
    let fills =
        "for place in tmp dev/shm run; do dd if=/dev/zero of=/$place/file bs=1M count=60 || exit 9; done";
    let fill = |budget: &str| {
        let ran = landfall([
            "run",
            &image,
            "--tls-verify=false",
            budget,
            "--",
            "sh",
            "-c",
            fills,
        ]);
        let told = ran.stderr.contains("MiB of memory: refused");
        assert_nothing_left();
        (ran, told)
    };
    let (ran, told) = fill("--memory-budget=150MiB");
    assert!(ran.code != Some(0) && told, "{ran:#?}");
    let (ran, told) = fill("--memory-budget=600MiB");
    assert!(ran.code == Some(0) && !told, "{ran:#?}");
}

#[test]
fn a_guard_that_the_kernel_does_not_have_is_told_or_demanded() {
    let lab = Lab::new();
    let image = lab.image("guarded", "exit 3");
    let disk = lab.disk(GIB);
    let device = disk.device.to_str().unwrap();
    let plan = ["plan", &image, device, "--tls-verify=false", "--generic-image"];
    let plan_in_json = |ran: Ran| -> serde_json::Value { serde_json::from_str(&ran.stdout).unwrap() };
    let all = plan_in_json(landfall([&plan[..], &["--json", "--require-isolation"]].concat()));
    for (guard, there) in all["isolation"].as_object().unwrap() {
        assert_eq!(there, true, "{guard}");
    }
    let less = plan_in_json(without_bpf(&[&plan[..], &["--json"]].concat()));
    for (guard, there) in less["isolation"].as_object().unwrap() {
        let needs_bpf = ["device_filter", "sysctl_filter"].contains(&guard.as_str());
        assert_eq!(*there, !needs_bpf, "{guard}");
    }
    let what = "a hostile image could open all disks (CONFIG_CGROUP_BPF)";
    let ran = without_bpf(&plan);
    assert!(ran.stdout.contains(&format!("unguarded   {what}")), "{ran:#?}");

    // The same goes for filters of system calls, and for the broker, which needs them.
    for (answers, missing) in [
        ("errno allow", &["mount what it likes"][..]),
        ("", &["mount what it likes", "make every system call"]),
    ] {
        let ran = with_answers(answers, &disk.install(&image, &[]));
        assert!(ran.error().contains("failed with exit status 3"), "{ran:#?}");
        for what in missing {
            assert!(ran.stderr.contains(what), "{ran:#?}");
        }
    }

    // It goes on, and says so once.
    let install = disk.install(&image, &[]);
    let ran = without_bpf(&install);
    assert_eq!(ran.stderr.matches(what).count(), 1, "{ran:#?}");
    assert!(ran.error().contains("failed with exit status 3"), "{ran:#?}");
    assert!(!landfall(&install).stderr.contains("a hostile image"));

    lab.registry.let_it_log();
    let asked = lab.registry.requests().len();
    let run = ["run", &image, "--tls-verify=false", "--", "ls"];
    let run_demanding = [
        "run",
        &image,
        "--tls-verify=false",
        "--require-isolation",
        "--",
        "ls",
    ];
    let demanding = [&install[..], &["--require-isolation"]].concat();
    for (arguments, code) in [(&demanding[..], 3), (&run_demanding, 125)] {
        let ran = without_bpf(arguments);
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        assert!(
            ran.error().starts_with("landfall: --require-isolation: "),
            "{ran:#?}"
        );
        assert!(
            ran.error()
                .contains("change the kernel's settings (CONFIG_CGROUP_BPF)"),
            "{ran:#?}"
        );
    }
    assert_eq!(lab.registry.requests().len(), asked, "something was pulled");
    assert_eq!(without_bpf(&run).code, Some(0));
    assert_eq!(landfall(run_demanding).code, Some(0));
    assert_nothing_left();
}
