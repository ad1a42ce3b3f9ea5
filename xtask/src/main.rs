//! Landfall's chores, run as `cargo xtask <chore>`, built on the laboratory: the crate `lab`.
//!
//! | module | chore |
//! |---|---|
//! | [`setup`] | the distribution's packages that everything here stands on |
//! | [`demo`] | install a machine and boot it, every step shown |
//! | [`by_hand`] | the same for any image |
//! | [`suite`] | every test |
//! | [`bench`] | what pulling costs |
//! | [`vendor`] | the dependencies' sources |

mod bench;
mod by_hand;
mod demo;
mod setup;
mod suite;
mod vendor;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use lab::vm::{Disk, Machine};
use lab::{command, fixture};

use bench::Bench;
use by_hand::Virtual;

/// Landfall's chores
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install a machine from a registry and boot it, every step shown
    Demo,
    /// Run every test; further arguments go to cargo test
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install any image in a virtual machine, then boot its disk
    Vm(Virtual),
    /// Boot a disk image under UEFI, as the installed machine would
    Boot(Boot),
    /// Make the bootable fixture image and print where its layout is
    Fixture,
    /// Install the distribution's packages that everything else needs (without root: list them)
    Setup,
    /// Measure the cost of pulling, with Landfall and other tools
    #[command(subcommand)]
    Bench(Bench),
    /// Write man pages and shell completions
    Man {
        /// Where to
        #[arg(default_value = "target/man")]
        directory: PathBuf,
    },
    /// Fetch the sources of every dependency, for builds without a network
    Vendor,
}

#[derive(Args)]
struct Boot {
    /// The disk image
    disk: PathBuf,
    /// The machine's memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// The disk's logical sector size
    #[arg(long, default_value_t = 512)]
    sector_size: u32,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Demo => demo::run(),
        Chore::Test { arguments } => suite::run(&arguments),
        Chore::Vm(wanted) => by_hand::run(&wanted),
        Chore::Boot(wanted) => boot(&wanted),
        Chore::Fixture => {
            setup::ensure()?;
            println!("{}", fixture::layout()?.path().display());
            Ok(())
        }
        Chore::Setup => {
            println!("{}", setup::describe());
            setup::ensure()
        }
        Chore::Bench(bench) => bench::run(&bench),
        Chore::Man { directory } => {
            let mut cargo = command::cargo();
            cargo.args(["run", "--quiet", "--release", "--example", "man", "--"]);
            command::show(cargo.arg(directory))
        }
        Chore::Vendor => vendor::run(),
    }
}

fn boot(wanted: &Boot) -> Result<()> {
    setup::ensure()?;
    let disk = Disk::open(&wanted.disk).sector_size(wanted.sector_size);
    Machine::new(&disk)
        .memory_mib(wanted.memory)
        .echo("")
        .run()
        .map(drop)
}
