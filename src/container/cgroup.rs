//! A control group for each container: it says which devices the image's programs can open, keeps them from
//! changing the kernel's settings, and bounds their number and their memory.
//!
//! ```text
//! landfall-PID-N             made and removed by Landfall: programs and limits are here …
//! landfall-PID-N/container   … and this is all that the container sees: it can't change what is above it
//! ```
//!
//! The hierarchies are mounted nowhere: libcontainer, which would use them in its own way, must not find any.
//! Programs need cgroup v2; the limits are those of v2's controllers, or of v1's where a controller is bound
//! to that.

mod hierarchy;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::device_filter::{self, Refusals, Rule};
use crate::console::text::size;
use hierarchy::{Group, Hierarchy, hierarchies};

/// How many processes and threads a container may have at once: as many as podman allows.
const MAX_PROCESSES: u32 = 2048;

/// What a container may have.
#[derive(Clone, Debug)]
pub struct Allowed {
    pub devices: Vec<Rule>,
    pub memory_bytes: u64,
}

/// What the kernel can be made to guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub device_filter: bool,
    pub sysctl_filter: bool,
    pub process_limit: bool,
    pub memory_limit: bool,
}

/// The control groups of one container, one in each hierarchy that is needed. When dropped, they are gone,
/// with whatever still runs in them.
pub struct Cgroup {
    groups: Vec<Group>,
    refusals: Option<Refusals>,
    memory_bytes: u64,
}

impl Abilities {
    /// Tries each, once, in a group that nobody joins.
    pub fn of_this_kernel() -> Self {
        static FOUND: OnceLock<Abilities> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let Ok(mut cgroup) = Cgroup::empty(u64::MAX >> 1) else {
                return Self::default();
            };
            Self {
                device_filter: cgroup.filter_devices(&device_filter::harmless()).is_ok(),
                sysctl_filter: cgroup.keep_settings().is_ok(),
                process_limit: cgroup.limit_processes().is_ok(),
                memory_limit: cgroup.limit_memory().is_ok(),
            }
        })
    }
}

impl Cgroup {
    /// Makes the groups, with all guards that this kernel is able to.
    pub fn make(allowed: &Allowed) -> Result<Self> {
        let able = Abilities::of_this_kernel();
        let mut cgroup = Self::empty(allowed.memory_bytes)?;
        if able.device_filter {
            let filtered = cgroup.filter_devices(&allowed.devices);
            filtered.context("attaching the container's device filter")?;
        }
        if able.sysctl_filter {
            cgroup
                .keep_settings()
                .context("attaching the container's filter of settings")?;
        }
        if able.process_limit {
            cgroup
                .limit_processes()
                .context("limiting the container's processes")?;
        }
        if able.memory_limit {
            cgroup.limit_memory().context("limiting the container's memory")?;
        }
        Ok(cgroup)
    }

    fn empty(memory_bytes: u64) -> Result<Self> {
        let groups = hierarchies().iter().map(Hierarchy::make_group);
        Ok(Self {
            groups: groups
                .collect::<io::Result<_>>()
                .context("making a control group")?,
            refusals: None,
            memory_bytes,
        })
    }

