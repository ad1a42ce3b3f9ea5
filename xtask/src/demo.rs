//! `cargo xtask demo`: from a clean clone to an installed, booted machine, every step shown.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::registry::Registry;
use lab::scenario::{self, Installation};
use lab::vm::Disk;
use lab::{config_drive, fixture, product};

use crate::setup;

/// Runs the demo.
pub fn run() -> Result<()> {
    let directory = lab::target().join("demo");
    std::fs::create_dir_all(&directory)?;
    let mut steps = Steps::default();
    steps.run(
        "Installing what the demo needs (packages of this distribution)",
        setup::ensure,
    )?;
    let landfall = steps.run("Building Landfall", product::build)?;
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
        "Installing in a machine with an empty disk and a ramdisk with nothing but Landfall",
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
            .chain([("Total", total)]);
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
