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

pub use assemble::Broker;
use assemble::{Answer, program};

/// The filter for a program that is asked something.
pub fn asking() -> Vec<sock_filter> {
    program(&asking::rules(), asking::otherwise, Broker::Missing)
}

/// The filter for the installer. With `luks`, it encrypts the disk.
pub fn installing(luks: bool, broker: Broker) -> Vec<sock_filter> {
    program(&installing::rules(luks), |_| Answer::Allow, broker)
}

/// The name of a call that is refused and told of, be it for some of its arguments only.
pub fn told(number: c_long) -> Option<&'static str> {
    installing::told(number)
}
