//! What was typed becomes what is asked for, checked as far as that needs no look at the machine.
//!
//! The one room that names clap: here is the only definition of each option, and the types of other rooms are
//! read by it.

mod bootc;
mod config;
mod config_drive;
mod image;
mod install;
mod macros;
mod options;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{self, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use config::USUAL as USUAL_CONFIGURATION;
pub use config_drive::ConfigDriveCommand;
pub use options::Takes;

use crate::console::progress::Style;
use crate::image::root::Wanted;
use crate::machine::disk::find::Hints;
use crate::request::{Destination, Install};
use macros::words;

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  2  invalid command line
  3  refused, failed or interrupted; the disk was not changed
  4  failed or interrupted after the disk was changed
  5  the disk is installed and verified, but a later step failed
  141  standard output was closed by its reader
  `landfall run` exits with the status of the command, or 125 if it could not be run.";

/// Install bootable containers (bootc images) onto disks, without podman or a daemon.
#[derive(Parser)]
#[command(version, after_help = EXIT_STATUS, propagate_version = true)]
pub struct Cli {
    /// The command
    #[command(subcommand)]
    pub command: Command,
    /// How to show progress on standard error
    #[arg(long, global = true, value_name = "STYLE", default_value = "auto")]
    pub progress: Style,
    /// The file with defaults for options (default: /etc/landfall/config.toml, where there is one)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The commands.
#[derive(Subcommand)]
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
    /// Check everything that `install` checks, and write nothing
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
    Disks {
        /// Root device hint as in Ironic, KEY=VALUE or a JSON object (may be repeated; default: what `auto`
        /// would choose)
        #[arg(long = "device-hint", value_name = "HINT")]
        hints: Vec<Hints>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Check an installed disk without writing to it: partition table, boot loader, boot entries, root file
    /// system, image
    Verify {
        /// Disk, e.g. /dev/nvme0n1
        device: PathBuf,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write, show or build config drives
    #[command(after_help = EXIT_STATUS, subcommand)]
    ConfigDrive(ConfigDriveCommand),
    /// Run a command in an image, where it reaches no disk, no network and nothing of this machine
    Run {
        /// The image
        #[command(flatten)]
        image: Wanted,
        /// Refuse a kernel that lacks guards against hostile images; `plan` shows which
        #[arg(long)]
        require_isolation: bool,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Unpack an image's verified, merged root file system into a directory
    Unpack {
        /// The image
        #[command(flatten)]
        image: Wanted,
        /// Directory to create, or an empty one
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Pull an image into an OCI image layout, e.g. on a USB stick; a stopped pull continues where it was
    Pull {
        /// The image
        #[command(flatten)]
        image: Wanted,
        /// Layout: oci:DIR[:NAME] or oci-archive:FILE[:NAME] (default: the image's own name);
        /// LABEL=STICK/PATH is a path on the file system with that label, which is mounted for the pull
        #[arg(long, value_name = "LAYOUT")]
        to: Destination,
    },
    /// Show what an image is, without pulling it
    Inspect {
        /// The image
        #[command(flatten)]
        image: Wanted,
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

words!(Style {
    Auto: "auto", "Bars where the terminal is fit for them, else plain lines";
    Bars: "bars", "One bar that moves; without a terminal, plain lines";
    Plain: "plain", "A line for each phase and every few percent, and when nothing else was said for ten seconds, one that \
                     says what is waited for: for serial consoles, pipes and logs";
    None: "none", "Nothing but questions, warnings and errors";
});

/// Reads a command line, the first argument of which is the program's name, and the configuration file.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> error::Result<Cli> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut cli = Cli::try_parse_from(&arguments)?;
    // Our own helper is told all that it needs.
    if matches!(cli.command, Command::ContainerHelper { .. }) {
        return Ok(cli);
    }
    let refused = |kind, problem: &str| command().error(kind, problem);
    let configured = config::load(command(), cli.config.as_deref());
    if let Some((command, file)) = configured.map_err(|problem| refused(ErrorKind::InvalidValue, &problem))? {
        // What was typed is in order, so the file isn't.
        let of_file = |error: error::Error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let problem = line.trim_start_matches("error: ");
            refused(error.kind(), &format!("{file}: {problem}"))
        };
        cli = Cli::from_arg_matches(&command.try_get_matches_from(arguments).map_err(of_file)?)?;
    }
    let checked = cli.command.check();
    checked.map_err(|problem| refused(ErrorKind::ArgumentConflict, problem))?;
    Ok(cli)
}

/// The definition of all commands and options.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What the options of `install` take, by their names.
pub fn install_options() -> BTreeMap<String, Takes> {
    let mut all = command();
    // Options of all commands become options of each.
    all.build();
    all.find_subcommand("install")
        .map(options::options)
        .unwrap_or_default()
}

impl Command {
    /// Refuses what makes no sense together.
    fn check(&self) -> Result<(), &'static str> {
        let (Self::Install { install, .. } | Self::Plan { install, .. }) = self else {
            return Ok(());
        };
        let is_standard_input = |place: &Option<PathBuf>| place.as_deref() == Some(Path::new("-"));
        if is_standard_input(&install.config_drive) && is_standard_input(&install.image.source.pull_secret) {
            return Err(
                "config drive and pull secret cannot both come from standard input: give one of them as a \
                 file",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// The installation that `words` ask for, or the error's first line.
    fn installation(words: &[&str]) -> Result<Install, String> {
        let words = [&["landfall", "install"], words].concat();
        match read(words.into_iter().map(OsString::from)) {
            Ok(cli) => match cli.command {
                Command::Install { install, .. } => Ok(install),
                _ => panic!("not an installation"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn an_installation_as_in_the_manual() {
        let typed = "registry.lab:5000/os/web:1.4 /dev/nvme0n1 --config-drive cd.iso --karg a=b --bootc-arg --new \
                     --tls-verify=false --memory-budget 2GiB";
        let install = installation(&typed.split_whitespace().collect::<Vec<_>>())
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(install.image.name.to_string(), "registry.lab:5000/os/web:1.4");
        assert_eq!(install.disk(), Some(Path::new("/dev/nvme0n1")));
        assert_eq!(
            (install.bootc.kargs, install.bootc.extra),
            (vec!["a=b".to_owned()], vec!["--new".to_owned()])
        );
        let source = &install.image.source;
        assert!(!source.tls_verify && !source.heed_insecure && !install.wipe);
        assert_eq!(install.image.memory_budget_bytes, Some(2 << 30));
    }

    #[test]
    fn a_disk_is_named_or_described() {
        let [large, mine] = ["size=>= 100", "serial=A"].map(|hint| hint.parse::<Hints>().unwrap());
        for (words, name, hints) in [
            (&["auto"][..], None, vec![]),
            (
                &["/dev/sda", "--device-hint", "serial=A"],
                Some("/dev/sda"),
                vec![mine.clone()],
            ),
            (
                &[
                    "--device-hint",
                    "size=>= 100",
                    "--device-hint",
                    "{\"serial\": \"A\"}",
                ],
                None,
                vec![large, mine],
            ),
        ] {
            let install =
                installation(&[&["lab:5000/i"], words].concat()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                (install.disk(), &install.hints),
                (name.map(Path::new), &hints.into()),
                "{words:?}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, expected) in [
            (&[][..], "<DEVICE>"),
            (&["--device-hint", "colour=red"], "known keys are size"),
            (
                &["auto", "--config-drive", "-", "--pull-secret", "-"],
                "cannot both come from standard input",
            ),
        ] {
            let error = installation(&[&["lab:5000/i"], words].concat()).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
    }
}
