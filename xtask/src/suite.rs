//! `cargo xtask test`: everything, from set-up to virtual machines.

use anyhow::Result;
use lab::{command, fixture};

use crate::setup;

/// Runs every test of the workspace; the last lines are cargo's own.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::ensure()?;
    fixture::layout()?; // once, before tests ask for it side by side
    let mut cargo = command::cargo();
    cargo.args(["test", "--release", "--workspace"]).args(arguments);
    command::show(&mut cargo)
}
