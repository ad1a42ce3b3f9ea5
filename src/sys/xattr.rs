//! Extended attributes, by file descriptor or by a name in an open directory; xattr(7).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The kernel's limit for the value of one attribute, in bytes.
pub const MAX_VALUE_BYTES: usize = 65_536;

/// Sets attribute `name` of an open file or directory, whether it is there or not.
pub fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: both pointers come from borrowed slices that outlive the call, and the length is the slice's own.
    let done = unsafe {
        libc::fsetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// Sets attribute `name` of `file` in the directory `dir`; of a symbolic link itself, never of what it points to.
/// For what cannot be opened: links, devices, pipes. Needs /proc.
pub fn set_at(dir: impl AsFd, file: &[u8], name: &CStr, value: &[u8]) -> nix::Result<()> {
    let path = through_proc(dir, file)?;
    // SAFETY: all three pointers come from borrowed values that outlive the call, and the length is the slice's own.
    let done = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// The value of attribute `name` of an open file or directory; `None` where it has none or its file system knows none.
pub fn get(fd: impl AsFd, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_VALUE_BYTES];
    // SAFETY: the kernel writes at most `value.len()` bytes into `value`, which is that long; `name` ends with NUL.
    let length = unsafe {
        libc::fgetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    optional(length, value)
}

/// Whether attribute `name` of an open file or directory is `value`.
pub fn is(fd: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<bool> {
    let mut found = vec![0; value.len().max(1)];
    // SAFETY: the kernel writes at most `found.len()` bytes into `found`, which is that long; `name` ends with NUL.
    let length = unsafe {
        libc::fgetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            found.as_mut_ptr().cast(),
            found.len(),
        )
    };
    match optional(length, found) {
        // Longer than what is asked for.
        Err(Errno::ERANGE) => Ok(false),
        found => Ok(found?.as_deref() == Some(value)),
    }
}

/// As [`get`], of `file` in the directory `dir`; of a symbolic link itself. Needs /proc.
pub fn get_at(dir: impl AsFd, file: &[u8], name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let path = through_proc(dir, file)?;
    let mut value = vec![0; MAX_VALUE_BYTES];
    // SAFETY: the kernel writes at most `value.len()` bytes into `value`, which is that long; both names end with NUL.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    optional(length, value)
}

/// Removes attribute `name` of an open file or directory; that it has none is no error.
pub fn remove(fd: impl AsFd, name: &CStr) -> nix::Result<()> {
    // SAFETY: `name` ends with NUL and outlives the call.
    let done = unsafe { libc::fremovexattr(fd.as_fd().as_raw_fd(), name.as_ptr()) };
    absent_is_fine(done)
}

/// As [`remove`], of `file` in the directory `dir`; of a symbolic link itself. Needs /proc.
pub fn remove_at(dir: impl AsFd, file: &[u8], name: &CStr) -> nix::Result<()> {
    let path = through_proc(dir, file)?;
    // SAFETY: both names end with NUL and outlive the call.
    let done = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    absent_is_fine(done)
}

/// The names of all attributes of an open file or directory.
pub fn list(fd: impl AsFd) -> nix::Result<Vec<CString>> {
    let mut names = vec![0; MAX_VALUE_BYTES];
    // SAFETY: the kernel writes at most `names.len()` bytes into `names`, which is that long.
    let length = unsafe { libc::flistxattr(fd.as_fd().as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    split(length, names)
}

/// As [`list`], of `file` in the directory `dir`; of a symbolic link itself. Needs /proc.
pub fn list_at(dir: impl AsFd, file: &[u8]) -> nix::Result<Vec<CString>> {
    let path = through_proc(dir, file)?;
    let mut names = vec![0; MAX_VALUE_BYTES];
    // SAFETY: the kernel writes at most `names.len()` bytes into `names`, which is that long; `path` ends with NUL.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    split(length, names)
}

/// The last component is not followed by the `l` calls, and the one before it is an open directory.
fn through_proc(dir: impl AsFd, file: &[u8]) -> nix::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(file);
    CString::new(path).map_err(|_| Errno::EINVAL)
}

fn optional(length: isize, mut value: Vec<u8>) -> nix::Result<Option<Vec<u8>>> {
    match Errno::result(length) {
        Ok(length) => {
            value.truncate(length.unsigned_abs());
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn split(length: isize, names: Vec<u8>) -> nix::Result<Vec<CString>> {
    let length = match Errno::result(length) {
        Ok(length) => length.unsigned_abs(),
        Err(Errno::EOPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let names = names[..length]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    Ok(names.map(Into::into).collect())
}

fn absent_is_fine(done: i32) -> nix::Result<()> {
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}
