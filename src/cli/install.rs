//! `install` and `plan`: what goes where.

use std::path::PathBuf;

use clap::Args;

use super::{Image, Target};
use crate::bootc;

/// An installation.
#[derive(Args, Clone, Debug)]
pub struct Install {
    /// The image
    #[command(flatten)]
    pub image: Image,
    /// Where to
    #[command(flatten)]
    pub target: Target,
    /// Config drive: an ISO or FAT image, also compressed by gzip, also in base64, or Ironic's JSON; a directory with its
    /// files; `-` is standard input, and an http(s) URL is fetched
    #[arg(long, value_name = "PLACE")]
    pub config_drive: Option<PathBuf>,
    /// Remove config drives from other disks: readers take the first that they find
    #[arg(long)]
    pub clear_stale_config_drives: bool,
    /// Let go of everything that is on the disk; what that is, is said, and on a terminal you are asked
    #[arg(long)]
    pub wipe: bool,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Keep a half-installed disk as it is, to look at it; otherwise its partition table is cleared
    #[arg(long)]
    pub keep_on_failure: bool,
    /// What the image's programs can reach
    #[arg(long, value_name = "NETWORK", default_value = "none")]
    pub network: NetworkAccess,
    /// For the image's bootc
    #[command(flatten)]
    pub bootc: bootc::Options,
}

/// What the image's programs can reach while the image installs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkAccess {
    /// Nothing but the image itself.
    None,
    /// Whatever this machine can reach.
    Host,
}
