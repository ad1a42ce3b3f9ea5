//! File attributes as chattr(1) has them: the immutable flag, which efivarfs sets to protect variables from `rm -rf`.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::c_int;

mod request {
    use nix::libc::{c_int, c_long};
    use nix::{request_code_read, request_code_write};

    // The requests are numbered as if they took a long; what they take is an int.
    nix::ioctl_read_bad!(get_flags, request_code_read!(b'f', 1, size_of::<c_long>()), c_int);
    nix::ioctl_write_ptr_bad!(
        set_flags,
        request_code_write!(b'f', 2, size_of::<c_long>()),
        c_int
    );
}

const IMMUTABLE: c_int = 0x10;

/// Makes a file immutable, or no longer so. A file system without such flags has no immutable files.
pub fn set_immutable(file: &File, immutable: bool) -> nix::Result<()> {
    let mut flags: c_int = 0;
    // SAFETY: the descriptor is open, and FS_IOC_GETFLAGS writes one int.
    match unsafe { request::get_flags(file.as_raw_fd(), &mut flags) } {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) if !immutable => return Ok(()),
        other => other?,
    };
    let wanted = if immutable {
        flags | IMMUTABLE
    } else {
        flags & !IMMUTABLE
    };
    if wanted != flags {
        // SAFETY: the descriptor is open, and FS_IOC_SETFLAGS reads one int.
        unsafe { request::set_flags(file.as_raw_fd(), &wanted) }?;
    }
    Ok(())
}
