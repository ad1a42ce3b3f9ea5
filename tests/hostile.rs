//! Hostile images. What they could do is judged from outside.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use lab::image::{Entry, Layer};
use lab::{able_kernel, hostile};
use nix::pty::openpty;
use support::{GIB, LANDFALL, Lab, landfall};

const UNTOUCHED: Option<i32> = Some(3);

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

/// To open one waits for somebody, or does something: a tape rewinds.
#[test]
fn what_is_no_file_in_an_image_is_not_opened() {
    let lab = Lab::new();
    let disk = lab.disk(GIB);
    let path = "boot/EFI/Linux/evil.efi";
    for (tag, entry, expected) in [
        ("pipe", Entry::fifo(path), "is not a file"),
        (
            "zeros",
            Entry::character_device(path, (1, 5)),
            "EACCES: Permission denied",
        ),
    ] {
        let image = support::installable("exit 3").layer(Layer::new([entry]));
        lab.layout.add(&image, tag).unwrap();
        let ran = landfall(disk.install(&lab.place(tag), &[]));
        assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
        assert!(ran.error().contains(expected), "{ran:#?}");
    }
}
