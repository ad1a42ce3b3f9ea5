//! Why a layer is not unpacked, told apart by whose fault it is: that decides what is done about it.

use std::fmt::{Debug, Display};
use std::io;

use anyhow::Error;
use nix::errno::Errno;

use super::malformed::Malformed;
use super::path::BadPath;
use crate::image::oci::Digest;
use crate::image::oci::blob::BlobError;

pub type Result<T, E = LayerError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The source of the blob failed, and not the blob: the source's error is reported.
    #[error("{0:#}")]
    Source(Error),
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The archive is longer than there is room for, in bytes.
    #[error("the uncompressed layer is larger than {0} bytes, more than there is room for")]
    TooLarge(u64),
    /// The archive is another than the one that the config names.
    #[error("the layer's diff ID is {found}, the image config says {expected}: the image is malformed")]
    DiffId { expected: Digest, found: Digest },
    /// The kernel refused a call: the store is full, or not fit for layers.
    #[error("{1:#}")]
    Refused(Errno, Error),
    /// What is in the blob is no layer.
    #[error("{0:#}")]
    Malformed(Error),
    /// Nobody wants it any longer.
    #[error("it was stopped")]
    Stopped,
}

pub fn malformed(why: impl Display + Debug + Send + Sync + 'static) -> LayerError {
    LayerError::Malformed(Error::msg(why))
}

/// Returns that the image is malformed, unless something holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::image::layer::error::malformed(format!($($why)+)));
        }
    };
}
pub(super) use ensure;

impl From<Errno> for LayerError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno, errno.into())
    }
}

impl From<Malformed> for LayerError {
    fn from(error: Malformed) -> Self {
        malformed(error)
    }
}

impl From<BadPath> for LayerError {
    fn from(error: BadPath) -> Self {
        malformed(error)
    }
}

/// That of a stage before, which a decoder passes on; the kernel's; or else the decoder's own.
impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        error
            .downcast()
            .unwrap_or_else(|error| match error.raw_os_error() {
                Some(errno) => Errno::from_raw(errno).into(),
                None => malformed(error),
            })
    }
}

/// For decoders, which are readers of readers.
impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        Self::other(error)
    }
}

/// Adds what was being done when the kernel refused or something was malformed; all other errors need no
/// context.
pub trait Context<T>: Sized {
    fn with_context<C: Display + Send + Sync + 'static>(self, doing: impl FnOnce() -> C) -> Result<T>;

    fn context(self, doing: &'static str) -> Result<T> {
        self.with_context(|| doing)
    }
}

impl<T, E: Into<LayerError>> Context<T> for Result<T, E> {
    fn with_context<C: Display + Send + Sync + 'static>(self, doing: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| match error.into() {
            LayerError::Refused(errno, error) => LayerError::Refused(errno, error.context(doing())),
            LayerError::Malformed(error) => LayerError::Malformed(error.context(doing())),
            other => other,
        })
    }
}
