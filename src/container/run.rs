//! Starts the helper process, follows the output, and makes sure that nothing is left running.

use std::fs::{self, File};
use std::io::{self, ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::console::text::printable;

use super::cgroup::{Allowed, Cgroup};
use super::device_filter;
use super::executable::Executable;
use super::exit::Ended;
use super::helper::{ORDERS_FILE, OUTCOME_FILE, Orders, Outcome};
use super::spec::{RESOLV_CONF, Sandbox, runtime_spec};

/// The hidden subcommand that makes this program the helper.
pub const HELPER_COMMAND: &str = "container-helper";
/// A longer line of output is cut into pieces of this many bytes.
const MAX_LINE_BYTES: usize = 4096;

/// Where the container's standard output and error go.
pub enum Output<'a> {
    /// As it comes, to ours. Neither is open in the container: they may be somebody's terminal.
    Copied,
    /// Line by line, both together, to this function.
    Lines(&'a mut (dyn FnMut(String) + Send)),
}

/// Runs `sandbox` to its end; then the container is gone, with its bundle, a scratch directory that is made
/// here. If the future is dropped, the container is killed and waited for.
pub async fn run(sandbox: &Sandbox<'_>, output: Output<'_>) -> Result<Ended> {
    let bundle = &sandbox.bundle;
    let cgroup = Cgroup::make(&allowed(sandbox)?)?;
    write_bundle(sandbox, bundle, &cgroup)?;
    let mut finished = follow(bundle, output).await;
    if let Ok(ended) = &mut finished {
        ended.refused.extend(cgroup.refused());
    }
    fs::remove_dir_all(bundle).with_context(|| format!("removing {}", bundle.display()))?;
    finished
}

fn allowed(sandbox: &Sandbox<'_>) -> Result<Allowed> {
    let devices = match sandbox.power.target() {
        None => device_filter::harmless(),
        Some(target) => device_filter::installing(&target.disk, target.luks)?,
    };
    let memory_bytes = sandbox.memory_bytes;
    Ok(Allowed {
        devices,
        memory_bytes,
    })
}

fn write_bundle(sandbox: &Sandbox<'_>, bundle: &Path, cgroup: &Cgroup) -> Result<()> {
    fs::create_dir_all(bundle).with_context(|| format!("mkdir {}", bundle.display()))?;
    let spec = runtime_spec(sandbox)?;
    spec.save(bundle.join("config.json"))
        .context("writing the container's configuration")?;
    if sandbox.has_the_hosts_network() {
        let copy = bundle.join(RESOLV_CONF);
        fs::copy("/etc/resolv.conf", copy).context("copying /etc/resolv.conf")?;
    }
    let orders = Orders {
        power: sandbox.power.clone(),
        control_groups: cgroup.entrances(),
        from: std::process::id(),
    };
    fs::write(bundle.join(ORDERS_FILE), serde_json::to_vec(&orders)?).context("writing the helper's orders")
}

async fn follow(bundle: &Path, output: Output<'_>) -> Result<Ended> {
    match output {
        Output::Copied => follow_copying(bundle).await?,
        Output::Lines(show) => follow_lines(bundle, show).await?,
    }
    match outcome(bundle)? {
        Outcome::Ended(ended) => Ok(ended),
        Outcome::NotStarted(why) => Err(why.into()),
        Outcome::Failed(reason) => bail!("the container could not be run: {reason}"),
    }
}

async fn follow_lines(bundle: &Path, show: &mut (dyn FnMut(String) + Send)) -> Result<()> {
    let (reader, writer) = io::pipe().context("pipe")?;
    let second = writer.try_clone().context("dup")?;
    let mut helper = Helper::start(bundle, writer.into(), second.into())?;
    let (sender, mut lines) = mpsc::channel(64);
    thread::spawn(move || send_lines(reader, &sender));
    while let Some(line) = lines.recv().await {
        show(line);
    }
    helper.wait().await
}

async fn follow_copying(bundle: &Path) -> Result<()> {
    let (output, writer) = io::pipe().context("pipe")?;
    let (errors, second) = io::pipe().context("pipe")?;
    let mut helper = Helper::start(bundle, writer.into(), second.into())?;
    let (output, errors) = (copy(output, io::stdout())?, copy(errors, io::stderr())?);
    helper.wait().await?;
    // If our own standard error takes nothing, nobody can be told.
    let _ = errors.await.context("copying standard error")?;
    let copied = output.await.context("copying standard output")?;
    copied.context("writing to standard output")
}

/// Copies what comes `from` the container, until one of both ends.
fn copy(mut from: PipeReader, to: impl AsFd) -> Result<JoinHandle<io::Result<()>>> {
    // Not by its buffer, which waits for the end of a line.
    let mut to = File::from(to.as_fd().try_clone_to_owned().context("dup")?);
    Ok(spawn_blocking(move || match io::copy(&mut from, &mut to) {
        // With the pipe closed, the command learns of it as if the reader were its own.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map(drop),
    }))
}

fn outcome(bundle: &Path) -> Result<Outcome> {
    let text = fs::read(bundle.join(OUTCOME_FILE))
        .context("the container's helper died without leaving a reason")?;
    serde_json::from_slice(&text).context("reading the helper's outcome")
}

/// The helper process. When dropped, it and the container are gone.
struct Helper {
    child: Child,
    _executable: Executable,
}

impl Helper {
    fn start(bundle: &Path, stdout: Stdio, stderr: Stdio) -> Result<Self> {
        let executable = Executable::mount(bundle)?;
        let mut command = Command::new(executable.path());
        command
            .arg(HELPER_COMMAND)
            .arg(bundle)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        // A Ctrl-C at the terminal is for us; we end the container in good order.
        command.process_group(0);
        let child = tokio::process::Command::from(command).spawn();
        Ok(Self {
            child: child.context("starting the container's helper process")?,
            _executable: executable,
        })
    }

    async fn wait(&mut self) -> Result<()> {
        let status = self
            .child
            .wait()
            .await
            .context("waiting for the container's helper process")?;
        ensure!(
            status.success(),
            "the container's helper process failed: {status}"
        );
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // No id: it has been waited for already.
        if let Some(id) = self.child.id() {
            let pid = Pid::from_raw(id.cast_signed());
            let _ = kill(pid, Signal::SIGTERM);
            let _ = waitpid(pid, None);
        }
    }
}

/// Sends what `reader` gives, line by line, until its end or until nobody listens.
fn send_lines(mut reader: impl Read, lines: &mpsc::Sender<String>) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        for &byte in &buffer[..count] {
            // Progress bars return to the start of their line.
            let ended = byte == b'\n' || byte == b'\r';
            if !ended {
                line.push(byte);
            }
            if (ended && !line.is_empty() || line.len() == MAX_LINE_BYTES)
                && lines.blocking_send(text(&std::mem::take(&mut line))).is_err()
            {
                return;
            }
        }
    }
    if !line.is_empty() {
        let _ = lines.blocking_send(text(&line));
    }
}

/// A line that does nothing to a terminal but show.
fn text(line: &[u8]) -> String {
    printable(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(1024);
        send_lines(input, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn output_becomes_lines() {
        assert_eq!(
            lines(b"one\ntwo\rthree\r\n\nfour"),
            ["one", "two", "three", "four"]
        );
        let long = lines(&[b'x'; MAX_LINE_BYTES + 1]);
        assert_eq!(
            long.iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE_BYTES, 1]
        );
    }
}
