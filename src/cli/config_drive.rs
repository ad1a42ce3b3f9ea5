//! `config-drive`: config drives without an installation.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::image::source::registry;

/// What is to be done with a config drive.
#[derive(Subcommand)]
pub enum ConfigDriveCommand {
    /// Write a config drive to an installed disk: into the partition labelled config-2, or into a new one at
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
        /// Disk or partition with a config drive, or a file in any form that
        /// `landfall install --config-drive` takes
        place: PathBuf,
        /// Print the contents of the files too, with possible secrets hidden
        #[arg(long)]
        contents: bool,
        /// Print secrets too: user data, vendor data, passwords
        #[arg(long, requires = "contents")]
        secrets: bool,
    },
    /// Make a config drive image (ISO 9660) from files
    Build {
        /// Directory with the files (`openstack/latest/meta_data.json` ...), or Ironic's JSON; `-` is
        /// standard input
        source: PathBuf,
        /// Image file to write; only its owner can read it
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Sector size of the disk; with 4096 the image is FAT, because ISO 9660 can't be read there
        #[arg(long = "sector-size", value_name = "BYTES", default_value = "512", value_parser = sector_sizes())]
        sector_bytes: u64,
    },
}

/// How a config drive is fetched from an address.
#[derive(Args)]
pub struct Fetch {
    /// Whether to verify the server's TLS certificate
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// Additional CA certificates (PEM) to trust
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
