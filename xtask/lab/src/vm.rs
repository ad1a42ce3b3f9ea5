//! A QEMU machine: UEFI firmware, a disk, a serial console; emulated, or with KVM where `LANDFALL_KVM=1`.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::vm::{Disk, Machine};
//! let disk = Disk::create("disk.img".as_ref(), 2048)?.sector_size(4096);
//! let installer = Machine::new(&disk)
//!     .kernel("vmlinuz".as_ref(), "ramdisk".as_ref(), "console=ttyS0 landfall.after=poweroff")
//!     .network();
//! let transcript = installer.run()?;
//! # Ok(()) }
//! ```
//!
//! Nothing waits for a time to pass: a machine is done when it powers off. A guard ends one that
//! doesn't after 20 minutes, and shows its last lines.

pub mod knocking;
mod tpm;
pub mod variables;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::command::{self, Guarded};
use tpm::Tpm;

/// The longest that a machine may live: an emulated installation on a loaded machine takes minutes.
const GUARD: Duration = Duration::from_secs(20 * 60);

/// What Landfall says last, when everything is on the disk …
const OFF: &str = "; powering off";
/// … and how long the kernel has to do it. A kernel that hangs there has nothing to do with what is tested.
const OFF_GUARD: Duration = Duration::from_secs(120);

/// A disk image and how the machine sees it.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The image's file, raw and sparse.
    pub path: PathBuf,
    sector_size: u32,
    nvme: bool,
}

impl Disk {
    /// A new empty disk.
    pub fn create(path: &Path, size_mib: u64) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        file.set_len(size_mib << 20)?;
        Ok(Self::open(path))
    }

    /// A disk that exists.
    pub fn open(path: &Path) -> Self {
        Self {
            path: path.into(),
            sector_size: 512,
            nvme: false,
        }
    }

    /// Has this logical (and physical) sector size: 512 or 4096.
    pub fn sector_size(self, sector_size: u32) -> Self {
        Self { sector_size, ..self }
    }

    /// Is `/dev/nvme0n1`, not `/dev/vda`.
    pub fn nvme(self) -> Self {
        Self { nvme: true, ..self }
    }

    /// The logical sector size in bytes.
    pub fn logical_sector_size(&self) -> u32 {
        self.sector_size
    }

    /// The name that the guest's kernel gives it.
    pub fn device(&self) -> &'static str {
        if self.nvme { "/dev/nvme0n1" } else { "/dev/vda" }
    }

    /// The disk with this place in the firmware's boot order; the first one's serial number is `landfall`.
    fn options(&self, place: usize) -> [String; 4] {
        let size = self.sector_size;
        let driver = if self.nvme { "nvme" } else { "virtio-blk-pci" };
        let serial = if place == 1 { "landfall" } else { "other" };
        [
            "-drive".into(),
            format!(
                "if=none,id=disk{place},format=raw,cache=unsafe,discard=unmap,file={}",
                self.path.display()
            ),
            "-device".into(),
            format!(
                "{driver},serial={serial},drive=disk{place},bootindex={place},logical_block_size={size},physical_block_size={size}"
            ),
        ]
    }
}

/// A machine still switched off.
#[derive(Debug, Clone)]
pub struct Machine {
    disk: Disk,
    second: Option<Disk>,
    memory_mib: u32,
    kernel: Option<(PathBuf, PathBuf, String)>,
    network: bool,
    forwarded_port: Option<u16>,
    tpm: Option<PathBuf>,
    variables: Option<PathBuf>,
    echo: Option<String>,
    log: Option<PathBuf>,
}

impl Machine {
    /// A machine with this disk, which it boots from unless it is given a kernel.
    pub fn new(disk: &Disk) -> Self {
        Self {
            disk: disk.clone(),
            second: None,
            memory_mib: 1024,
            kernel: None,
            network: false,
            forwarded_port: None,
            tpm: None,
            variables: None,
            echo: None,
            log: None,
        }
    }

