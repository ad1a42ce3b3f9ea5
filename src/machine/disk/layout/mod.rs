//! The partition layout that bootc will make, computed before the disk is touched.

mod plan;
mod request;
mod sfdisk;

pub(super) use plan::{CONFIG_DRIVE_MIB, LINUX_TYPE, Planned, config_drive_extent};
pub use plan::{Layout, Role};
pub use request::{Arch, Backend, BlockSetup, BootcVersion, LayoutRequest};
