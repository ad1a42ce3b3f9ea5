//! What the kernel keeps an image from, and what Landfall says where the kernel can't. Judged from outside: by
//! the host's settings, another disk, the number of processes.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::{GIB, Lab, LoopDisk, assert_nothing_left, landfall};

/// A setting that hurts nobody.
const SETTING: &str = "/proc/sys/vm/stat_interval";

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
