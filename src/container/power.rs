//! The two grades of power that a program of the image may have. All that the container, its filters and its
//! control group differ in follows from them.

use std::collections::HashSet;
use std::path::PathBuf;

use libc::sock_filter;
use oci_spec::runtime::Capability;
use serde::{Deserialize, Serialize};

use super::filter::{self, Broker};
use crate::image::memory::INSTALL_BYTES;

/// What a program of the image may do to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Nothing: it answers, and sees no device of the machine.
    Asking,
    /// Install the image on one disk.
    Installing(Target),
}

/// What an installation may write to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The disk's node, e.g. `/dev/nvme0n1`.
    pub disk: PathBuf,
    /// Whether the firmware's variables are there to be written.
    pub efivars: bool,
    /// Whether the disk is encrypted, with a key in the TPM.
    pub luks: bool,
}

/// Which grade has a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    Both,
    Installing,
}

/// Who has each capability, and why; nobody has any other. For who installs, found by running bootc 1.16 with
/// one less at a time. Who is asked has less than podman gives by default.
const CAPABILITIES: [(Capability, Has, &str); 8] = [
    (
        Capability::Chown,
        Has::Both,
        "files of the installed system have owners",
    ),
    (
        Capability::DacOverride,
        Has::Both,
        "… and modes that would stop root without it",
    ),
    (
        Capability::Fowner,
        Has::Both,
        "chmod and utimes on files of other owners",
    ),
    (
        Capability::Fsetid,
        Has::Both,
        "set-group-ID bits survive; without it they are lost, and bootc still succeeds",
    ),
    (
        Capability::Setfcap,
        Has::Both,
        "security.capability of installed files",
    ),
    (
        Capability::SysAdmin,
        Has::Installing,
        "mounts, trusted.* attributes, partition tables",
    ),
    (
        Capability::SysChroot,
        Has::Installing,
        "setns to a mount namespace; chroot into the deployment for the boot loader",
    ),
    (
        Capability::Mknod,
        Has::Installing,
        "tpm2-luks: cryptsetup makes the device node of the opened volume",
    ),
];

/// How large each file system in memory may grow for who is asked.
const ASKING_BYTES: u64 = 64 << 20;

impl Power {
    pub(super) fn capabilities(&self) -> HashSet<Capability> {
        let has = |who| who == Has::Both || *self != Self::Asking;
        let rows = CAPABILITIES.iter().filter(|(_, who, _)| has(*who));
        rows.map(|(capability, ..)| *capability).collect()
    }

    /// The filter of its system calls.
    pub(super) fn filter(&self, broker: Broker) -> Vec<sock_filter> {
        match self {
            Self::Asking => filter::asking(),
            Self::Installing(target) => filter::installing(target.luks, broker),
        }
    }

    /// How large each of its file systems in memory may grow, in bytes. An installer has all that is kept
    /// for it.
    pub(super) fn scratch_bytes(&self) -> u64 {
        match self {
            Self::Asking => ASKING_BYTES,
            Self::Installing(_) => INSTALL_BYTES,
        }
    }

    /// What it may write to.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Asking => None,
            Self::Installing(target) => Some(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What podman gives by default (containers-common, `containers.conf`).
    const PODMANS: [&str; 11] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];

    #[test]
    fn capabilities_are_these_and_no_more() {
        let table = CAPABILITIES.map(|(capability, who, _)| format!("{who:?}: {capability}"));
        let expected = [
            "Both: CHOWN",
            "Both: DAC_OVERRIDE",
            "Both: FOWNER",
            "Both: FSETID",
            "Both: SETFCAP",
            "Installing: SYS_ADMIN",
            "Installing: SYS_CHROOT",
            "Installing: MKNOD",
        ];
        assert_eq!(table, expected);
        for capability in Power::Asking.capabilities() {
            assert!(PODMANS.contains(&capability.to_string().as_str()), "{capability}");
        }
    }
}