    /// Has another disk, which comes before the first by name.
    pub fn second(self, disk: &Disk) -> Self {
        Self {
            second: Some(disk.clone()),
            ..self
        }
    }

    /// Has this much memory.
    pub fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// Boots this kernel and ramdisk, by the firmware, as a network boot would.
    pub fn kernel(self, kernel: &Path, ramdisk: &Path, command_line: &str) -> Self {
        Self {
            kernel: Some((kernel.into(), ramdisk.into(), command_line.into())),
            ..self
        }
    }

    /// Has a network with DHCP, on which the host's loopback is 10.0.2.2.
    pub fn network(self) -> Self {
        Self {
            network: true,
            ..self
        }
    }

    /// Who connects to this port of the host's loopback reaches a closed one of the machine: it answers, if it
    /// has an interface that is up.
    pub fn forward(self, port: u16) -> Self {
        Self {
            forwarded_port: Some(port),
            ..self
        }
    }

    /// Has a TPM 2.0 that keeps its keys in this directory.
    pub fn tpm(self, state: &Path) -> Self {
        Self {
            tpm: Some(state.into()),
            ..self
        }
    }

    /// Its firmware keeps its variables in this file, which need not be there yet.
    pub fn variables(self, file: &Path) -> Self {
        Self {
            variables: Some(file.into()),
            ..self
        }
    }

    /// Shows each line of its console on standard error, after this prefix.
    pub fn echo(self, prefix: &str) -> Self {
        Self {
            echo: Some(prefix.into()),
            ..self
        }
    }

    /// Keeps each line of its console in this file, which others can watch.
    pub fn log(self, file: &Path) -> Self {
        Self {
            log: Some(file.into()),
            ..self
        }
    }

    /// Switches it on, lets it run until it switches itself off, and gives what its console said.
    pub fn run(&self) -> Result<String> {
        self.start()?.wait()
    }

    /// Switches it on.
    fn start(&self) -> Result<Running> {
        let directory = crate::tempdir()?;
        let socket = directory.path().join("tpm");
        let tpm = match &self.tpm {
            Some(state) => Some(Tpm::start(state, &socket)?),
            None => None,
        };
        let mut command = self.command(directory.path())?;
        if tpm.is_some() {
            command.args(Tpm::options(&socket));
        }
        let mut log = match &self.log {
            Some(path) => Some(File::create(path).with_context(|| format!("creating {}", path.display()))?),
            None => None,
        };
        let mut child = command.spawn().context("starting qemu-system-x86_64")?;
        let console = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        let echo = self.echo.clone();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = printable(&line);
                if let Some(prefix) = &echo {
                    eprintln!("{prefix}{line}");
                }
                if let Some(log) = &mut log {
                    let _ = writeln!(log, "{line}"); // a full disk is not the machine's fault
                }
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = directory.path().join("errors");
        Ok(Running {
            child: Guarded(child),
            lines,
            transcript: String::new(),
            started: Instant::now(),
            off_since: None,
            errors,
            _tpm: tpm,
            _directory: directory,
        })
    }

    fn command(&self, directory: &Path) -> Result<Command> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35",
            "-smp",
            "2",
            "-m",
            &format!("{}M", self.memory_mib),
        ]);
        // Westmere: newer models advertise string instructions that emulation runs byte by byte. AES, for
        // encrypted disks, it leaves to the host's processor.
        match wants_kvm() {
            true => command.args(["-accel", "kvm", "-cpu", "host"]),
            false => command.args(["-accel", "tcg,thread=multi", "-cpu", "Westmere,+rdrand"]),
        };
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ]);
        let own = directory.join("variables.fd");
        command.args(firmware(self.variables.as_deref().unwrap_or(&own))?);
        if let Some(second) = &self.second {
            command.args(second.options(2));
        }
        command.args(self.disk.options(1));
        let forwarded = self.forwarded_port;
        let forwarded = forwarded.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:9"));
        let user = format!(
            "user,model=virtio-net-pci,ipv6=off{}",
            forwarded.unwrap_or_default()
        );
        command.args(["-nic", if self.network { &user } else { "none" }]);
        if let Some((kernel, ramdisk, command_line)) = &self.kernel {
            command
                .arg("-kernel")
                .arg(kernel)
                .arg("-initrd")
                .arg(ramdisk)
                .args(["-append", command_line]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.join("errors"))?);
        Ok(command)
    }
}

