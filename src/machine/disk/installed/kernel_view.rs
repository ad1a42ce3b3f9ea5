//! What the kernel makes of a partition.

use std::fs::File;

use serde::Serialize;

use crate::machine::disk::table::geometry::{Extent, Geometry};
use crate::sys::block;

/// What the kernel made of a new partition. It is written through the whole disk, so nothing depends on this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelView {
    /// It was told of this one partition.
    Added,
    /// It read the whole table again.
    Reread,
    /// It will see the partition after a reboot; why not now.
    Unaware(String),
}

/// Tells the kernel of a new partition, so that its node appears (devtmpfs makes it before the call returns).
///
/// The one partition first: reading the whole table again is refused while any partition is held, and a
/// kernel that knows no GPT would forget all of them.
pub fn show_to_kernel(file: &File, number: u32, extent: &Extent, geometry: &Geometry) -> KernelView {
    let (start, length) = extent.bytes(geometry);
    let Err(add) = block::add_partition(file, number, start, length) else {
        return KernelView::Added;
    };
    match block::reread_partitions(file) {
        Ok(()) => KernelView::Reread,
        Err(reread) => KernelView::Unaware(format!("{add}; {reread}")),
    }
}
