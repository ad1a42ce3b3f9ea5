//! Hostile images. They attack in all ways that `fixtures/hostile` knows and that do this machine no harm if
//! they succeed; `xtask/tests/hostile.rs` has the others, in a virtual machine. What they could do is judged
//! from outside. That an attack says of itself that it worked counts as well; that it says nothing doesn't.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lab::image::{Entry, Image, Layer};
use lab::{able_kernel, hostile};
use nix::pty::openpty;
use support::disk::run;
use support::{GIB, LANDFALL, Lab, LoopDisk, Ran, assert_nothing_left, landfall, output};

const UNTOUCHED: Option<i32> = Some(3);
/// What nobody may find: in a file of the host, in root's keyring.
const SECRET: &str = "canary-of-the-host";
const KEY: &str = "canary-of-the-keyring";
/// The name of the key, and of the control group.
const BAIT: &str = "hostile-bait";
/// Settings of the kernel that an attack would change, and to what. Nothing depends on them.
const SETTINGS: [(&str, &str, &str); 2] = [
    ("sysctl", "/proc/sys/vm/stat_interval", "7"),
    ("sys-write", "/sys/kernel/mm/ksm/sleep_millisecs", "4321"),
];

/// What the machine has that an image might take or change.
struct Bait {
    secret: PathBuf,
    attack: PathBuf,
    disk: LoopDisk,
    disk_before: String,
    settings_before: [String; 2],
    devices_before: BTreeSet<PathBuf>,
    listener: TcpListener,
    named: UnixListener,
    cgroup: PathBuf,
    process: Child,
}

impl Bait {
    fn lay(lab: &Lab) -> Self {
        let directory = lab.directory.path();
        let disk = LoopDisk::new(&directory.join("other"), 32 << 20);
        run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
        let attack = hostile::compile(directory).unwrap();
        output(Command::new(&attack).arg(format!("plant-key={BAIT}")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let named = SocketAddr::from_abstract_name(name).unwrap();
        let named = UnixListener::bind_addr(&named).unwrap();
        named.set_nonblocking(true).unwrap();
        let cgroup = control_groups().join(BAIT);
        fs::create_dir_all(&cgroup).unwrap();
        let process = Command::new("sleep").arg("98763").spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        Self {
            secret: lab.file("secret", SECRET),
            attack,
            disk_before: disk.hash(),
            disk,
            settings_before: SETTINGS.map(|(_, path, _)| fs::read_to_string(path).unwrap()),
            devices_before: devices(),
            listener,
            named,
            cgroup,
            process,
        }
    }

    fn attacks(&self) -> Vec<String> {
        let disk = name_of(&self.disk);
        let settings = SETTINGS.map(|(attack, path, value)| {
            let path = path.trim_start_matches("/proc/sys/").trim_start_matches("/sys/");
            format!("{attack}={path}={value}")
        });
        let others = [
            "mounts".into(),
            format!("cgroups={BAIT}"),
            "log".into(),
            format!("disk={disk}"),
            format!("mount-disk={disk}"),
            "leave".into(),
            "handles".into(),
            format!("keys={BAIT}"),
            "calls".into(),
            "sockets".into(),
            "forks=3000".into(),
            "fill=1024".into(),
            format!("connect={}", self.listener.local_addr().unwrap()),
            format!("escape={}", self.secret.display()),
        ];
        settings.into_iter().chain(others).collect()
    }

    /// The attacks as a line of a shell's.
    fn script(&self, more: &[String]) -> String {
        let words = [more, &self.attacks()].concat();
        format!("/{} '{}' 2>&1 ", hostile::ATTACK, words.join("' '"))
    }

    /// What goes into the image: the program, and a device node of the other disk.
    fn layer(&self) -> Layer {
        let name = name_of(&self.disk);
        let number = name.trim_start_matches("loop").parse().unwrap();
        Layer::new([
            hostile::entry().unwrap(),
            Entry::block_device(format!("opt/hostile/node-of-{name}"), (7, number)),
        ])
    }

    /// Fails with all that was taken or changed.
    #[track_caller]
    fn assert_untouched(&mut self, ran: &Ran) {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(": tried ("), "nothing was tried: {said}");
        let settings = SETTINGS.map(|(_, path, _)| fs::read_to_string(path).unwrap());
        let connected = |error: std::io::Error| error.kind() != ErrorKind::WouldBlock;
        // By the same program as the image's, from outside.
        let key = output(Command::new(&self.attack).arg(format!("keys={BAIT}")));
        let losses = [
            ("the other disk has changed", self.disk.hash() != self.disk_before),
            (
                "the kernel's settings have changed",
                settings != self.settings_before,
            ),
            (
                "something is left in /dev, or gone from it",
                devices() != self.devices_before,
            ),
            (
                "it connected to the host",
                self.listener.accept().err().is_none_or(connected),
            ),
            (
                "it connected to a name of the host's",
                self.named.accept().err().is_none_or(connected),
            ),
            (
                "a process of the host's was killed",
                self.process.try_wait().unwrap().is_some(),
            ),
            ("it made a control group", control_groups().join("evil").exists()),
            ("it left a file on the host", Path::new("/evil-file").exists()),
            ("it read a file of the host's", said.contains(SECRET)),
            ("it read a key of the host's", said.contains(KEY)),
            ("a key of the host's is gone", !key.contains(KEY)),
        ];
        let losses = losses
            .into_iter()
            .filter(|(_, is_lost)| *is_lost)
            .map(|(what, _)| what);
        let worked = said.lines().filter(|line| line.contains("WORKED"));
        let all: Vec<_> = losses.chain(worked).collect();
        assert!(all.is_empty(), "{all:#?}");
        assert_nothing_left();
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.cgroup);
        let _ = fs::remove_dir(self.cgroup.with_file_name("evil"));
        let _ = Command::new(&self.attack)
            .arg(format!("unplant-key={BAIT}"))
            .output();
        for ((_, path, _), before) in SETTINGS.iter().zip(&self.settings_before) {
            let _ = fs::write(path, before);
        }
        for left in devices().difference(&self.devices_before) {
            let _ = fs::remove_file(left).or_else(|_| fs::remove_dir(left));
        }
        let _ = fs::remove_file("/evil-file");
    }
}

