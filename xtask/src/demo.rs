//! `cargo xtask demo`: from a clean clone to an installed, booted machine, every step shown.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::registry::Registry;
use crate::scenario::{self, Installation};
use crate::vm::Disk;
use crate::{config_drive, fixture, setup};

/// Runs the demo.
pub fn run() -> Result<()> {
    let directory = crate::target().join("demo");
    std::fs::create_dir_all(&directory)?;
    let mut steps = Steps::default();
    steps.run(
        "Installing what the demo needs (packages of this distribution)",
        setup::ensure,
    )?;
    let landfall = steps.run("Building Landfall", build_landfall)?;
    let layout = steps.run(
        "Making a bootable image from packages, with a stand-in for bootc",
        fixture::layout,
    )?;
    let registry = steps.run("Starting a registry and pushing the image", || {
        let registry = Registry::start()?;
        registry.push(layout.path(), fixture::BOOTABLE, "os/fixture:1")?;
        Ok(registry)
    })?;
    let drive = directory.join("config-drive.iso");
    steps.run("Making a config drive", || {
        config_drive::create(&drive, config_drive::FILES)
    })?;

    let disk = Disk::create(&directory.join("disk.img"), 2048)?;
    let image = format!("{}/os/fixture:1", registry.host_for_vm());
    let installation = Installation {
        config_drive: Some(&drive),
        ..Installation::new(&landfall, &image, &disk)
    };
    steps.run(
        "Installing, in a machine with an empty disk and a ramdisk of Landfall alone",
        || installation.run(),
    )?;
    let found = steps.run("Checking the disk from outside", || {
        scenario::check_disk(&disk, Some(&drive))
    })?;
    found.iter().for_each(|line| println!("    {line}"));
    let (marker, _) = steps.run("Booting the installed disk under UEFI", || installation.boot())?;

    println!("\n{marker}\n\n{}", steps.table());
    println!(
        "The installed disk is {}; boot it again with\n  cargo xtask boot {0}",
        disk.path.display()
    );
    Ok(())
}

/// Builds the product and gives its path.
pub fn build_landfall() -> Result<PathBuf> {
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
        .find(|path| path.ends_with("landfall"));
    built.context("cargo built no program named landfall")
}

fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"]
        .as_str()
        .map(Path::new)
        .map(Path::to_path_buf)
}

/// Steps that are announced, timed and listed at the end.
#[derive(Default)]
pub struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Does one step.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let started = Instant::now();
        let result = step().with_context(|| format!("{} failed", lowercase(name)))?;
        self.done.push((name.to_string(), started.elapsed()));
        Ok(result)
    }

    /// What took how long.
    pub fn table(&self) -> String {
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        let rows = self
            .done
            .iter()
            .map(|(name, time)| (name.as_str(), *time))
            .chain([("In all", total)]);
        rows.map(|(name, time)| format!("{:>8.1} s  {name}\n", time.as_secs_f64()))
            .collect()
    }
}

fn lowercase(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}
