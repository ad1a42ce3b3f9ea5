//! The scenario that everything is for: a machine with nothing but Landfall installs an image, then boots its
//! disk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::gpt::{Partition, partitions};
use crate::kernel::Kernel;
use crate::vm::{Disk, Machine};
use crate::{command, ramdisk};

/// What the fixture image says on the console once it has booted and found itself whole.
const BOOTED: &str = "LANDFALL-BOOT-OK";
/// What it says when it has booted and found something wrong.
const FAILED: &str = "LANDFALL-BOOT-FAILED";

/// An installation in a machine of its own.
#[derive(Debug, Clone)]
pub struct Installation<'a> {
    /// The program that is the ramdisk's `/init`.
    pub landfall: &'a Path,
    /// The image's name as the machine says it: [`crate::registry::Registry::host_for_vm`].
    pub image: &'a str,
    /// The disk to install onto.
    pub disk: &'a Disk,
    /// What the machine is told of it: `landfall.device=/dev/vda`.
    pub device: String,
    /// Another disk, which comes before the first by name.
    pub second: Option<&'a Disk>,
    /// The config drive, put into the ramdisk.
    pub config_drive: Option<&'a Path>,
    /// More files for the ramdisk, executable: where they come from, where they go.
    pub files: &'a [(PathBuf, &'a str)],
    /// A port of the host's loopback that leads to the machine while it installs: [`Machine::forward`].
    pub forwarded_port: Option<u16>,
    /// Where the machine's TPM 2.0 keeps its keys, if it has one.
    pub tpm: Option<&'a Path>,
    /// Where its firmware keeps its variables; none: those of the installation are not there when the disk
    /// boots.
    pub variables: Option<&'a Path>,
    /// The machine's memory.
    pub memory_mib: u32,
    /// More words for the kernel's command line: `landfall.tls-verify=0`.
    pub arguments: &'a str,
    /// Console lines are shown after this prefix, and kept in `target/consoles`.
    pub echo: &'a str,
}

impl<'a> Installation<'a> {
    /// Onto `disk`, in a machine with 1 GiB of memory and no other device, from a registry without TLS.
    pub fn new(landfall: &'a Path, image: &'a str, disk: &'a Disk) -> Self {
        Self {
            landfall,
            image,
            disk,
            device: format!("landfall.device={}", disk.device()),
            second: None,
            config_drive: None,
            files: &[],
            forwarded_port: None,
            tpm: None,
            variables: None,
            memory_mib: 1024,
            arguments: "landfall.tls-verify=0",
            echo: "  | ",
        }
    }

    /// Installs, and gives what the console said. A disk without partitions afterwards is an error.
    pub fn run(&self) -> Result<String> {
        let transcript = self.attempt()?;
        if partitions(self.disk)?.is_empty() {
            bail!(
                "Landfall did not install:\n{}",
                command::last_lines(&transcript, 40)
            );
        }
        Ok(transcript)
    }

    /// Tries to install, and gives what the console said.
    pub fn attempt(&self) -> Result<String> {
        let kernel = Kernel::fetch()?;
        let directory = crate::tempdir()?;
        let ramdisk = directory.path().join("ramdisk");
        let mut builder = ramdisk::Builder::new(&kernel, self.landfall)?;
        if let Some(source) = self.config_drive {
            builder = builder.file(source, CONFIG_DRIVE)?;
        }
        for (source, path) in self.files {
            builder = builder.program(source, path)?;
        }
        builder.write(&ramdisk)?;
        let mut machine = Machine::new(self.disk)
            .memory_mib(self.memory_mib)
            .kernel(&kernel.vmlinuz, &ramdisk, &self.command_line())
            .network();
        if let Some(port) = self.forwarded_port {
            machine = machine.forward(port);
        }
        self.watched(machine, "install")?.run()
    }

    /// Boots what was installed, by its own boot loader and with no network, and gives the line that says so
    /// and all others.
    pub fn boot(&self) -> Result<(String, String)> {
        let machine = Machine::new(self.disk).memory_mib(self.memory_mib);
        let transcript = self.watched(machine, "boot")?.run()?;
        let said = |marker| {
            transcript
                .lines()
                .find(|line| line.contains(marker))
                .map(str::to_string)
        };
        if let Some(reason) = said(FAILED) {
            bail!(
                "the installed system is not what it should be: {reason}\n{}",
                command::last_lines(&transcript, 20)
            );
        }
        let marker = said(BOOTED);
        let marker =
            marker.with_context(|| format!("it did not boot:\n{}", command::last_lines(&transcript, 40)))?;
        Ok((marker, transcript))
    }

    fn watched(&self, mut machine: Machine, step: &str) -> Result<Machine> {
        if let Some(second) = self.second {
            machine = machine.second(second);
        }
        if let Some(state) = self.tpm {
            machine = machine.tpm(state);
        }
        if let Some(variables) = self.variables {
            machine = machine.variables(variables);
        }
        Ok(machine.echo(self.echo).log(&self.log(step)?))
    }

