//! A hostile image in a machine that has things to take: its bootc attacks whenever it is called, and then
//! installs as it should. What it could do is judged from outside: by the disks, the firmware's memory, the
//! console, and a program of ours in the ramdisk that looks around afterwards.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab::image::{Entry, Layer, Layout};
use lab::registry::Registry;
use lab::scenario::Installation;
use lab::vm::{self, Disk};
use lab::{apt, command, config_drive, fixture, hostile, product};

/// What nobody may find: passwords of a registry and of a proxy, the key to a config drive.
const CANARIES: [&str; 3] = [
    "canary-of-the-registry",
    "canary-of-the-proxy",
    "canary-of-the-drive",
];

/// What the image tries, each time.
fn attacks(port: u16) -> String {
    [
        "sysctl=kernel/core_pattern=|/proc/%P/root/opt/hostile/attack",
        "crash",
        "sysctl=kernel/modprobe=/evil",
        "sys-write=kernel/uevent_helper=/evil",
        "sys-write=kernel/mm/ksm/sleep_millisecs=4321",
        "mounts",
        "binfmt",
        "cgroups=evil",
        "proc-read=cmdline",
        "log",
        "devices=vdb",
        "disk=vda",
        "mount-disk=vda1",
        "loops",
        "typing",
        "terminals",
        "leave=vda",
        "handles=/auth.json",
        "keys=canary",
        "firmware",
        "calls",
        "clock",
        "sockets",
        &format!("connect=10.0.2.2:{port}"),
        "escape=/auth.json",
        "proc-write=sysrq-trigger=b",
    ]
    .map(|line| format!("{line}\n"))
    .concat()
}

/// The fixture's image, with a bootc that attacks first.
fn image(registry: &Registry, directory: &Path) -> Result<()> {
    let copy = directory.join("layout");
    command::run(
        Command::new("cp")
            .arg("-al")
            .arg(fixture::layout()?.path())
            .arg(&copy),
    )?;
    let layout = Layout::open(&copy);
    let own = |name: &str| Ok::<_, anyhow::Error>(fs::read(hostile::source(name))?);
    let layer = Layer::new([
        Entry::directory("opt"),
        Entry::directory("opt/hostile"),
        hostile::entry()?,
        Entry::program("opt/hostile/bootc", own("bootc")?),
        Entry::file("opt/hostile/attacks", attacks(registry.port())),
    ]);
    layout.derive(fixture::BOOTABLE, &[layer], "hostile")?;
    layout.edit_config("hostile", |config| {
        let path = "PATH=/opt/hostile:/usr/sbin:/usr/bin:/sbin:/bin";
        config["config"]["Env"] = serde_json::json!([path]);
    })?;
    registry.place(&layout, "hostile", "os/hostile:1")?;
    Ok(())
}

/// A disk with a partition, and on it a file system with somebody's data.
fn other_disk(directory: &Path) -> Result<Disk> {
    let path = directory.join("other.img");
    let disk = Disk::create(&path, 64)?;
    let table = b"label: gpt\nstart=1MiB, size=32MiB\nsize=16MiB\n";
    command::filter(Command::new("sfdisk").arg("--quiet").arg(&path), table)?;
    let tree = directory.join("data");
    fs::create_dir(&tree)?;
    fs::write(tree.join("data"), "somebody's data")?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-E", "offset=1048576", "-d"]).arg(&tree);
    command::run(mkfs.arg(&path).arg("32M"))?;
    Ok(disk)
}

/// Gives the file to whoever asks for it with the key; nobody else learns the port.
fn serve(file: PathBuf, request: String) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut first = String::new();
            let mut lines = BufReader::new(client.try_clone().expect("dup"));
            let _ = lines.read_line(&mut first);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let body = fs::read(&file).expect("it is there");
            let (status, body) = match first.contains(&request) {
                true => ("200 OK", body.as_slice()),
                false => ("403 Forbidden", &[][..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = client
                .write_all(head.as_bytes())
                .and_then(|()| client.write_all(body));
        }
    });
    Ok(port)
}

