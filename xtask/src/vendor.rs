//! `cargo xtask vendor`: the sources of every dependency, for builds without a network.

use std::fs;

use anyhow::{Context, Result};
use lab::command;

/// Fills `vendor/crates` and writes `vendor/config.toml`, which tells cargo to use it.
pub fn run() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args(["vendor", "--locked", "--versioned-dirs", "vendor/crates"]);
    let config = command::output(&mut cargo).context("fetching the dependencies' sources")?;
    fs::write(lab::root().join("vendor/config.toml"), &config)?;
    println!(
        "vendor/crates holds the sources, and vendor/config.toml points cargo to them. Copy the whole tree, \
         and run there:"
    );
    println!("  cargo build --release --frozen --config vendor/config.toml");
    Ok(())
}
