//! `install` and `plan`: what goes where.

use std::path::PathBuf;

use clap::Args;

use super::image::parse_size;
use super::{Image, Target};
use crate::bootc;
use crate::machine::disk::table::MIB;
use crate::machine::firmware::BootEntry;

/// An installation.
#[derive(Args, Clone, Debug)]
// The subcommand of the same name makes a group, too, and a name can be taken once.
#[group(skip)]
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
    /// Size of the root partition (default: all there is), e.g. 20GiB
    #[arg(long = "root-size", value_name = "SIZE", value_parser = whole_mebibytes)]
    pub root_size_mib: Option<u64>,
    /// Where the installed system comes in the firmware's boot order (default: where its boot loader puts itself, which is
    /// first)
    #[arg(long, value_name = "WHERE")]
    pub boot_entry: Option<BootEntry>,
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

/// Parses the size of a partition. Gives mebibytes.
fn whole_mebibytes(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes == 0 || !bytes.is_multiple_of(MIB) {
        return Err(format!(
            "{text:?} is not a number of whole mebibytes: write e.g. 20GiB or 8000MiB"
        ));
    }
    Ok(bytes / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_whole_mebibytes() {
        assert_eq!(whole_mebibytes("20GiB"), Ok(20 << 10));
        assert_eq!(whole_mebibytes("1048576"), Ok(1));
        for text in ["0", "1000000", "1k", "x"] {
            assert!(whole_mebibytes(text).is_err(), "{text}");
        }
    }
}
