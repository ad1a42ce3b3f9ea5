//! Disks: which one, and what there is.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use crate::machine::disk::find::Hints;

/// Which disk.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Disk, e.g. /dev/nvme0n1; `auto` is the smallest of 4 GiB or more that is not removable
    #[arg(required_unless_present = "device_hints")]
    pub device: Option<Device>,
    /// Root device hint as in Ironic, KEY=VALUE or a JSON object (may be repeated): the first disk, in the order of lsblk,
    /// that satisfies all of them is taken; a disk that is named must satisfy them
    #[arg(long = "device-hint", value_name = "HINT")]
    pub device_hints: Vec<Hints>,
}

/// How the disk was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The obvious one.
    Auto,
    /// This one.
    Path(PathBuf),
}

impl FromStr for Device {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            path => Self::Path(path.into()),
        })
    }
}

impl Target {
    /// The disk's name, if it was given one.
    pub fn path(&self) -> Option<&Path> {
        match &self.device {
            Some(Device::Path(path)) => Some(path),
            Some(Device::Auto) | None => None,
        }
    }

    /// The hints as one.
    pub fn hints(&self) -> Hints {
        let mut all = Hints::default();
        self.device_hints
            .iter()
            .cloned()
            .for_each(|hints| all.push(hints));
        all
    }
}

/// A look at the disks.
#[derive(Args, Clone, Debug)]
pub struct Disks {
    /// Root device hint as in Ironic, KEY=VALUE or a JSON object (may be repeated); without any, what `auto` would take
    #[arg(long = "device-hint", value_name = "HINT")]
    pub device_hints: Vec<Hints>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}
