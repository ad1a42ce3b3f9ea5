//! The disk that an image is installed to, until the installation begins: what is on it, who uses it, and
//! whose it is.

mod choose;
pub(super) mod claim;
pub(super) mod contents;
pub(super) mod device;
mod fingerprint;
pub(super) mod in_use;
mod stale;
mod trial;

pub use choose::choosable;
pub use claim::Claim;
pub use contents::{Contents, Expendable};
pub use device::Disk;
pub use in_use::Use;
pub use stale::Decided;
pub use trial::kernel_reads_gpt;
