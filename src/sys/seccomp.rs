//! Filters of system calls: seccomp(2), by which a process gives up calls for itself and all that it starts.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use libc::{c_ulong, sock_filter, sock_fprog};
use nix::errno::Errno;

/// Without it older kernels make every process with a filter slower, against others in the same memory.
/// Container runtimes set it, too.
const FLAGS: c_ulong = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;

/// Where the kernel lists what a filter can answer.
const ANSWERS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// Whether a filter can give this answer, by the kernel's name for it.
pub fn answers(name: &str) -> bool {
    let answers = fs::read_to_string(ANSWERS).unwrap_or_default();
    answers.split_whitespace().any(|each| each == name)
}

/// Puts the calling thread, and all that it starts, under `program` for good. It must have given up gaining
/// privileges, or have `CAP_SYS_ADMIN`.
pub fn install(program: &[sock_filter]) -> Result<()> {
    set(program, FLAGS).map(drop)
}

/// The same. What the program hands over to somebody else (`SECCOMP_RET_USER_NOTIF`) is to be heard and
/// answered by the descriptor that this gives.
pub fn install_with_listener(program: &[sock_filter]) -> Result<OwnedFd> {
    let flags = FLAGS | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A call that has been heard is not begun again when its caller gets a signal, as Go's programs do all
    // the time. Since Linux 5.19.
    let listener = set(program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        .or_else(|_| set(program, flags))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn set(program: &[sock_filter], flags: c_ulong) -> Result<RawFd> {
    let program = sock_fprog {
        len: program
            .len()
            .try_into()
            .context("a filter of system calls is too long")?,
        filter: program.as_ptr().cast_mut(),
    };
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies `len` instructions from `filter`, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    let result = Errno::result(result).context("seccomp(SECCOMP_SET_MODE_FILTER)")?;
    Ok(RawFd::try_from(result)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::thread;

    /// Answers the call `number` with `answer`, and allows all others.
    fn all_but(number: libc::c_long, answer: u32) -> [sock_filter; 4] {
        let instruction = |code: u32, jf, k| sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        };
        [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, answer),
            instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ]
    }

    #[test]
    fn a_filter_is_for_this_thread_and_for_good() {
        let answer = libc::SECCOMP_RET_ERRNO | libc::EXDEV.cast_unsigned();
        let ours = thread::spawn(move || {
            install(&all_but(libc::SYS_getpriority, answer)).unwrap();
            // SAFETY: the call takes numbers alone.
            Errno::result(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
        });
        assert_eq!(ours.join().unwrap(), Err(Errno::EXDEV));
        // SAFETY: the call takes numbers alone.
        assert_eq!(
            Errno::result(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }),
            Ok(0)
        );
    }

    #[test]
    fn a_listener_is_there_to_be_asked() {
        let program = all_but(libc::SYS_getpriority, libc::SECCOMP_RET_USER_NOTIF);
        let listening = thread::spawn(move || install_with_listener(&program).unwrap());
        let listener = listening.join().unwrap();
        let is = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        assert_eq!(is.to_str(), Some("anon_inode:seccomp notify"));
    }
}
