//! System calls of others that wait for our answer: seccomp's user notification (seccomp_unotify(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{c_long, c_void};
use nix::unistd::Pid;

/// `AUDIT_ARCH_*`: calls are numbered as this program numbers them.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Hears the calls that a filter hands over.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    /// What the kernel writes for each call, which may be more than we know of.
    call_bytes: usize,
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub id: u64,
    /// The thread that made it.
    pub thread: Pid,
    pub number: c_long,
    pub arguments: [u64; 6],
}

impl Listener {
    pub fn new(descriptor: OwnedFd) -> nix::Result<Self> {
        // SAFETY: plain numbers, for which all zeros is a valid value.
        let mut sizes: libc::seccomp_notif_sizes = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `seccomp_notif_sizes`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        Errno::result(result)?;
        let call_bytes = usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>());
        Ok(Self {
            descriptor,
            call_bytes,
        })
    }

    /// Waits for the next call. ENOENT: its caller was killed meanwhile.
    pub fn receive(&self) -> nix::Result<Call> {
        let mut buffer = vec![0u64; self.call_bytes.div_ceil(size_of::<u64>())];
        // SAFETY: the buffer is zeroed and at least as large as what the kernel writes into it.
        unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, buffer.as_mut_ptr().cast()) }?;
        // SAFETY: the buffer begins with a `seccomp_notif`, is large enough for it, and aligned as it is.
        let received = unsafe { buffer.as_ptr().cast::<libc::seccomp_notif>().read() };
        let ours = received.data.arch == ARCHITECTURE;
        Ok(Call {
            id: received.id,
            thread: Pid::from_raw(received.pid.cast_signed()),
            number: if ours { received.data.nr.into() } else { -1 },
            arguments: received.data.args,
        })
    }

    /// Whether the caller still waits. If so, its process number has not been given to another one.
    pub fn still_waits(&self, call: &Call) -> bool {
        let mut id = call.id;
        // SAFETY: the kernel reads one number.
        let result = unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut id).cast()) };
        result.is_ok()
    }

    pub fn answer(&self, call: &Call, result: Result<i64, Errno>) -> nix::Result<()> {
        self.respond(libc::seccomp_notif_resp {
            id: call.id,
            val: result.unwrap_or(0),
            error: result.err().map_or(0, |errno| -(errno as i32)),
            flags: 0,
        })
    }

    /// Lets the kernel do the call. What its pointers lead to may be something else by then.
    pub fn let_pass(&self, call: &Call) -> nix::Result<()> {
        self.respond(libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        })
    }

    fn respond(&self, mut response: libc::seccomp_notif_resp) -> nix::Result<()> {
        // SAFETY: the kernel reads one `seccomp_notif_resp`.
        unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut response).cast()) }
    }

    /// Answers with a descriptor for this file, in the caller's table. Since Linux 5.14.
    pub fn answer_with(&self, call: &Call, file: BorrowedFd<'_>, close_on_exec: bool) -> nix::Result<()> {
        let mut request = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: the kernel reads one `seccomp_notif_addfd`, and `file` is open for the length of the call.
        unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD, (&raw mut request).cast()) }
    }

    /// # Safety
    ///
    /// `argument` points to what this request reads and writes.
    unsafe fn control(&self, request: libc::Ioctl, argument: *mut c_void) -> nix::Result<()> {
        // SAFETY: the descriptor is open; the rest is promised by the caller.
        let result = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), request as _, argument) };
        Errno::result(result).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A descriptor that has come with a message (unix(7), `SCM_RIGHTS`).
pub fn received(descriptor: std::os::fd::RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: whoever receives a message owns what came with it, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
