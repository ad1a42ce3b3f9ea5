//! From a blob's bytes to a verified directory (image-spec `layer.md`).
//!
//! ```text
//! blob ─► cache (a copy) ─► verify (blob digest) ─► decompress ─► diff_id ─► archive ─► untar
//! ```
//!
//! Each step is an adapter in its own file, and each may run in a thread of its own ([`ahead`]); bytes are
//! handed on, not copied ([`chunks`]). The invariant: an [`UnpackedLayer`] exists only if the blob had the
//! digest and size of its descriptor, the archive had its diff ID, and all of it is in the directory, in
//! overlayfs's form. A layer that fails leaves no directory behind. Nothing is ever made or followed outside
//! that directory, whatever the archive says.
//!
//! [`settle`] and [`merge`] come after: what layers have to know of each other, and how they become one
//! directory.

mod ahead;
mod archive;
mod attributes;
mod blocks;
mod cache;
mod chunks;
mod decompress;
mod diff_id;
mod directory;
mod entry;
mod error;
mod frames;
mod header;
mod malformed;
mod merge;
mod path;
mod pax;
mod settle;
mod sparse;
mod tree;
mod unpack;
mod untar;
mod verify;
mod whiteout;
mod windows;
mod xattr;

#[cfg(test)]
mod bombs;
#[cfg(test)]
mod differential;
#[cfg(any(test, fuzzing))]
pub(crate) mod notation;
#[cfg(test)]
mod tests;

pub use attributes::dress_upper;
pub use chunks::Chunks;
#[cfg(any(test, fuzzing))]
pub(crate) use chunks::ReadChunks;
#[cfg(any(test, fuzzing))]
pub(crate) use decompress::Decompressor;
#[cfg(any(test, fuzzing))]
pub(crate) use directory::remove_all;
pub use error::LayerError;
pub use frames::{MAX_HEADER_BYTES as MAX_FRAME_HEADER_BYTES, beyond_shared_bytes};
pub use merge::merge;
pub use settle::settle;
pub use unpack::{Options, UnpackedLayer, unpack};
pub use windows::Windows;
