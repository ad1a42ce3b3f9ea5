//! What was typed. Nothing is decided here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bootc;
use crate::oci::{Platform, Reference};
use crate::progress::Style;

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  2  usage: the command line makes no sense
  3  refused, failed or interrupted; no disk was changed
  4  failed or interrupted after the disk was changed
  `landfall run` ends with the status of the command, or with 125 if it could not be run.";

/// Installs bootable containers (bootc images) onto disks, without podman and without a daemon.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUS, propagate_version = true)]
pub struct Cli {
    /// The command
    #[command(subcommand)]
    pub command: Command,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "STYLE", default_value = "auto")]
    pub progress: Style,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install an image onto a disk
    #[command(after_help = EXIT_STATUS)]
    Install {
        /// What and where
        #[command(flatten)]
        install: Install,
        /// Write what was done to this file, as JSON
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Check all that `install` would check, and write nothing
    #[command(after_help = EXIT_STATUS)]
    Plan {
        /// What and where
        #[command(flatten)]
        install: Install,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Run a command in an image, in the sandbox that `install` uses, with no disk and no network
    Run {
        /// The image
        #[command(flatten)]
        image: Image,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Unpack an image's verified, merged root file system into a directory
    Unpack {
        /// The image
        #[command(flatten)]
        image: Image,
        /// The directory; it must not exist, or be empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// The process that runs the container.
    #[command(hide = true, name = crate::container::run::HELPER_COMMAND)]
    ContainerHelper {
        /// The bundle's directory
        bundle: PathBuf,
    },
}

/// An image and how to get it.
#[derive(Args, Clone, Debug)]
pub struct Image {
    /// Image: REGISTRY/REPOSITORY[:TAG][@DIGEST]
    pub image: Reference,
    /// Platform to choose from an index (default: this machine's)
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Credentials, as in containers-auth.json(5)
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Whether the registry must prove who it is; `false` also allows plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
    /// Certificates (PEM) of authorities to trust, besides the usual ones
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Memory that may be used (default: what is available), e.g. 3GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_budget: Option<u64>,
}

/// An installation.
#[derive(Args, Clone, Debug)]
pub struct Install {
    /// The image
    #[command(flatten)]
    pub image: Image,
    /// Disk to install onto, e.g. /dev/nvme0n1
    pub device: PathBuf,
    /// Config drive: an ISO or FAT image, also compressed by gzip, also in base64; `-` is standard input, and an
    /// http(s) URL is fetched
    #[arg(long, value_name = "FILE")]
    pub config_drive: Option<PathBuf>,
    /// Let go of everything that is on the disk
    #[arg(long)]
    pub wipe: bool,
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

/// Parses a size such as `3GiB`, `512M` or `1000000`; the prefixes are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{text:?} has an unknown unit: write e.g. 3GiB or 512MiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a size: write e.g. 3GiB or 512MiB"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_installation_as_in_the_manual() {
        let typed = "landfall install registry.lab:5000/os/web:1.4 /dev/nvme0n1 --config-drive cd.iso --karg a=b \
                     --bootc-arg --new --tls-verify=false --memory-budget 2GiB";
        let Command::Install { install, .. } = Cli::try_parse_from(typed.split_whitespace()).unwrap().command
        else {
            panic!("not an installation");
        };
        assert_eq!(install.image.image.to_string(), "registry.lab:5000/os/web:1.4");
        assert_eq!(install.device, PathBuf::from("/dev/nvme0n1"));
        assert_eq!(
            (install.bootc.kargs, install.bootc.extra),
            (vec!["a=b".to_owned()], vec!["--new".to_owned()])
        );
        assert!(!install.image.tls_verify && !install.wipe);
        assert_eq!(install.image.memory_budget, Some(2 << 30));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("7", Some(7)),
            ("2k", Some(2048)),
            ("3GiB", Some(3 << 30)),
            ("1MB", Some(1 << 20)),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
        for text in ["", "x", "3 GiB", "1.5G", "3Q", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