#[test]
fn a_hostile_bootc_gets_nothing_and_installs() -> Result<()> {
    let missing = apt::missing(&["qemu-system-x86", "ovmf", "docker-registry", "mmdebstrap"]);
    if !missing.is_empty() {
        return lab::cannot_run("the hostile image in a virtual machine", &missing.join(", "));
    }
    let directory = lab::tempdir()?;
    let directory = directory.path();
    let [registry_password, proxy_password, drive_key] = CANARIES;
    let registry = Registry::builder().user("node", registry_password).start()?;
    image(&registry, directory)?;
    let landfall = product::build()?;
    let other = other_disk(directory)?;
    let before = fs::read(&other.path)?;
    let drive = directory.join("config-drive.iso");
    config_drive::create(&drive, config_drive::FILES)?;
    let port = serve(drive, format!("?token={drive_key} "))?;
    let auth = directory.join("auth.json");
    let secret = STANDARD.encode(format!("node:{registry_password}"));
    fs::write(
        &auth,
        format!(
            r#"{{"auths":{{"{}":{{"auth":"{secret}"}}}}}}"#,
            registry.host_for_vm()
        ),
    )?;
    let name = format!("{}/os/hostile:1", registry.host_for_vm());
    let disk = Disk::create(&directory.join("disk.img"), 2048)?;
    let variables = directory.join("variables.fd");
    let files = [
        (auth, "auth.json"),
        ("/usr/bin/busybox".into(), "bin/busybox"),
        (hostile::source("outside"), "bin/sh"),
    ];
    let arguments = format!(
        "quiet https_proxy=http://user:{proxy_password}@proxy.lab:3128 landfall.tls-verify=0 \
         landfall.authfile=/auth.json landfall.config-drive=http://10.0.2.2:{port}/drive.iso?token={drive_key} \
         landfall.after=shell landfall.after-failure=shell landfall.args=\"--report /report.json\""
    );
    let installation = Installation {
        device: "landfall.device=/dev/vdb".into(),
        second: Some(&other),
        variables: Some(&variables),
        files: &files,
        arguments: &arguments,
        echo: "hostile: ",
        ..Installation::new(&landfall, &name, &disk)
    };
    let said = installation.run()?;
    let (_, booted) = installation.boot()?;
    assert!(booted.contains("node-17.lab"), "{booted}");

    let mut losses = losses(&said);
    if fs::read(&other.path)? != before {
        losses.push("the other disk has changed".into());
    }
    let has = |name: &str| -> Result<bool> {
        let versions = vm::variables::versions(&variables, name)?;
        Ok(versions.iter().any(|version| version.is_valid))
    };
    if has("Evil")? || !has("Boot0000")? || !has("Lang")? {
        losses.push("the firmware's variables have changed".into());
    }
    for canary in CANARIES.iter().copied().chain([secret.as_str()]) {
        if said.contains(canary) {
            losses.push(format!("{canary} is on the console"));
        }
        if is_in(&disk.path, canary)? {
            losses.push(format!("{canary} is on the installed disk"));
        }
    }
    assert!(losses.is_empty(), "{losses:#?}");
    assert!(
        said.contains("the image tried to "),
        "nobody was told what was refused"
    );
    Ok(())
}

fn is_in(file: &Path, text: &str) -> Result<bool> {
    let mut grep = Command::new("grep");
    grep.args(["--quiet", "--text", "--fixed-strings", text])
        .arg(file);
    let status = grep.status()?;
    anyhow::ensure!(matches!(status.code(), Some(0 | 1)), "grep: {status}");
    Ok(status.success())
}

/// What the program outside found that is not as it should be, and what attacks say that they did.
fn losses(said: &str) -> Vec<String> {
    let outside = |name: &str| -> Vec<&str> {
        let head = format!("outside {name}: ");
        said.lines().filter_map(|line| line.strip_prefix(&head)).collect()
    };
    assert!(
        said.contains("outside: done"),
        "nobody looked around outside:\n{said}"
    );
    let mut losses: Vec<String> = said
        .lines()
        .filter(|line| line.contains("WORKED") || line.trim().starts_with("EVIL-SHOWN"))
        .map(str::to_string)
        .collect();
    let mut expect = |what: &str, is_as_it_was: &dyn Fn(&[&str]) -> bool| {
        let found = outside(what);
        if !is_as_it_was(&found) {
            losses.push(format!("{what} is {found:?}"));
        }
    };
    for setting in ["core_pattern", "modprobe", "uevent_helper", "cgroups"] {
        expect(setting, &|found| {
            !found
                .iter()
                .any(|line| line.contains("evil") || line.contains("hostile"))
        });
    }
    expect("sysfs", &|found| found.len() == 1 && found != ["4321"]);
    expect("year", &|found| found.len() == 1 && found != ["2000"]);
    expect("disk", &|found| found == ["/dev/vda 600", "/dev/vdb 600"]);
    expect("mount", &|found| {
        !found.is_empty() && !found.iter().any(|line| line.contains("hostile"))
    });
    expect("process", &|found| {
        !found.is_empty()
            && found
                .iter()
                .all(|line| ["/init", "init", "/bin/busybox", "sh", "sed"].contains(line))
    });
    expect("report", &|found| !found.is_empty());
    expect("found", &|found| found.is_empty());
    expect("log", &|found| found.is_empty());
    expect("typed", &|found| found == [""] || found.is_empty());
    losses
}
