//! Extended attributes, by file descriptor or by a name in an open directory; xattr(7).
//!
//! By name they are those of a symbolic link itself, never of what it points to. That is for what cannot be
//! opened (links, devices, pipes), and needs /proc.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use rustix::buffer::spare_capacity;
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lremovexattr,
    lsetxattr,
};
use rustix::io;

use crate::sys::errno::errno;

/// The kernel's limit for the value of one attribute, in bytes.
pub const MAX_VALUE_BYTES: usize = 65_536;

/// Sets attribute `name` of an open file or directory, whether it is there or not.
pub fn set(fd: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    fsetxattr(fd, name, value, XattrFlags::empty()).map_err(errno)
}

pub fn set_at(dir: impl AsFd, file: &[u8], name: &CStr, value: &[u8]) -> nix::Result<()> {
    lsetxattr(through_proc(dir, file), name, value, XattrFlags::empty()).map_err(errno)
}

/// The value of attribute `name` of an open file or directory; `None` where it has none or its file system
/// knows none.
pub fn get(fd: impl AsFd, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX_VALUE_BYTES);
    let found = optional(fgetxattr(fd, name, spare_capacity(&mut value)))?;
    Ok(found.map(|_| value))
}

pub fn get_at(dir: impl AsFd, file: &[u8], name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(MAX_VALUE_BYTES);
    let file = through_proc(dir, file);
    let found = optional(lgetxattr(file, name, spare_capacity(&mut value)))?;
    Ok(found.map(|_| value))
}

/// Whether attribute `name` of an open file or directory is `value`.
pub fn is(fd: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<bool> {
    let mut found = vec![0; value.len().max(1)];
    match optional(fgetxattr(fd, name, &mut found[..])) {
        // Longer than what is asked for.
        Err(Errno::ERANGE) => Ok(false),
        length => Ok(length?.is_some_and(|length| &found[..length] == value)),
    }
}

/// Removes attribute `name` of an open file or directory; that it has none is no error.
pub fn remove(fd: impl AsFd, name: &CStr) -> nix::Result<()> {
    optional(fremovexattr(fd, name)).map(drop)
}

pub fn remove_at(dir: impl AsFd, file: &[u8], name: &CStr) -> nix::Result<()> {
    optional(lremovexattr(through_proc(dir, file), name)).map(drop)
}

pub fn list(fd: impl AsFd) -> nix::Result<Vec<CString>> {
    let mut names = Vec::with_capacity(MAX_VALUE_BYTES);
    optional(flistxattr(fd, spare_capacity(&mut names)))?;
    Ok(split(&names))
}

pub fn list_at(dir: impl AsFd, file: &[u8]) -> nix::Result<Vec<CString>> {
    let mut names = Vec::with_capacity(MAX_VALUE_BYTES);
    optional(llistxattr(through_proc(dir, file), spare_capacity(&mut names)))?;
    Ok(split(&names))
}

/// The last component is not followed by the `l` calls, and the one before it is an open directory.
fn through_proc(dir: impl AsFd, file: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(file);
    path
}

fn optional<T>(done: io::Result<T>) -> nix::Result<Option<T>> {
    match done {
        Ok(found) => Ok(Some(found)),
        Err(io::Errno::NODATA | io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(errno(error)),
    }
}

fn split(names: &[u8]) -> Vec<CString> {
    let names = names.split_inclusive(|byte| *byte == 0);
    let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    names.map(Into::into).collect()
}
