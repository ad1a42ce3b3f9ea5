//! `config-drive`: config drives apart from an installation.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::image::source::registry;

/// What is to be done with a config drive.
#[derive(Subcommand)]
pub enum ConfigDriveCommand {
    /// Write a config drive to a disk that has a system on it: into the partition labelled config-2, or into a new one at
    /// the end
    Write {
        /// Config drive, in any form that `landfall install --config-drive` takes
        source: PathBuf,
        /// Disk, e.g. /dev/nvme0n1
        device: PathBuf,
        /// How it is fetched
        #[command(flatten)]
        fetch: Fetch,
        /// Remove config drives from other disks
        #[arg(long)]
        clear_stale_config_drives: bool,
    },
    /// List the files of a config drive
    Show {
        /// Disk or partition with a config drive, or a file in any form that `landfall install --config-drive` takes
        place: PathBuf,
        /// Print what is in the files as well; what may be secret is hidden
        #[arg(long)]
        contents: bool,
        /// Print secrets as well: user data, vendor data, passwords
        #[arg(long, requires = "contents")]
        secrets: bool,
    },
    /// Make a config drive's image (ISO 9660) of files
    Build {
        /// Directory with the files (`openstack/latest/meta_data.json` ...), or Ironic's JSON; `-` is standard input
        source: PathBuf,
        /// The image; only its owner can read it
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Make it for a disk with sectors of so many bytes: FAT, where ISO 9660 can't be read
        #[arg(long = "sector-size", value_name = "BYTES", default_value = "512", value_parser = sector_sizes())]
        sector_bytes: u64,
    },
}

/// How a config drive is fetched from an address.
#[derive(Args)]
pub struct Fetch {
    /// Whether a server must prove who it is
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// Certificates (PEM) of authorities to trust, besides the usual ones
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
}

impl From<Fetch> for registry::Options {
    fn from(Fetch { tls_verify, ca_cert }: Fetch) -> Self {
        Self {
            tls_verify,
            ca_cert,
            ..Self::default()
        }
    }
}

fn sector_sizes() -> impl TypedValueParser<Value = u64> {
    PossibleValuesParser::new(["512", "1024", "2048", "4096"]).try_map(|text| text.parse::<u64>())
}
