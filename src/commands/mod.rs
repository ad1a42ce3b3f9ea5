//! The commands other than `install`.

pub mod config_drives;
pub mod disks;
pub mod inspect;
pub mod pull;
pub mod run;
pub mod unpack;