fn name_of(disk: &LoopDisk) -> String {
    disk.device.file_name().unwrap().to_str().unwrap().into()
}

fn control_groups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let version_2 = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let path = version_2.and_then(|line| line.split(' ').nth(1));
    path.expect("control groups of version 2 are mounted").into()
}

/// All in `/dev` that somebody could have left there; loop devices come and go by themselves.
fn devices() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir("/dev").unwrap().flatten().map(|entry| entry.path());
    entries
        .filter(|path| !path.to_string_lossy().starts_with("/dev/loop"))
        .collect()
}

/// An image that attacks in `script`, which a shell runs before the image's own bootc answers or installs.
fn with_bootc(bait: &Bait, script: &str) -> Image {
    let bootc = format!("#!/bin/sh\n{script}exec /usr/bin/bootc \"$@\"\n");
    support::installable("exit 3")
        .layer(bait.layer())
        .layer(Layer::new([Entry::program("opt/hostile/bootc", bootc)]))
        .env("PATH=/opt/hostile:/usr/bin")
}

#[test]
fn a_command_of_a_hostile_image_takes_nothing() {
    let lab = Lab::new();
    let mut bait = Bait::lay(&lab);
    lab.layout.add(&with_bootc(&bait, ""), "hostile").unwrap();
    let image = lab.place("hostile");
    let script = bait.script(&[]);
    let ran = landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", &script]);
    bait.assert_untouched(&ran);
}

#[test]
fn a_bootc_that_attacks_when_it_is_asked_takes_nothing_and_the_disk_is_not_touched() {
    let lab = Lab::new();
    let mut bait = Bait::lay(&lab);
    let disk = lab.disk(GIB);
    run("mkfs.ext4", &["-q", disk.device.to_str().unwrap()]);
    let before = disk.hash();
    let target = format!("disk={}", name_of(&disk));
    let attack = bait.script(&[target]).replace("2>&1", ">>/asked 2>&1");
    let script = format!("case \"$*\" in\n*--source-imgref*[^p]) cat /asked ;;\n*) {attack};;\nesac\n");
    lab.layout.add(&with_bootc(&bait, &script), "asked").unwrap();
    let image = lab.place("asked");
    let ran = landfall(disk.install(&image, &["--wipe", "--keep-on-failure"]));
    assert_eq!(disk.hash(), before, "{ran:#?}");
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    bait.assert_untouched(&ran);
}

