//! A disk with a system on it: what is there, whether it is what was planned, and room on it for a config
//! drive.

mod amend;
mod boot_loader;
#[cfg(test)]
mod differential;
mod error;
mod kernel_view;
mod room;
mod verified;
mod view;

pub use amend::Origin;
pub use boot_loader::find_boot_loader;
pub use error::Unverified;
pub use verified::{BootPath, TableReport, VerifiedDisk};
pub use view::InstalledDisk;
#[cfg(test)]
pub use view::check_root;
