//! The image: where it comes from, its layers, and the root that they become.
//!
//! ```text
//! reference ─► source ─► image ─► layers, pulled into a store ─► overlay ─► root
//! ```

pub mod estimate;
pub mod layer;
pub mod memory;
pub mod oci;
pub mod overlay;
pub mod pull;
pub mod root;
pub mod rootfs;
pub mod source;
pub mod store;
