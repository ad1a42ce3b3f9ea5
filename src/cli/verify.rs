//! `verify`: an installed disk.

use std::path::PathBuf;

use clap::Args;

/// An installed disk to look at.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// Disk, e.g. /dev/nvme0n1
    pub device: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}
