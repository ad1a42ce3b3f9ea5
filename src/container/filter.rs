//! What a program of the image may ask the kernel for: filters of system calls (seccomp(2)), as classic BPF.
//!
//! [`asking`] lists what is allowed, [`installing`] what is not. A filter sees numbers alone, so what has to
//! be known by a name, as a mount, is handed to the broker. Calls for another architecture than this
//! program's, or with x32's numbers, are refused as a whole.

mod asking;
mod assemble;
mod installing;
#[cfg(test)]
mod tests;

use libc::{c_long, sock_filter};
use nix::errno::Errno;

use assemble::program;

/// Whether somebody hears and answers the calls that a filter hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    #[allow(dead_code, reason = "there is no broker yet")]
    Present,
    /// What mounts is allowed, and what would be told of is refused without a word.
    Missing,
}

/// What is answered to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allow,
    Refuse(Errno),
    /// No honest image makes it: it's refused, and told of.
    Tell,
    /// The broker decides, and does it.
    Decide,
}

/// The filter for a program that is asked something.
pub fn asking() -> Vec<sock_filter> {
    program(&asking::rules(), asking::otherwise, Broker::Missing)
}

/// The filter for the installer. With `luks`, it encrypts the disk.
pub fn installing(luks: bool, broker: Broker) -> Vec<sock_filter> {
    program(&installing::rules(luks), |_| Answer::Allow, broker)
}

/// The name of a call that is refused and told of, be it for some of its arguments only.
#[allow(dead_code, reason = "there is no broker yet")]
pub fn told(number: c_long) -> Option<&'static str> {
    installing::told(number)
}
