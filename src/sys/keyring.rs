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

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::thread;

    const KIND: &CStr = c"user";
    const NAME: &CStr = c"landfall-test";

    fn add() -> nix::Result<i64> {
        let (session, value) = (libc::KEY_SPEC_SESSION_KEYRING, b"secret");
        // SAFETY: the names end with a NUL, and the value has the length that is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                KIND.as_ptr(),
                NAME.as_ptr(),
                value.as_ptr(),
                value.len(),
                session,
            )
        };
        Errno::result(result)
    }

    fn find() -> nix::Result<i64> {
        let none = std::ptr::null::<libc::c_char>();
        // SAFETY: the names end with a NUL.
        Errno::result(unsafe { libc::syscall(libc::SYS_request_key, KIND.as_ptr(), NAME.as_ptr(), none, 0) })
    }

    #[test]
    fn keys_of_the_session_are_left_behind() {
        // The thread's own session, so that nothing is left in ours.
        let keys = thread::spawn(|| {
            join_new_session().unwrap();
            add().expect("this kernel keeps keys");
            let before = find();
            join_new_session().unwrap();
            (before.is_ok(), find())
        });
        assert_eq!(keys.join().unwrap(), (true, Err(Errno::ENOKEY)));
    }
}