    /// Files in which a process writes 0 to join the container.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.groups.iter().map(Group::entrance).collect()
    }

    fn unified(&self) -> io::Result<&Group> {
        let found = self.groups.iter().find(|group| group.is_unified());
        found.ok_or_else(|| io::Error::other("there is no cgroup v2"))
    }

    fn filter_devices(&mut self, rules: &[Rule]) -> io::Result<()> {
        let (program, refusals) = device_filter::load(rules)?;
        program.attach(self.unified()?)?;
        self.refusals = Some(refusals);
        Ok(())
    }

    fn keep_settings(&self) -> io::Result<()> {
        Ok(device_filter::load_read_only_settings()?.attach(self.unified()?)?)
    }

    fn limit_processes(&self) -> io::Result<()> {
        self.limit(&["pids.max"], MAX_PROCESSES.into())
    }

    fn limit_memory(&self) -> io::Result<()> {
        self.limit(&["memory.max", "memory.limit_in_bytes"], self.memory_bytes)
    }

    /// Writes to the file that has one of these names, in whichever hierarchy it is.
    fn limit(&self, names: &[&str], value: u64) -> io::Result<()> {
        let groups = self.groups.iter();
        for file in groups.flat_map(|group| names.iter().map(|name| group.file(name))) {
            if fs::exists(&file)? {
                return fs::write(file, value.to_string());
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// What the container was kept from, in words that go after "the image tried to".
    pub fn refused(&self) -> Vec<String> {
        // What can't be told any more is no reason to call an installation failed.
        let refused = self.refusals.as_ref().and_then(|refusals| refusals.told().ok());
        let mut refused = refused.unwrap_or_default();
        if self.happened("pids.events", "max") {
            refused.push(format!(
                "run more than {MAX_PROCESSES} processes and threads at once"
            ));
        }
        if self.happened("memory.events", "oom_kill") || self.happened("memory.oom_control", "oom_kill") {
            refused.push(format!("use more than {} of memory", size(self.memory_bytes)));
        }
        refused
    }

    fn happened(&self, file: &str, event: &str) -> bool {
        self.groups.iter().any(|group| group.count(file, event) > 0)
    }
}

/// Joins the groups behind these entrances, and sees nothing above them; so does all that this process starts.
pub fn join(entrances: &[PathBuf]) -> Result<()> {
    for entrance in entrances {
        fs::write(entrance, "0").with_context(|| format!("writing to {}", entrance.display()))?;
    }
    match unshare(CloneFlags::CLONE_NEWCGROUP) {
        // This kernel has no control groups.
        Err(Errno::EINVAL) => Ok(()),
        done => done.context("unshare(CLONE_NEWCGROUP)"),
    }
}

/// Does what starts processes. When memory runs out, they end before this one, and before all others.
pub fn start_expendable<T>(start: impl FnOnce() -> Result<T>) -> Result<T> {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let own = fs::read(SCORE).with_context(|| format!("reading {SCORE}"))?;
    fs::write(SCORE, "1000").with_context(|| format!("writing to {SCORE}"))?;
    let started = start()?;
    fs::write(SCORE, own).with_context(|| format!("writing to {SCORE}"))?;
    Ok(started)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::loop_device::LoopDevice;

    /// What `script` prints that runs in the container's group.
    fn inside(cgroup: &Cgroup, script: &str) -> String {
        let join: String = cgroup
            .entrances()
            .iter()
            .map(|file| format!("echo 0 >{}; ", file.display()))
            .collect();
        let output = Command::new("sh")
            .args(["-c", &format!("{join}{script}")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn what_is_in_a_group_opens_what_it_may_and_nothing_else() {
        let able = Abilities::of_this_kernel();
        assert!(able.device_filter && able.sysctl_filter, "{able:?}");
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let (target, other) = (LoopDevice::of(&file).unwrap(), LoopDevice::of(&file).unwrap());
        let target_node = PathBuf::from(format!("/dev/{}", target.name));
        let mut allowed = Allowed {
            devices: device_filter::installing(&target_node, false).unwrap(),
            memory_bytes: 1 << 30,
        };
        let cgroup = Cgroup::make(&allowed).unwrap();
        let open = |cgroup: &Cgroup, name: &str| {
            inside(cgroup, &format!("(: </dev/{name}) 2>/dev/null && echo open")) == "open\n"
        };
        for name in ["null", "urandom", "loop-control", &target.name] {
            assert!(open(&cgroup, name), "{name}");
        }
        for name in [&other.name, "console"] {
            assert!(!open(&cgroup, name), "{name}");
        }
        let told = cgroup.refused();
        assert_eq!(told.len(), 2, "{told:?}");
        let (number, name) = (other.name.trim_start_matches("loop"), &other.name);
        assert_eq!(told[0], format!("open the block device 7:{number} (/dev/{name})"));
        drop(cgroup);

        allowed.devices = device_filter::harmless();
        let cgroup = Cgroup::make(&allowed).unwrap();
        assert!(open(&cgroup, "zero") && !open(&cgroup, &target.name));
        let node = inside(
            &cgroup,
            "mknod node b 7 77 2>/dev/null || echo refused; rm -f node",
        );
        assert_eq!(node, "refused\n");
        let told = cgroup.refused();
        assert_eq!(told[1], "make a node of the block device 7:77");
        // A setting is read, and not written, even if it is to stay as it is.
        let setting = "cat /proc/sys/vm/swappiness; cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness && echo written";
        let swappiness = fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
        assert_eq!(inside(&cgroup, setting), swappiness);
        let group = cgroup.entrances()[0].clone();
        drop(cgroup);
        assert!(!group.exists());
    }
}
