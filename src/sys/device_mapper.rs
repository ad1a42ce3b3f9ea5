//! The one ioctl of `linux/dm-ioctl.h` that is needed: removing a device.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::block::IoctlError;

/// `struct dm_ioctl`, with no room for data after it.
#[repr(C)]
pub struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

mod request {
    nix::ioctl_readwrite!(dev_remove, 0xfd, 4, super::DmIoctl);
}

/// The oldest interface that the kernel still answers.
const VERSION: [u32; 3] = [4, 0, 0];
const DEFERRED_REMOVE: u32 = 1 << 17;

/// Removes the device of this name (`vg-root`, not `dm-0`): at once, or as soon as nobody has it open any
/// more. `control` is `/dev/mapper/control`.
pub fn remove(control: &File, name: &str) -> Result<(), IoctlError> {
    let failed = |errno| IoctlError {
        call: "DM_DEV_REMOVE",
        errno,
    };
    let mut request = DmIoctl {
        version: VERSION,
        data_size: size_of::<DmIoctl>() as u32,
        data_start: 0,
        target_count: 0,
        open_count: 0,
        flags: DEFERRED_REMOVE,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    // The last byte stays zero.
    let room = request.name.len() - 1;
    if name.len() > room {
        return Err(failed(Errno::ENAMETOOLONG));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: `control` is open for the length of the call, and the kernel reads and writes `data_size`
    // bytes, which are those of `request`.
    unsafe { request::dev_remove(control.as_raw_fd(), &mut request) }
        .map(drop)
        .map_err(failed)
}