#[test]
fn a_bootc_that_attacks_while_it_installs_takes_nothing() {
    let lab = Lab::new();
    let mut bait = Bait::lay(&lab);
    let script = format!(
        "case \"$*\" in\n*--source-imgref*[^p]) {};;\nesac\n",
        bait.script(&[])
    );
    lab.layout.add(&with_bootc(&bait, &script), "installs").unwrap();
    let image = lab.place("installs");
    let disk = lab.disk(GIB);
    let report = lab.directory.path().join("report.json");
    let ran = landfall(disk.install(&image, &["--report", report.to_str().unwrap()]));
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    let report = fs::read_to_string(report).unwrap();
    assert!(!report.contains(SECRET) && !report.contains(KEY), "{report}");
    bait.assert_untouched(&ran);
}

/// Runs a shell on a terminal, and gives what that shows. In the end it reads a line: that this is `nothing`
/// shows that nobody typed anything before.
fn on_a_terminal(command: &str) -> String {
    let terminal = openpty(None, None).unwrap();
    let script = format!("{command}; echo READY; read -r line; echo \"first: <$line>\"");
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut shell = Command::new("setsid")
        .args(["--ctty", "--wait", "sh", "-c", &script])
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .unwrap();
    let mut master = fs::File::from(terminal.master);
    let mut said = Vec::new();
    let mut read_until = |end: &str, master: &mut fs::File| {
        while !String::from_utf8_lossy(&said).contains(end) {
            let mut byte = [0];
            master.read_exact(&mut byte).unwrap();
            said.extend(byte);
        }
    };
    read_until("READY", &mut master);
    master.write_all(b"nothing\n").unwrap();
    read_until("first: <", &mut master);
    read_until(">", &mut master);
    shell.wait().unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn nothing_is_typed_into_the_terminal_of_who_runs_an_image() {
    let lab = Lab::new();
    let layer = Layer::new([hostile::entry().unwrap()]);
    lab.layout
        .add(&support::installable("exit 0").layer(layer), "types")
        .unwrap();
    let image = lab.place("types");
    let typing = format!("/{} typing", hostile::ATTACK);
    let run =
        able_kernel::shell_prefix() + &format!(" {LANDFALL} run {image} --tls-verify=false -- {typing}");
    let shown = on_a_terminal(&run);
    assert!(shown.contains("attack typing: tried"), "{shown}");
    assert!(shown.ends_with("first: <nothing>"), "{shown}");
}

/// The kernel would start Landfall itself, the file of the host's, as the interpreter of the image's program.
#[test]
fn landfall_is_no_program_of_the_image() {
    let lab = Lab::new();
    let c = lab.file("main.c", "int main(void) { return 0; }");
    let program = lab.directory.path().join("interpreted");
    output(
        Command::new("cc")
            .args(["-Wl,--dynamic-linker=/proc/self/exe", "-o"])
            .args([&program, &c]),
    );
    let layer = Layer::new([
        Entry::program("opt/script", "#!/proc/self/exe --version\n"),
        Entry::program("opt/program", fs::read(program).unwrap()),
    ]);
    lab.layout
        .add(&support::installable("exit 0").layer(layer), "self")
        .unwrap();
    let image = lab.place("self");
    for program in ["/opt/script", "/opt/program"] {
        let ran = landfall(["run", &image, "--tls-verify=false", "--", program, "--version"]);
        assert_eq!(ran.code, Some(126), "{ran:#?}");
        assert_eq!(ran.stdout, "", "{ran:#?}");
    }
}

/// To open one waits for somebody, or does something: a tape rewinds.
#[test]
fn what_is_no_file_in_an_image_is_not_opened() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let path = "boot/EFI/Linux/evil.efi";
    for (tag, entry) in [
        ("pipe", Entry::fifo(path)),
        ("zeros", Entry::character_device(path, (1, 5))),
    ] {
        let image = support::installable("exit 3").layer(Layer::new([entry]));
        lab.layout.add(&image, tag).unwrap();
        let ran = landfall(disk.install(&lab.place(tag), &[]));
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
        assert!(ran.error().contains("is not a file"), "{ran:#?}");
    }
}
