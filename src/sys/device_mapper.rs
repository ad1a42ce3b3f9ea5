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
    start_and_counts: [u32; 3],
    flags: u32,
    event_and_padding: [u32; 2],
    dev: u64,
    name: [u8; 128],
    uuid_and_data: [u8; 136],
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
        start_and_counts: [0; 3],
        flags: DEFERRED_REMOVE,
        event_and_padding: [0; 2],
        dev: 0,
        name: [0; 128],
        uuid_and_data: [0; 136],
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
