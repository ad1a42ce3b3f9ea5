//! A config drive as OpenStack and Ironic have it: ISO 9660, label `config-2`, made by xorriso.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The least that cloud-init takes: a name for the machine, and a line that the booted system prints.
pub const FILES: &[(&str, &str)] = &[
    (
        "openstack/latest/meta_data.json",
        r#"{"uuid": "2f1a2f3c-2d0c-4b8b-9f55-6f0d2f6a5d10", "hostname": "node-17.lab", "name": "node-17"}"#,
    ),
    (
        "openstack/latest/user_data",
        "#cloud-config\nruncmd: [echo, greetings-from-the-config-drive]\n",
    ),
];

/// Puts these files, path and content, into a directory.
pub fn lay_out(directory: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (path, content) in files {
        let file = directory.join(path);
        fs::create_dir_all(file.parent().context("a file's path has a directory")?)?;
        fs::write(file, content)?;
    }
    Ok(())
}

/// Makes a config drive of these files: path and content.
pub fn create(output: &Path, files: &[(&str, &str)]) -> Result<()> {
    let tree = crate::tempdir()?;
    lay_out(tree.path(), files)?;
    let _ = fs::remove_file(output);
    let options = [
        "-as",
        "mkisofs",
        "-quiet",
        "-joliet",
        "-rational-rock",
        "-volid",
        "config-2",
        "-output",
    ];
    command::run(Command::new("xorriso").args(options).arg(output).arg(tree.path()))
        .context("making a config drive")
}
