//! Block devices: the ioctls of `linux/fs.h` and `linux/blkpg.h`, and ranges of a disk as files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

use nix::errno::Errno;
use nix::libc::{c_int, c_longlong, c_uint, c_void};

mod request {
    use super::BlkpgArg;
    use nix::libc::{c_int, c_uint};
    use nix::request_code_none;

    nix::ioctl_read_bad!(read_only, request_code_none!(0x12, 94), c_int);
    nix::ioctl_none!(reread, 0x12, 95);
    nix::ioctl_none!(flush, 0x12, 97);
    nix::ioctl_read_bad!(sector_bytes, request_code_none!(0x12, 104), c_int);
    nix::ioctl_write_ptr_bad!(blkpg, request_code_none!(0x12, 105), BlkpgArg);
    nix::ioctl_read!(size_bytes, 0x12, 114, u64);
    nix::ioctl_read_bad!(minimum_io, request_code_none!(0x12, 120), c_uint);
    nix::ioctl_read_bad!(optimal_io, request_code_none!(0x12, 121), c_uint);
    nix::ioctl_read_bad!(alignment_offset, request_code_none!(0x12, 122), c_int);
    nix::ioctl_read_bad!(physical_sector_bytes, request_code_none!(0x12, 123), c_uint);
    nix::ioctl_read!(disk_sequence, 0x12, 128, u64);
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
pub struct BlkpgArg {
    op: c_int,
    flags: c_int,
    datalen: c_int,
    data: *mut c_void,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: c_longlong,
    length: c_longlong,
    pno: c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

const BLKPG_ADD_PARTITION: c_int = 1;

/// The name of an ioctl and what the kernel said to it, as `strace` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ioctl({call}): {errno}")]
pub struct IoctlError {
    pub call: &'static str,
    pub errno: Errno,
}

fn checked(call: &'static str, result: nix::Result<c_int>) -> Result<(), IoctlError> {
    result.map(drop).map_err(|errno| IoctlError { call, errno })
}

/// How the kernel sees the bytes of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The logical sector size in bytes: what an LBA counts.
    pub sector_bytes: u32,
    pub physical_sector_bytes: u32,
    /// The smallest request that costs nothing extra, in bytes.
    pub minimum_io_bytes: u32,
    /// The request size that the device likes best, in bytes; 0 when it does not say.
    pub optimal_io_bytes: u32,
    /// How far the first aligned byte is from the device's first, in bytes.
    pub alignment_offset_bytes: u32,
}

pub fn limits(file: &File) -> Result<Limits, IoctlError> {
    let fd = file.as_raw_fd();
    let (mut size_bytes, mut sector, mut alignment): (u64, c_int, c_int) = (0, 0, 0);
    let (mut physical, mut minimum, mut optimal): (c_uint, c_uint, c_uint) = (0, 0, 0);
    // SAFETY: `fd` is open for the length of the calls, and each request writes one integer of the type that
    // its pointer has (BLKGETSIZE64 a u64; the others an int or an unsigned int).
    unsafe {
        checked("BLKGETSIZE64", request::size_bytes(fd, &mut size_bytes))?;
        checked("BLKSSZGET", request::sector_bytes(fd, &mut sector))?;
        checked("BLKPBSZGET", request::physical_sector_bytes(fd, &mut physical))?;
        checked("BLKIOMIN", request::minimum_io(fd, &mut minimum))?;
        checked("BLKIOOPT", request::optimal_io(fd, &mut optimal))?;
        checked("BLKALIGNOFF", request::alignment_offset(fd, &mut alignment))?;
    }
    Ok(Limits {
        size_bytes,
        sector_bytes: u32::try_from(sector).unwrap_or(512),
        physical_sector_bytes: physical,
        minimum_io_bytes: minimum,
        optimal_io_bytes: optimal,
        // The kernel says -1 when the alignment cannot be known.
        alignment_offset_bytes: u32::try_from(alignment).unwrap_or(0),
    })
}

pub fn is_read_only(file: &File) -> Result<bool, IoctlError> {
    let mut read_only: c_int = 0;
    // SAFETY: the descriptor is open, and BLKROGET writes one int.
    checked("BLKROGET", unsafe {
        request::read_only(file.as_raw_fd(), &mut read_only)
    })?;
    Ok(read_only != 0)
}

/// The number that the kernel gave this disk when it appeared: never given twice before the next boot.
/// `None` before Linux 5.15.
pub fn disk_sequence(file: &File) -> Option<u64> {
    let mut sequence = 0;
    // SAFETY: the descriptor is open, and BLKGETDISKSEQ writes one u64.
    unsafe { request::disk_sequence(file.as_raw_fd(), &mut sequence) }
        .ok()
        .map(|_| sequence)
}

/// Writes back what the kernel holds of this block device and forgets it, so that the next read asks the
/// device.
pub fn flush_buffers(file: &File) -> Result<(), IoctlError> {
    // SAFETY: the descriptor is open; BLKFLSBUF takes no argument.
    checked("BLKFLSBUF", unsafe { request::flush(file.as_raw_fd()) })
}

pub fn reread_partitions(file: &File) -> Result<(), IoctlError> {
    // SAFETY: the descriptor is open; BLKRRPART takes no argument.
    checked("BLKRRPART", unsafe { request::reread(file.as_raw_fd()) })
}

/// Tells the kernel of one partition, `start_bytes` from the disk's begin and `length_bytes` long.
pub fn add_partition(
    file: &File,
    number: u32,
    start_bytes: u64,
    length_bytes: u64,
) -> Result<(), IoctlError> {
    const CALL: &str = "BLKPG_ADD_PARTITION";
    let out_of_range = |_| IoctlError {
        call: CALL,
        errno: Errno::EINVAL,
    };
    let mut partition = BlkpgPartition {
        start: start_bytes.try_into().map_err(out_of_range)?,
        length: length_bytes.try_into().map_err(out_of_range)?,
        pno: number.try_into().map_err(out_of_range)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgArg {
        op: BLKPG_ADD_PARTITION,
        flags: 0,
        datalen: size_of::<BlkpgPartition>() as c_int,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: `argument` is a `blkpg_ioctl_arg` whose `data` points to a live `blkpg_partition` of `datalen`
    // bytes; the kernel only reads both.
    checked(CALL, unsafe { request::blkpg(file.as_raw_fd(), &argument) })
}

// Two 64-bit numbers, an int, two names of 64 bytes, and padding to the next multiple of 8.
const _: () = assert!(size_of::<BlkpgPartition>() == 152);

/// Something written to that can be told to bring it to stable storage.
pub trait Durable {
    fn make_durable(&mut self) -> io::Result<()>;
}

impl Durable for File {
    fn make_durable(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Durable for io::Cursor<Vec<u8>> {
    fn make_durable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A range of a disk's bytes: reads and writes stay inside it.
///
/// It goes through the whole disk's descriptor, so it needs no partition node and no kernel that knows the
/// table.
#[derive(Debug)]
pub struct Region<'disk> {
    disk: &'disk File,
    start_bytes: u64,
    length_bytes: u64,
    position: u64,
}

impl<'disk> Region<'disk> {
    /// The `length_bytes` bytes of `disk` from `start_bytes` on.
    pub fn new(disk: &'disk File, start_bytes: u64, length_bytes: u64) -> Self {
        Self {
            disk,
            start_bytes,
            length_bytes,
            position: 0,
        }
    }

    /// The size in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Makes the next reads come from the device itself and not from memory. What was written must be
    /// durable.
    pub fn forget_cache(&self) -> io::Result<()> {
        if self.disk.metadata()?.file_type().is_block_device() {
            flush_buffers(self.disk).map_err(|error| io::Error::from_raw_os_error(error.errno as i32))
        } else {
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            nix::fcntl::posix_fadvise(self.disk, 0, 0, advice).map_err(io::Error::from)
        }
    }

    /// How many of the `wanted` bytes there are, and where on the disk.
    fn next(&self, wanted: usize) -> (usize, u64) {
        let left = self.length_bytes.saturating_sub(self.position);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        (room, self.start_bytes + self.position)
    }
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (room, at) = self.next(buffer.len());
        let read = self.disk.read_at(&mut buffer[..room], at)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Region<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (room, at) = self.next(bytes.len());
        let written = self.disk.write_at(&bytes[..room], at)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Region<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length_bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Durable for Region<'_> {
    fn make_durable(&mut self) -> io::Result<()> {
        self.disk.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_ends_where_it_ends() {
        let mut disk = tempfile::tempfile().unwrap();
        disk.write_all(b"0123456789").unwrap();
        let mut region = Region::new(&disk, 3, 4);
        assert_eq!(region.write(b"abcdef").unwrap(), 4);
        assert_eq!(region.write(b"g").unwrap(), 0);
        region.seek(SeekFrom::End(-2)).unwrap();
        let mut rest = String::new();
        region.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "cd");
        assert!(region.seek(SeekFrom::Current(-5)).is_err());
        let mut whole = String::new();
        disk.seek(SeekFrom::Start(0)).unwrap();
        disk.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "012abcd789");
    }

    #[test]
    fn a_file_is_no_block_device() {
        let file = tempfile::tempfile().unwrap();
        let error = limits(&file).unwrap_err();
        assert_eq!((error.call, error.errno), ("BLKGETSIZE64", Errno::ENOTTY));
    }
}
