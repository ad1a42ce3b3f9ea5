//! The line between the first process of a ramdisk and the installer that it started: what one has and the
//! other asks for. The installer finds it as its standard input, which nobody else can forge.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{dup2_stdin, getppid};

/// What the first process does for the installer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Removes the configuration file from the ramdisk.
    ForgetConfiguration,
    NetworkDown,
    /// As it was before it was taken down.
    NetworkUp,
}

const WORDS: [(Order, &str); 3] = [
    (Order::ForgetConfiguration, "forget the configuration"),
    (Order::NetworkDown, "network down"),
    (Order::NetworkUp, "network up"),
];

/// What is answered to an order that was carried out. Everything else is an error.
const DONE: &str = "done";

/// The first process, as the installer sees it.
pub struct FirstProcess(UnixStream);

impl FirstProcess {
    /// If it is this program, and has started this process: takes the line, which nobody else inherits then.
    pub fn at_standard_input() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        let made_by = getsockopt(&stdin, PeerCredentials).map(|peer| peer.pid());
        if made_by != Ok(1) || getppid().as_raw() != 1 || !first_is_this_program() {
            return Ok(None);
        }
        let line = stdin.as_fd().try_clone_to_owned().context("dup(0)")?;
        dup2_stdin(File::open("/dev/null").context("open(/dev/null)")?).context("dup2(0)")?;
        Ok(Some(Self(line.into())))
    }

    /// Gives an order and waits until it is carried out.
    pub fn ask(&self, order: Order) -> Result<()> {
        let word = WORDS.iter().find(|(known, _)| *known == order);
        let word = word.map_or("", |(_, word)| word);
        let ask = || -> std::io::Result<String> {
            let mut answer = String::new();
            writeln!(&self.0, "{word}")?;
            BufReader::new(&self.0).read_line(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().with_context(|| format!("asking the first process: {word}"))?;
        match answer.trim_end() {
            DONE => Ok(()),
            "" => bail!("the first process does not answer"),
            error => bail!("{error}"),
        }
    }
}

fn first_is_this_program() -> bool {
    let file = |process: &str| {
        let file = fs::metadata(format!("/proc/{process}/exe")).ok()?;
        Some((file.dev(), file.ino()))
    };
    file("1").is_some_and(|first| Some(first) == file("self"))
}

/// The first process's end of the line.
pub struct Line(UnixStream);

impl Line {
    /// A line, and what becomes the installer's standard input.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        Ok((Self(ours), theirs.into()))
    }

    /// Lets `carry_out` do what is asked for, until the installer has ended.
    pub fn serve(&self, mut carry_out: impl FnMut(Order) -> Result<()>) {
        for line in BufReader::new(&self.0).lines().map_while(Result::ok) {
            let order = WORDS.iter().find(|(_, word)| *word == line);
            let answer = match order.map(|(order, _)| carry_out(*order)) {
                Some(Ok(())) => DONE.to_owned(),
                Some(Err(error)) => format!("{error:#}").replace('\n', " "),
                None => format!("there is no such order: {line}"),
            };
            if writeln!(&self.0, "{answer}").is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_carried_out_one_by_one_and_failures_are_told() {
        let (line, theirs) = Line::new().unwrap();
        let serving = std::thread::spawn(move || {
            let mut orders = Vec::new();
            line.serve(|order| {
                orders.push(order);
                match order {
                    Order::NetworkUp => bail!("eth0\nis gone"),
                    _ => Ok(()),
                }
            });
            orders
        });
        let first = FirstProcess(theirs.into());
        first.ask(Order::ForgetConfiguration).unwrap();
        first.ask(Order::NetworkDown).unwrap();
        let error = first.ask(Order::NetworkUp).unwrap_err().to_string();
        assert_eq!(error, "eth0 is gone");
        drop(first);
        assert_eq!(serving.join().unwrap(), WORDS.map(|(order, _)| order));
    }

    #[test]
    fn a_first_process_that_is_gone_is_an_error() {
        let (line, theirs) = Line::new().unwrap();
        drop(line);
        assert!(FirstProcess(theirs.into()).ask(Order::NetworkDown).is_err());
    }

    #[test]
    fn no_other_process_is_taken_for_it() {
        assert!(!first_is_this_program());
        assert!(FirstProcess::at_standard_input().unwrap().is_none());
    }
}
