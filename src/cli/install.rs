//! `install` and `plan`: what goes where.

use std::path::PathBuf;

use super::image::parse_size;
use super::macros::{arguments, words};
use crate::bootc;
use crate::container::NetworkAccess;
use crate::image::root::Wanted;
use crate::machine::disk::find::Hints;
use crate::machine::disk::table::MIB;
use crate::machine::firmware::BootEntry;
use crate::request::Install;

arguments! {
    Install {
        /// The image
        #[command(flatten)]
        image: Wanted,
        /// Disk, e.g. /dev/nvme0n1; `auto` is the smallest of 4 GiB or more that is not removable
        #[arg(required_unless_present = "hints")]
        device: Option<PathBuf>,
        /// Root device hint as in Ironic, KEY=VALUE or a JSON object (may be repeated): the first disk in
        /// lsblk's order that satisfies all hints is chosen; a named disk must satisfy them too
        #[arg(long = "device-hint", value_name = "HINT")]
        hints: Vec<Hints>,
        /// Config drive: an ISO 9660 or FAT image (also gzip, base64), Ironic's JSON, or a directory with its
        /// files; a path, an http(s) URL, or `-` for standard input
        #[arg(long, value_name = "PLACE")]
        config_drive: Option<PathBuf>,
        /// Remove config drives from other disks: readers take the first one they find
        #[arg(long)]
        clear_stale_config_drives: bool,
        /// Destroy everything on the disk, after listing it and, at a terminal, asking for confirmation
        #[arg(long)]
        wipe: bool,
        /// Don't ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Size of the root partition, e.g. 20GiB (default: all available space)
        #[arg(long = "root-size", value_name = "SIZE", value_parser = whole_mebibytes)]
        root_size_mib: Option<u64>,
        /// Where the installed system comes in the firmware's boot order (default: where its boot loader puts
        /// itself, which is first)
        #[arg(long, value_name = "WHERE")]
        boot_entry: Option<BootEntry>,
        /// Keep a half-installed disk for inspection, instead of clearing its partition table
        #[arg(long)]
        keep_on_failure: bool,
        /// Refuse a kernel that lacks guards against hostile images; `plan` shows which
        #[arg(long)]
        require_isolation: bool,
        /// What the image's programs can reach
        #[arg(long, value_name = "NETWORK", default_value = "none")]
        network: NetworkAccess,
        /// For the image's bootc
        #[command(flatten)]
        bootc: bootc::Options,
    }
}

words!(BootEntry {
    Keep: "keep", "Last: the order is as it was before";
    First: "first", "First";
    Next: "next", "Last, but first at the next boot, once";
});

words!(NetworkAccess {
    None: "none", "Nothing but the image itself";
    Host: "host", "Whatever this machine can reach";
});

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
