//! What a hostile image brings along: a program that attacks (`fixtures/hostile`), linked statically, so that
//! it runs in any image, and outside of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command;
use crate::image::Entry;

/// Where the program is in an image.
pub const ATTACK: &str = "opt/hostile/attack";

/// Compiles the program into this directory.
pub fn compile(directory: &Path) -> Result<PathBuf> {
    let program = directory.join("attack");
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-s", "-o"]).arg(&program);
    command::run(cc.arg(source("attack.c")))?;
    Ok(program)
}

/// The program in an image.
pub fn entry() -> Result<Entry> {
    let directory = crate::tempdir()?;
    Ok(Entry::program(ATTACK, fs::read(compile(directory.path())?)?))
}

/// A file of `fixtures/hostile`.
pub fn source(name: &str) -> PathBuf {
    crate::root().join("fixtures/hostile").join(name)
}