    /// Where the console of a step (`install`, `boot`) is kept.
    pub fn log(&self, step: &str) -> Result<PathBuf> {
        let consoles = crate::target().join("consoles");
        std::fs::create_dir_all(&consoles)?;
        let name = self.echo.replace(|c: char| !c.is_alphanumeric(), "");
        Ok(consoles.join(format!("{name}-{step}.log")))
    }

    fn command_line(&self) -> String {
        let mut words = vec![
            "console=ttyS0".to_string(),
            format!("landfall.image={}", self.image),
            self.device.clone(),
            "landfall.after=poweroff landfall.after-failure=poweroff".to_string(),
        ];
        words.extend(
            self.config_drive
                .map(|_| format!("landfall.config-drive=/{CONFIG_DRIVE}")),
        );
        words.push(self.arguments.to_string());
        words.join(" ")
    }
}

const CONFIG_DRIVE: &str = "config-drive.iso";

/// Checks an installed disk from outside, by other people's programs: the table, the file systems, the config
/// drive.
pub fn check_disk(disk: &Disk, config_drive: Option<&Path>) -> Result<Vec<String>> {
    let mut found = vec![check_table(disk)?];
    let directory = crate::tempdir()?;
    for partition in partitions(disk)? {
        let file = directory.path().join("partition");
        extract(&disk.path, &partition, &file)?;
        found.push(check_partition(&partition, &file, config_drive)?);
    }
    if config_drive.is_some() && !found.iter().any(|line| line.contains("LABEL=config-2")) {
        bail!("blkid finds no file system labelled config-2");
    }
    Ok(found)
}

/// By sgdisk, which takes an image file's sectors for 512 bytes, or by fdisk, which can be told.
fn check_table(disk: &Disk) -> Result<String> {
    let said = match disk.logical_sector_size() {
        512 => command::output(Command::new("sgdisk").arg("--verify").arg(&disk.path))?,
        size => {
            let mut fdisk = Command::new("fdisk");
            fdisk.args(["--sector-size", &size.to_string()]).arg(&disk.path);
            command::filter(&mut fdisk, b"v\nq\n")?
        }
    };
    let clean = said.lines().find_map(|line| {
        ["No problems found", "No errors detected"]
            .into_iter()
            .find(|verdict| line.contains(verdict))
    });
    Ok(format!(
        "partition table: {}",
        clean.with_context(|| format!("the table has problems:\n{said}"))?
    ))
}

fn extract(disk: &Path, partition: &Partition, target: &Path) -> Result<()> {
    let mut source = File::open(disk)?;
    source.seek(SeekFrom::Start(partition.start_bytes))?;
    let mut target = File::create(target)?;
    std::io::copy(&mut source.take(partition.size_bytes), &mut target)?;
    Ok(())
}

fn check_partition(partition: &Partition, file: &PathBuf, config_drive: Option<&Path>) -> Result<String> {
    let probe = Command::new("blkid")
        .args(["--probe", "--output", "export"])
        .arg(file)
        .output()?;
    let probed = String::from_utf8_lossy(&probe.stdout).into_owned();
    let tag = |name: &str| {
        probed
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")))
            .unwrap_or("-")
    };
    let mut checked = String::new();
    match tag("TYPE") {
        "ext4" => command::run(Command::new("e2fsck").args(["-f", "-n"]).arg(file))?,
        "vfat" => command::run(Command::new("fsck.fat").arg("-n").arg(file))?,
        "crypto_LUKS" => checked = format!(" {}", check_luks(file)?),
        _ => checked = " not checked".into(),
    }
    if let (Some(config_drive), "config-2") = (config_drive, tag("LABEL")) {
        compare(config_drive, file)?;
        checked = " byte for byte".into();
    }
    Ok(format!(
        "{}: TYPE={} LABEL={}{checked}",
        partition.name,
        tag("TYPE"),
        tag("LABEL")
    ))
}

/// By cryptsetup: nothing but the TPM may unlock it.
fn check_luks(file: &Path) -> Result<&'static str> {
    let said = command::output(
        Command::new("cryptsetup")
            .args(["luksDump", "--dump-json-metadata"])
            .arg(file),
    )?;
    let header: serde_json::Value = serde_json::from_str(&said)?;
    let count = |what: &str| header[what].as_object().map_or(0, |found| found.len());
    let token = &header["tokens"]["0"]["type"];
    if (count("keyslots"), count("tokens")) != (1, 1) || token != "systemd-tpm2" {
        bail!("not only the TPM unlocks the root: {said}");
    }
    Ok("unlocked by the TPM alone")
}

fn compare(config_drive: &Path, partition: &Path) -> Result<()> {
    let expected = std::fs::read(config_drive)?;
    let mut written = vec![0; expected.len()];
    File::open(partition)?
        .read_exact(&mut written)
        .context("reading the config drive's partition")?;
    if written != expected {
        bail!(
            "the config drive on the disk differs from {}",
            config_drive.display()
        );
    }
    Ok(())
}
