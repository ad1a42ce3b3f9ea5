//! Standard output and standard error that take nothing more: a pipe whose reader went away, a full disk.

mod support;

use std::fs::{File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};

use support::{LANDFALL, Ran};

fn run(arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Ran {
    let mut command = Command::new(LANDFALL);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout);
    let child = command.stderr(stderr).spawn().unwrap();
    child.wait_with_output().unwrap().into()
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe from which nobody reads.
fn unread() -> io::PipeWriter {
    io::pipe().unwrap().1
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    for arguments in [&["disks"][..], &["disks", "--json"]] {
        let ran = run(arguments, unread(), Stdio::piped());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_an_error_of_one_line() {
    for arguments in [&["disks"][..], &["disks", "--json"]] {
        let ran = run(arguments, full(), Stdio::piped());
        let expected = "landfall: writing to standard output: No space left on device (os error 28)\n";
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (Some(3), expected),
            "{arguments:?}"
        );
    }
}

#[test]
fn an_error_that_nobody_can_read_is_still_a_status() {
    let failing = ["verify", "/nonexistent/disk"];
    assert_eq!(run(&failing, Stdio::null(), full()).code, Some(3));
    assert_eq!(run(&failing, Stdio::null(), unread()).code, Some(3));
}
