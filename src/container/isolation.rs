//! Which guards this machine's kernel has for the sandbox, and what an image could do without each.

use std::fs;

use anyhow::{Result, bail};
use serde::Serialize;

use super::cgroup::Abilities;
use crate::console::progress::Progress;
use crate::sys::seccomp;

/// How many user namespaces there may be; nothing where the kernel has none.
const MOST_USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";

/// The guards that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// Only the disk that is installed to is opened.
    device_filter: bool,
    /// No setting of the kernel is changed.
    sysctl_filter: bool,
    process_limit: bool,
    memory_limit: bool,
    /// Only system calls that are needed are answered.
    seccomp_filter: bool,
    /// What is mounted is decided by Landfall.
    mount_broker: bool,
    /// What covers the kernel's command line stays there.
    locked_covers: bool,
}

impl Isolation {
    /// Tries them.
    pub fn of_this_machine() -> Self {
        let able = Abilities::of_this_kernel();
        Self {
            device_filter: able.device_filter,
            sysctl_filter: able.sysctl_filter,
            process_limit: able.process_limit,
            memory_limit: able.memory_limit,
            seccomp_filter: seccomp::answers("errno"),
            mount_broker: seccomp::answers("user_notif"),
            locked_covers: makes_user_namespaces(),
        }
    }

    /// What an image can do for lack of a guard, and what the kernel needs to have that.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        let guards = [
            (self.device_filter, "open all disks", "CONFIG_CGROUP_BPF"),
            (
                self.sysctl_filter,
                "change the kernel's settings",
                "CONFIG_CGROUP_BPF",
            ),
            (
                self.process_limit,
                "start processes without end",
                "CONFIG_CGROUP_PIDS",
            ),
            (self.memory_limit, "take all memory", "CONFIG_MEMCG"),
            (
                self.seccomp_filter,
                "make every system call",
                "CONFIG_SECCOMP_FILTER",
            ),
            (
                self.mount_broker,
                "mount what it likes",
                "CONFIG_SECCOMP_FILTER and Linux 5.14",
            ),
            (
                self.locked_covers,
                "read the kernel's command line",
                "CONFIG_USER_NS, and user.max_user_namespaces not 0",
            ),
        ];
        let missing = guards.into_iter().filter(|(is_there, ..)| !is_there);
        missing.map(|(_, can, needs)| format!("{can} ({needs})"))
    }

    /// An error if one is missing.
    pub fn require(&self) -> Result<()> {
        let Some(missing) = self.all_missing() else {
            return Ok(());
        };
        bail!(
            "--require-isolation: a hostile image could {missing} here: use a kernel that has what is in \
             brackets"
        )
    }

    /// Says what is missing.
    pub fn warn(&self, progress: &Progress) {
        if let Some(missing) = self.all_missing() {
            progress.warn(format!(
                "this kernel lacks guards of the sandbox: a hostile image could {missing}"
            ));
        }
    }

    fn all_missing(&self) -> Option<String> {
        let missing: Vec<_> = self.missing().collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

fn makes_user_namespaces() -> bool {
    let most = fs::read_to_string(MOST_USER_NAMESPACES).unwrap_or_default();
    most.trim().parse::<u64>().is_ok_and(|most| most > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_missing_is_told_with_what_it_needs() {
        let all = Isolation {
            device_filter: true,
            sysctl_filter: true,
            process_limit: true,
            memory_limit: true,
            seccomp_filter: true,
            mount_broker: true,
            locked_covers: true,
        };
        all.require().unwrap();
        assert_eq!(all.all_missing(), None);
        let without = Isolation {
            device_filter: false,
            memory_limit: false,
            ..all
        };
        let error = without.require().unwrap_err().to_string();
        let expected = "open all disks (CONFIG_CGROUP_BPF), take all memory (CONFIG_MEMCG)";
        assert!(error.contains(expected), "{error}");
    }
}
