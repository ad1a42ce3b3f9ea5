//! One run in a cgroup of its own: what all its processes take together, children and file systems in memory
//! included.
//!
//! The peak of a cgroup's memory counts anonymous pages, pages of tmpfs, inodes and page cache: what the
//! machine has less of. Works with both versions of cgroups, and needs the controllers for CPU and memory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often the processes' own memory is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Wall-clock time, in seconds.
    pub wall: f64,
    /// User and system time of all processes together, in seconds.
    pub cpu: f64,
    /// The part of it in the kernel, in seconds.
    pub system: f64,
    /// The most memory at one time, processes and tmpfs together, in bytes.
    pub peak_bytes: u64,
    /// What is still taken when all processes have ended: files on a tmpfs, in bytes.
    pub left_bytes: u64,
    /// The most that the processes had resident at one time, all together, in bytes; sampled.
    pub resident_bytes: u64,
}

/// A cgroup, removed when it is dropped.
struct Cgroup {
    version: Version,
    /// One directory (version 2), or those of the two controllers.
    cpu: PathBuf,
    memory: PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    fn new() -> Result<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let name = format!("landfall-bench-{}", std::process::id());
        let two = top.join("cgroup.controllers").exists();
        let cgroup = if two {
            fs::write(top.join("cgroup.subtree_control"), "+cpu +memory")
                .context("this machine's cgroups cannot delegate the cpu and memory controllers")?;
            Self {
                version: Version::Two,
                cpu: top.join(&name),
                memory: top.join(&name),
            }
        } else {
            Self {
                version: Version::One,
                cpu: top.join("cpuacct").join(&name),
                memory: top.join("memory").join(&name),
            }
        };
        for directory in [&cgroup.cpu, &cgroup.memory] {
            fs::create_dir_all(directory).with_context(|| format!("making the cgroup {directory:?}"))?;
        }
        Ok(cgroup)
    }

    /// User and system time, in seconds.
    fn cpu(&self) -> Result<(f64, f64)> {
        match self.version {
            Version::One => {
                let seconds = |file| Ok::<_, anyhow::Error>(number(&self.cpu.join(file))? as f64 / 1e9);
                Ok((seconds("cpuacct.usage_user")?, seconds("cpuacct.usage_sys")?))
            }
            Version::Two => {
                let stat = fs::read_to_string(self.cpu.join("cpu.stat"))?;
                let seconds = |key: &str| {
                    let line = stat.lines().find_map(|line| line.strip_prefix(key));
                    let micros: f64 = line.context("cpu.stat lacks a line")?.trim().parse()?;
                    Ok::<_, anyhow::Error>(micros / 1e6)
                };
                Ok((seconds("user_usec ")?, seconds("system_usec ")?))
            }
        }
    }

    fn peak_bytes(&self) -> Result<u64> {
        number(&self.memory.join(match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        }))
    }

    fn taken_bytes(&self) -> Result<u64> {
        number(&self.memory.join(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }))
    }

    /// What all its processes have resident, pages of tmpfs left out.
    fn resident_bytes(&self) -> u64 {
        let processes = fs::read_to_string(self.memory.join("cgroup.procs")).unwrap_or_default();
        processes.lines().map(|pid| resident(pid).unwrap_or(0)).sum()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Two names for one directory, in version 2.
        let _ = fs::remove_dir(&self.cpu);
        let _ = fs::remove_dir(&self.memory);
    }
}

/// Runs `script` by the shell to its end. With a `marker`, time and CPU are taken when it prints a line that
/// is that.
pub fn run(script: &str, marker: Option<&str>, log: &Path) -> Result<Cost> {
    let cgroup = Cgroup::new()?;
    let enter = format!(
        "echo $$ >'{}'; echo $$ >'{}'",
        cgroup.cpu.join("cgroup.procs").display(),
        cgroup.memory.join("cgroup.procs").display()
    );
    let mut child = Command::new("sh")
        .args(["-ec", &format!("{enter}\n{script}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(log)?)
        .spawn()
        .context("starting a shell")?;
    let output = BufReader::new(child.stdout.take().context("piped above")?);
    let (started, (user, system)) = (Instant::now(), cgroup.cpu()?);
    let ended = AtomicBool::new(false);
    let (marked, resident_bytes) = thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(&cgroup, &ended));
        let mut marked = None;
        for line in output.lines() {
            if line.is_ok_and(|line| Some(line.as_str()) == marker) {
                marked = Some((started.elapsed(), cgroup.cpu()));
            }
        }
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        let resident_bytes = sampler.join().unwrap_or(0);
        let took = (started.elapsed(), cgroup.cpu());
        let marked = if marker.is_some() { marked } else { Some(took) };
        let good = status.is_ok_and(|status| status.success());
        (marked.filter(|_| good), resident_bytes)
    });
    let Some((wall, cpu)) = marked else {
        let said = fs::read_to_string(log).unwrap_or_default();
        bail!("a run failed:\n{script}\n{}", lab::command::last_lines(&said, 20));
    };
    let (user_after, system_after) = cpu?;
    Ok(Cost {
        wall: wall.as_secs_f64(),
        cpu: user_after - user + system_after - system,
        system: system_after - system,
        peak_bytes: cgroup.peak_bytes()?,
        left_bytes: cgroup.taken_bytes()?,
        resident_bytes,
    })
}

fn sample(cgroup: &Cgroup, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        peak = peak.max(cgroup.resident_bytes());
        thread::sleep(INTERVAL);
    }
    peak
}

fn resident(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("VmRSS:")? - kib("RssShmem:")?) << 10)
}

fn number(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {file:?}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{file:?} does not hold a number"))
}
