//! Partition tables: GPT, and what DOS left of itself in the first sector.

pub(super) mod geometry;
pub(super) mod gpt;
pub(super) mod mbr;

pub use geometry::{Extent, Geometry, MIB};
pub use gpt::{Partition, Table};