/// UEFI firmware: the code as it is; its variables in a file, which begins as a copy.
fn firmware(own_variables: &Path) -> Result<Vec<String>> {
    let pairs = [
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE.fd", "OVMF_VARS.fd"),
    ];
    let installed = Path::new("/usr/share/OVMF");
    let found = pairs
        .iter()
        .find(|(code, variables)| installed.join(code).exists() && installed.join(variables).exists());
    let (code, variables) = found.context("no UEFI firmware; `cargo xtask setup` installs ovmf")?;
    if !own_variables.exists() {
        fs::copy(installed.join(variables), own_variables)?;
    }
    Ok(vec![
        "-drive".into(),
        format!(
            "if=pflash,format=raw,readonly=on,file={}",
            installed.join(code).display()
        ),
        "-drive".into(),
        format!("if=pflash,format=raw,file={}", own_variables.display()),
    ])
}

/// Only where it is asked for: on some machines `/dev/kvm` opens, and guests then hang.
fn wants_kvm() -> bool {
    std::env::var_os("LANDFALL_KVM").is_some_and(|value| value == "1")
}

/// A console line without the terminal's control sequences (firmware and boot loaders send them).
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                let control = rest.next();
                if control == Some('[') {
                    rest.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            c if c.is_control() && c != '\t' => {}
            c => clean.push(c),
        }
    }
    clean
}

/// A machine that runs; dropping it ends its process.
struct Running {
    child: Guarded,
    lines: Receiver<String>,
    transcript: String,
    started: Instant,
    /// When Landfall had done all and asked the kernel to switch the machine off.
    off_since: Option<Instant>,
    errors: PathBuf,
    _tpm: Option<Tpm>,
    _directory: TempDir,
}

impl Running {
    /// Waits until it switches itself off, and gives all that its console said.
    fn wait(mut self) -> Result<String> {
        while self.next_line()?.is_some() {}
        let status = self.child.0.wait()?;
        if !status.success() && self.off_since.is_none() {
            bail!("QEMU failed ({status})\n{}", self.last_words());
        }
        Ok(self.transcript)
    }

    /// The next console line; none when the machine is off.
    fn next_line(&mut self) -> Result<Option<String>> {
        let left = match self.off_since {
            None => GUARD.saturating_sub(self.started.elapsed()),
            Some(since) => OFF_GUARD.saturating_sub(since.elapsed()),
        };
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                if line.contains(OFF) {
                    self.off_since.get_or_insert_with(Instant::now);
                }
                self.transcript.push_str(&line);
                self.transcript.push('\n');
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) if self.off_since.is_some() => {
                eprintln!("the machine's kernel does not power it off: ending its process");
                self.child.0.kill()?;
                Ok(None)
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the machine still runs after {} minutes\n{}",
                    GUARD.as_secs() / 60,
                    self.last_words()
                )
            }
        }
    }

    fn last_words(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        format!("{}\n{errors}", command::last_lines(&self.transcript, 40))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_leave_a_line() {
        let rows: [(&[u8], &str); 3] = [
            (b"\x1b[2J\x1b[01;01HBdsDxe: loading\r", "BdsDxe: loading"),
            (b"plain\ttext", "plain\ttext"),
            (b"\x1b=x\x07y", "xy"),
        ];
        for (line, clean) in rows {
            assert_eq!(printable(line), clean);
        }
    }
}
