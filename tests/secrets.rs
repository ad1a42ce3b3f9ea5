//! What is secret stays with Landfall: others on the machine look, as another user or as root, and find
//! nothing.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lab::image::{Entry, Layer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{GIB, Lab, output, start_until};

/// A bootc that tells that it runs, and waits to be stopped.
const WAITS: &str = "echo running; sleep 98763";

/// The process and all that descend from it.
fn family(of: u32) -> Vec<u32> {
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

/// What `program` says to somebody who is not root.
fn as_nobody(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("setpriv");
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", program];
    let said = command.args(user).args(arguments).output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

#[test]
fn with_the_machines_network_others_on_it_get_nothing_of_the_image() {
    let lab = Lab::new();
    let image = lab.image("private", WAITS);
    let disk = lab.disk(GIB);
    let arguments = disk.install(&image, &["--network", "host", "--progress=plain"]);
    let (child, finish) = start_until(&arguments, "running");

    // Root knows where the drop-in is; nobody else may look there.
    let drop_in = family(child.id()).into_iter().find_map(|pid| {
        let path = format!("/proc/{pid}/root/etc/containers/registries.conf.d/zz-landfall.conf");
        let text = fs::read_to_string(&path).ok()?;
        Some((PathBuf::from(path), text))
    });
    let (path, text) = drop_in.unwrap();
    let path = path.to_str().unwrap();
    assert!(as_nobody("cat", &[path]).contains("Permission denied"));
    let location = text
        .split("location = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let (address, _) = location.split_once('/').unwrap();

    let digest = lab.layout.resolve("private").unwrap();
    let layer = lab.layout.manifest("private").unwrap()["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = |below: &str, what: &str| {
        let url = format!("http://{below}/{what}");
        as_nobody(
            "curl",
            &[
                "--silent",
                "--noproxy",
                "*",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                &url,
            ],
        )
    };
    for what in [
        format!("manifests/{digest}"),
        "manifests/private".into(),
        format!("blobs/{layer}"),
    ] {
        assert_eq!(answer(&format!("{address}/v2/os/test"), &what), "404", "{what}");
        // The same with the secret, which nobody has: what is asked for is there.
        let with_secret = location.replace('/', "/v2/");
        assert_eq!(answer(&with_secret, &what), "200", "{what}");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    finish(child);
}

#[test]
fn device_nodes_of_an_image_open_nothing() {
    let lab = Lab::new();
    let disk = lab.disk(1 << 20);
    fs::write(&disk.device, "canary of the disk").unwrap();
    let before = disk.hash();
    let numbers = output(Command::new("stat").args(["-c", "%Hr %Lr"]).arg(&disk.device));
    let numbers: Vec<u32> = numbers
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let mut header = tar::Header::new_gnu();
    header.set_path("usr/node").unwrap();
    header.set_entry_type(tar::EntryType::Block);
    header.set_mode(0o666);
    header.set_size(0);
    header.set_device_major(numbers[0]).unwrap();
    header.set_device_minor(numbers[1]).unwrap();
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, std::io::empty()).unwrap();
    let tools = ["ls", "dd", "head"].map(|name| Entry::symlink(format!("usr/bin/{name}"), "busybox"));
    let image = support::installable("exit 0")
        .layer(Layer::of_tar(archive.into_inner().unwrap()))
        .layer(Layer::new(tools));
    lab.layout.add(&image, "node").unwrap();
    let image = lab.place("node");
    let run =
        |script: &str| support::landfall(["run", &image, "--tls-verify=false", "--", "sh", "-c", script]);
    let there = run("ls -l /usr/node");
    assert!(there.stdout.starts_with('b'), "{there:#?}");
    let read = run("head -c 18 /usr/node");
    assert!(
        read.code != Some(0) && !read.stdout.contains("canary"),
        "{read:#?}"
    );
    let written = run("dd if=/usr/bin/busybox of=/usr/node bs=512 count=1");
    assert_ne!(written.code, Some(0), "{written:#?}");
    assert_eq!(disk.hash(), before);
}
