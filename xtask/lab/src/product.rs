//! The product as its users get it: the release build.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::command;

/// Builds the product and gives its path.
pub fn build() -> Result<PathBuf> {
    program("landfall")
}

/// Builds all programs as users get them, and gives the path of this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let output = command::cargo()
        .args(["build", "--release", "--workspace", "--bins"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("Landfall doesn't build; the reason is above");
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = messages
        .lines()
        .filter_map(executable)
        .find(|path| path.ends_with(name));
    built.with_context(|| format!("cargo built no program named {name}"))
}

fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"]
        .as_str()
        .map(Path::new)
        .map(Path::to_path_buf)
}
