//! The partition layout that bootc will make, computed before the disk is touched.

mod plan;
mod request;
mod sfdisk;

pub use plan::{CONFIG_DRIVE_MIB, Layout, LayoutError, Planned, Role};
pub(super) use plan::{LINUX_TYPE, config_drive_extent};
pub use request::{Arch, Backend, BlockSetup, BootcVersion, LayoutRequest};
