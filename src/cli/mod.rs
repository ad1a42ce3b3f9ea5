//! What was typed. Nothing is decided here.

pub mod config_drive;
mod destination;
mod disks;
mod image;
mod install;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use config_drive::ConfigDriveCommand;
pub use destination::{Destination, DestinationForm};
pub use disks::{Device, Disks, Target};
pub use image::Image;
pub use install::{Install, NetworkAccess};
pub use verify::Verify;

use crate::console::progress::Style;

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  2  usage: the command line makes no sense
  3  refused, failed or interrupted; the disk was not changed
  4  failed or interrupted after the disk was changed
  5  the disk is installed and verified; what comes after that failed
  141  whoever read standard output went away
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
    /// List the disks: what is on them, which one would be chosen, and why not the others
    Disks(Disks),
    /// Check an installed disk: partition table, boot loader, boot entries, root file system, image. Writes nothing
    Verify(Verify),
    /// Config drives apart from an installation
    #[command(after_help = EXIT_STATUS, subcommand)]
    ConfigDrive(ConfigDriveCommand),
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
    /// Pull an image into an OCI image layout, e.g. on a USB stick; one that was stopped goes on where it was
    Pull {
        /// The image
        #[command(flatten)]
        image: Image,
        /// The layout: oci:DIR[:NAME] or oci-archive:FILE[:NAME] (default: the image's own name), where LABEL=STICK/PATH is a
        /// path on the file system with that label, which is mounted for that
        #[arg(long, value_name = "LAYOUT")]
        to: Destination,
    },
    /// Show what an image is, without pulling it
    Inspect {
        /// The image
        #[command(flatten)]
        image: Image,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// The process that runs the container.
    #[command(hide = true, name = crate::container::run::HELPER_COMMAND)]
    ContainerHelper {
        /// The bundle's directory
        bundle: PathBuf,
    },
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
        assert_eq!(install.target.device, Some(Device::Path("/dev/nvme0n1".into())));
        assert_eq!(
            (install.bootc.kargs, install.bootc.extra),
            (vec!["a=b".to_owned()], vec!["--new".to_owned()])
        );
        assert!(install.image.tls_verify == Some(false) && !install.wipe);
        assert_eq!(install.image.memory_budget, Some(2 << 30));
    }

    #[test]
    fn a_disk_is_named_or_described() {
        let target = |words: &[&str]| -> Result<Target, String> {
            let typed = Cli::try_parse_from([&["landfall", "install", "lab:5000/i"], words].concat());
            match typed.map_err(|error| error.to_string())?.command {
                Command::Install { install, .. } => Ok(install.target),
                _ => Err("not an installation".into()),
            }
        };
        assert_eq!(target(&["auto"]).unwrap().device, Some(Device::Auto));
        let hints = [
            "--device-hint",
            "size=>= 100",
            "--device-hint",
            "{\"serial\": \"A\"}",
        ];
        let described = target(&hints).unwrap();
        assert_eq!((described.device, described.device_hints.len()), (None, 2));
        let both = target(&["/dev/sda", "--device-hint", "serial=A"]).unwrap();
        assert_eq!(both.device, Some(Device::Path("/dev/sda".into())));
        assert!(target(&[]).unwrap_err().contains("<DEVICE>"));
        assert!(
            target(&["--device-hint", "colour=red"])
                .unwrap_err()
                .contains("there are size")
        );
    }
}
