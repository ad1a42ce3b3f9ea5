//! Loop devices: a file as a disk (`linux/loop.h`).

use std::ffi::{c_int, c_ulong};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

const LOOP_CTL_GET_FREE: c_ulong = 0x4c82;
const LOOP_CONFIGURE: c_ulong = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;
/// How often somebody else may take the device that was free.
const ATTEMPTS: u32 = 10;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    places_and_size: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 160],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A disk that can't be written and has the bytes of a file. It is gone when this is dropped.
pub struct LoopDevice {
    pub file: File,
    /// The kernel's name for it, e.g. `loop0`.
    pub name: String,
}

impl LoopDevice {
    /// Makes a disk of `file`, in which the kernel looks for partitions.
    pub fn of(file: &File) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        for _ in 0..ATTEMPTS {
            // SAFETY: the descriptor is open, and this request takes no argument.
            let number =
                Errno::result(unsafe { nix::libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
            let name = format!("loop{number}");
            let device = File::open(format!("/dev/{name}"))?;
            match configure(&device, file) {
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(errno.into()),
                Ok(()) => return Ok(Self { file: device, name }),
            }
        }
        Err(Errno::EBUSY.into())
    }
}

fn configure(device: &File, file: &File) -> nix::Result<()> {
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: 512,
        info: LoopInfo {
            places_and_size: [0; 5],
            number_and_encryption: [0; 3],
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN,
            names_and_key: [0; 160],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open, and the request reads one `struct loop_config`.
    let result: c_int = unsafe {
        nix::libc::ioctl(
            device.as_raw_fd(),
            LOOP_CONFIGURE as _,
            std::ptr::from_ref(&config),
        )
    };
    Errno::result(result).map(drop)
}
