//! Keys that the kernel keeps for a session (keyrings(7)).

use anyhow::{Context, Result};
use nix::errno::Errno;

/// Gives the calling process, and all that it starts, an empty keyring in place of the one of the session
/// that it was started in.
pub fn join_new_session() -> Result<()> {
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the kernel reads nothing of this process.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) };
    match Errno::result(result) {
        // A kernel without keys.
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}
