//! `cargo xtask test`: everything, from set-up to virtual machines.

use anyhow::{Result, bail};

use crate::{command, fixture, setup};

/// Runs every test of the workspace; the last lines are cargo's own.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::ensure()?;
    fixture::layout()?; // once, before tests ask for it side by side
    let mut cargo = command::cargo();
    cargo.args(["test", "--release", "--workspace"]).args(arguments);
    command::show(&mut cargo)
}

/// For a test that this machine can't run: says so where a person sees it, and fails where nobody looks (`CI=true`).
pub fn cannot_run(test: &str, reason: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("{test} can't run here: {reason}");
    }
    eprintln!("\n*** NOT RUN: {test}: {reason}\n");
    Ok(())
}
