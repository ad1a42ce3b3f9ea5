//! Errors of system calls. Nothing unsafe: it is here because siblings need it.

use nix::errno::Errno;

/// The error of one crate as that of the other.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
