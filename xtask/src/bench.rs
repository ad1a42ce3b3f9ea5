//! `cargo xtask bench`: what pulling an image costs, here and with the programs that people have.
//!
//! | chore | shows |
//! |---|---|
//! | `bench pull` | Landfall, podman, skopeo + umoci and crane on one realistic image, gzip and zstd, run in turn |
//! | `bench layers` | that the number of layers does not matter |
//! | `bench entries` | that the cost grows with the entries, and not faster |
//!
//! A registry on loopback serves the images; each run has a fresh tmpfs and a cgroup of its own. Tables are
//! printed, and kept as JSON in `target/bench`; `pull` also draws the chart of the README.

mod cgroup;
mod chart;
mod contender;
mod floor;
mod image;
mod place;
mod run;
mod table;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use lab::image::Compression;
use lab::registry::Registry;
use lab::{command, product};
use serde_json::{Value, json};

use crate::setup;
use cgroup::Cost;
use contender::{Contender, Job};
use image::Shape;
use place::Place;
use run::{COMPRESSIONS, Run};
use tools::Tools;

/// What to measure
#[derive(Subcommand)]
pub enum Bench {
    /// Landfall and other tools on one realistic image
    Pull(Options),
    /// Landfall on the same bytes in 10, 65, 200 and 500 layers
    Layers(Options),
    /// Landfall on 20,000, 80,000 and 320,000 small files
    Entries(Options),
}

/// How to measure
#[derive(Args)]
pub struct Options {
    /// Number of runs of each, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Use this landfall binary instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    setup::ensure()?;
    match bench {
        Bench::Pull(options) => pull(options),
        Bench::Layers(options) => series("layers", &[10, 65, 200, 500].map(Shape::Layers), options),
        Bench::Entries(options) => series("entries", &[20_000, 80_000, 320_000].map(Shape::Entries), options),
    }
}

fn pull(options: &Options) -> Result<()> {
    let bench = Stage::new(options)?;
    let mut runs = Vec::new();
    let mut sizes = Vec::new();
    for (name, compression) in COMPRESSIONS {
        let layout = image::layout(Shape::Real, compression)?;
        bench
            .registry
            .place(&layout, "latest", &format!("bench:{name}"))?;
        sizes.push((name, image::size(&layout)?, layout));
    }
    for round in 1..=options.rounds {
        for (name, _) in COMPRESSIONS {
            for who in Contender::ALL {
                runs.push(
                    bench
                        .run(name, who)
                        .with_context(|| format!("round {round}: {}", who.name()))?,
                );
            }
        }
    }
    let floors = sizes
        .iter()
        .map(|(name, _, layout)| Ok((*name, floor::measure(layout)?)));
    let floors = floors.collect::<Result<Vec<_>>>()?;
    let sizes: Vec<_> = sizes.into_iter().map(|(name, size, _)| (name, size)).collect();
    print!("{}", table::pull(&runs, &sizes, &floors));
    fs::write(lab::root().join("xtask/bench/pull.svg"), chart::draw(&runs))?;
    bench.keep("pull", table::json(&runs, &sizes, &floors))
}

fn series(name: &str, shapes: &[Shape], options: &Options) -> Result<()> {
    let bench = Stage::new(options)?;
    // A registry on the same cores takes its part of them for each layer; a layout takes none.
    let (mut from_registry, mut from_layout) = (Vec::new(), Vec::new());
    for shape in shapes {
        let layout = image::layout(*shape, Compression::Gzip)?;
        let size = image::size(&layout)?;
        bench
            .registry
            .place(&layout, "latest", &format!("bench:{}", shape.name()))?;
        from_registry.push((bench.image(&shape.name()), size, Vec::new()));
        from_layout.push((
            format!("oci:{}:latest", layout.path().display()),
            size,
            Vec::new(),
        ));
    }
    for _ in 0..options.rounds {
        for (image, _, costs) in from_registry.iter_mut().chain(&mut from_layout) {
            costs.push(bench.cost(image, Contender::Unpack)?);
        }
    }
    print!("from a registry\n{}", table::series(&from_registry));
    print!("\nfrom a layout\n{}", table::series(&from_layout));
    let figures = json!({
        "registry": table::series_json(&from_registry),
        "layout": table::series_json(&from_layout),
    });
    bench.keep(name, figures)
}

/// All that runs share.
struct Stage {
    registry: Registry,
    tools: Tools,
    landfall: PathBuf,
    disk: Disk,
}

impl Stage {
    fn new(options: &Options) -> Result<Self> {
        let landfall = match &options.binary {
            Some(binary) => fs::canonicalize(binary).with_context(|| format!("finding {binary:?}"))?,
            None => product::build()?,
        };
        Ok(Self {
            registry: Registry::start()?,
            tools: Tools::fetch()?,
            landfall,
            disk: Disk::new()?,
        })
    }

    fn run(&self, compression: &'static str, who: Contender) -> Result<Run> {
        let cost = self.cost(&self.image(compression), who)?;
        eprintln!(
            "{compression} {:16} {:6.1} s, {:6.1} s of CPU",
            who.name(),
            cost.wall,
            cost.cpu
        );
        Ok(Run {
            compression,
            who: who.name(),
            cost,
        })
    }

    fn image(&self, tag: &str) -> String {
        format!("{}/bench:{tag}", self.registry.host())
    }

    fn cost(&self, image: &str, who: Contender) -> Result<Cost> {
        let place = Place::new()?;
        let job = Job {
            image,
            place: place.path(),
            tools: &self.tools,
            landfall: &self.landfall,
            disk: &self.disk.device,
        };
        let log = lab::target().join("bench/log");
        cgroup::run(&who.script(&job), who.marker(), &log)
    }

    fn keep(&self, name: &str, mut figures: Value) -> Result<()> {
        figures["machine"] = machine()?;
        figures["versions"] = json!(self.tools.versions()?);
        let file = lab::target().join(format!("bench/{name}.json"));
        fs::write(&file, serde_json::to_vec_pretty(&figures)?)?;
        println!("\nkept in {}", file.display());
        Ok(())
    }
}

/// A loop device that no run writes to.
struct Disk {
    device: PathBuf,
    _file: tempfile::TempDir,
}

impl Disk {
    fn new() -> Result<Self> {
        let directory = lab::tempdir()?;
        let file = directory.path().join("disk");
        fs::File::create(&file)?.set_len(16 << 30)?;
        let device = command::output(Command::new("losetup").args(["--find", "--show"]).arg(&file))?;
        Ok(Self {
            device: device.trim().into(),
            _file: directory,
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = command::run(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

fn machine() -> Result<Value> {
    let first = |file: &str, key: &str| -> Result<String> {
        let text = fs::read_to_string(Path::new("/proc").join(file))?;
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim());
        Ok(value.unwrap_or("unknown").to_string())
    };
    Ok(json!({
        "processor": first("cpuinfo", "model name")?,
        "sha_instructions": first("cpuinfo", "flags")?.split(' ').any(|flag| flag == "sha_ni"),
        "cores": std::thread::available_parallelism()?.get(),
        "memory": first("meminfo", "MemTotal")?,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
