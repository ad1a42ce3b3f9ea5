//! `config-drive`: config drives apart from an installation.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is to be done with a config drive.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigDriveCommand {
    /// Write a config drive to a disk that has a system on it: into the partition labelled config-2, or into a new one at
    /// the end
    Write(Write),
    /// List the files of a config drive
    Show(Show),
    /// Make a config drive's image (ISO 9660) of files
    Build(Build),
}

/// Writing a config drive to an installed disk.
#[derive(Args, Clone, Debug)]
pub struct Write {
    /// Config drive, in any form that `landfall install --config-drive` takes
    pub source: PathBuf,
    /// Disk, e.g. /dev/nvme0n1
    pub device: PathBuf,
    /// How it is fetched
    #[command(flatten)]
    pub fetch: Fetch,
    /// Remove config drives from other disks
    #[arg(long)]
    pub clear_stale_config_drives: bool,
}

/// How a config drive is fetched from an address.
#[derive(Args, Clone, Debug)]
pub struct Fetch {
    /// Whether a server must prove who it is
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
    /// Certificates (PEM) of authorities to trust, besides the usual ones
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
}

/// Looking into a config drive.
#[derive(Args, Clone, Debug)]
pub struct Show {
    /// Disk or partition with a config drive, or a file in any form that `landfall install --config-drive` takes
    pub place: PathBuf,
    /// Print what is in the files as well; what may be secret is hidden
    #[arg(long)]
    pub contents: bool,
    /// Print secrets as well: user data, vendor data, passwords
    #[arg(long, requires = "contents")]
    pub secrets: bool,
}

/// Making a config drive's image.
#[derive(Args, Clone, Debug)]
pub struct Build {
    /// Directory with the files (`openstack/latest/meta_data.json` ...), or Ironic's JSON; `-` is standard input
    pub source: PathBuf,
    /// The image; only its owner can read it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Make it for a disk with sectors of so many bytes: FAT, where ISO 9660 can't be read
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub sector_size: u64,
}
