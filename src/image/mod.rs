//! The image: where it comes from, its layers, and the root that they become.
//!
//! ```text
//! reference ─► source ─► image ─► layers, pulled into a store ─► overlay ─► root
//! ```

pub(crate) mod estimate;
pub(crate) mod layer;
pub(crate) mod memory;
pub mod oci;
pub(crate) mod overlay;
pub mod pull;
pub mod root;
pub(crate) mod rootfs;
pub mod source;
pub(crate) mod store;
