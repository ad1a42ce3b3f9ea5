//! A stranger's device as hadris reads it: anything that can be read and sought in.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use hadris_fs::Error;
use hadris_io::ErrorType;
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};

use super::FilesystemError;

const BLOCK: BlockSize = BlockSize::new(512).expect("not zero");

/// Blocks of 512 bytes, whatever the sectors below them have.
pub(super) struct Device<R>(pub(super) R);

impl<R> ErrorType for Device<R> {
    type Error = io::Error;
}

impl<R: Read + Seek> BlockDevice for Device<R> {
    fn block_size(&self) -> BlockSize {
        BLOCK
    }

    /// A file system that is cut off is one all the same; what is not there is an error when it is read.
    fn block_count(&self) -> u64 {
        u64::MAX / u64::from(BLOCK.get())
    }

    fn read_blocks(&mut self, first: BlockIndex, buffer: &mut [u8]) -> Result<(), Error<io::Error>> {
        let start = first.get().saturating_mul(BLOCK.get().into());
        let sought = self.0.seek(SeekFrom::Start(start));
        let read = sought.and_then(|_| self.0.read_exact(buffer));
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::new(
                hadris_fs::ErrorKind::Corrupt,
                "the device ends before the volume does",
            ),
            _ => Error::device(error, "reading the device"),
        })
    }
}

/// What hadris says of a file system of this `kind`: only what the device itself says is no fault of its
/// bytes.
pub(super) fn explain(kind: &'static str, error: Error<io::Error>) -> FilesystemError {
    let problem = error.to_string();
    match error.into_device_error() {
        Some(error) => FilesystemError::Io(error),
        None => FilesystemError::Unsound { kind, problem },
    }
}
