//! The sandbox as an OCI runtime configuration (runtime-spec `config.md`, `config-linux.md`). No I/O.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::network::Network;
use crate::image::root::Root;

/// What the container sees below `/dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// `null`, `zero`, `random`, `tty`, `shm` and the like.
    Harmless,
    /// The kernel's devtmpfs: partitions appear in it as the kernel makes them. And the firmware's variables.
    Kernel {
        /// Whether the machine was booted by UEFI.
        efivars: bool,
    },
}

/// One command in an image's root.
#[derive(Clone, Debug)]
pub struct Sandbox<'root> {
    root: &'root Path,
    pub(super) bundle: PathBuf,
    command: &'root [String],
    /// As `KEY=VALUE`.
    environment: &'root [String],
    pub(super) devices: Devices,
    /// The network namespace behind this path; without one it is the host's, with its name resolution.
    network: Option<&'root Path>,
}

impl<'root> Sandbox<'root> {
    pub fn new(
        root: &'root Root,
        command: &'root [String],
        environment: &'root [String],
        devices: Devices,
        network: &'root Network,
    ) -> Self {
        Self {
            root: root.path(),
            bundle: root.scratch("container"),
            command,
            environment,
            devices,
            network: network.namespace(),
        }
    }
}

/// Why each capability is there; all others are dropped. Found by running bootc 1.16 with one less at a time.
const CAPABILITIES: [(Capability, &str); 8] = [
    (Capability::Chown, "files of the installed system have owners"),
    (
        Capability::DacOverride,
        "… and modes that would stop root without it",
    ),
    (Capability::Fowner, "chmod and utimes on files of other owners"),
    (
        Capability::Fsetid,
        "set-group-ID bits survive; without it they are lost, and bootc still succeeds",
    ),
    (Capability::Setfcap, "security.capability of installed files"),
    (
        Capability::SysAdmin,
        "mounts, trusted.* attributes, partition tables",
    ),
    (
        Capability::SysChroot,
        "setns to a mount namespace; chroot into the deployment for the boot loader",
    ),
    (
        Capability::Mknod,
        "tpm2-luks: cryptsetup makes the device node of the opened volume",
    ),
];

/// Kernel interfaces that no installer needs: nothing is to be seen there.
const MASKED: [&str; 6] = [
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
];
/// Kernel interfaces that may be read, not written.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// What the environment of every program has.
const DEFAULTS: [&str; 4] = [
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];
/// The kernel's limit for one string, the zero at its end included (execve(2), MAX_ARG_STRLEN).
const MAX_VARIABLE_BYTES: usize = 128 << 10;
/// The kernel's limit for arguments and environment together, with their pointers, is a quarter of the usual
/// 8 MiB of stack (execve(2)). Something is left for the arguments, and for what programs tell those that
/// they start.
const MAX_ENVIRONMENT_BYTES: usize = (2 << 20) - (256 << 10);

/// The configuration of `sandbox`.
pub(super) fn runtime_spec(sandbox: &Sandbox<'_>) -> Result<Spec> {
    build(sandbox).context("describing the container")
}

fn build(sandbox: &Sandbox<'_>) -> Result<Spec> {
    let capabilities: HashSet<_> = CAPABILITIES.iter().map(|(capability, _)| *capability).collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
        .args(sandbox.command.to_vec())
        .env(environment(sandbox.environment)?)
        .cwd("/")
        .capabilities(capabilities)
        .no_new_privileges(false)
        .rlimits(Vec::new())
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(sandbox.network)?)
        .masked_paths(MASKED.map(String::from).to_vec())
        .readonly_paths(READ_ONLY.map(String::from).to_vec())
        .build()?;
    // The default asks for a device cgroup; there are no cgroups here.
    linux.set_resources(None);
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .hostname("landfall")
        .root(
            RootBuilder::default()
                .path(sandbox.root)
                .readonly(false)
                .build()?,
        )
        .process(process)
        .mounts(mounts(sandbox)?)
        .linux(linux)
        .build()?;
    Ok(spec)
}

/// The image's environment over the defaults that every program counts on. An error if no program could be
/// run with it.
pub fn environment(image: &[String]) -> Result<Vec<String>> {
    let mut variables: Vec<(&str, &str)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for variable in DEFAULTS.iter().copied().chain(image.iter().map(String::as_str)) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        check_variable(name, value)?;
        match places.get(name) {
            Some(&place) => variables[place].1 = value,
            None => {
                places.insert(name, variables.len());
                variables.push((name, value));
            }
        }
    }
    // Some versions of bootc believe then that systemd runs them, and run skopeo as a user who can do nothing
    // here.
    variables.retain(|(name, _)| *name != "INVOCATION_ID");
    let all: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let bytes: usize = all
        .iter()
        .map(|variable| variable.len() + 1 + size_of::<usize>())
        .sum();
    ensure!(
        bytes <= MAX_ENVIRONMENT_BYTES,
        "the image's environment takes {} KiB, and the kernel allows at most {}: build the image with fewer \
         variables",
        bytes >> 10,
        MAX_ENVIRONMENT_BYTES >> 10
    );
    Ok(all)
}

/// An error for a variable that the kernel or the C library would not take.
fn check_variable(name: &str, value: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "has no name".into()
    } else if name.contains('\0') || value.contains('\0') {
        "contains a NUL byte".into()
    } else if name.len() + value.len() + 2 > MAX_VARIABLE_BYTES {
        format!(
            "is longer than the {} KiB that the kernel allows",
            MAX_VARIABLE_BYTES >> 10
        )
    } else {
        return Ok(());
    };
    let shown: String = name.escape_debug().take(64).collect();
    bail!("the variable \"{shown}\" of the image's environment {problem}: build the image without it")
}

fn namespaces(network: Option<&Path>) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Ipc, Mount, Pid, Uts};
    let private = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = [Pid, Mount, Ipc, Uts]
        .map(private)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = network {
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(path);
        namespaces.push(joined.build()?);
    }
    Ok(namespaces)
}

fn mounts(sandbox: &Sandbox<'_>) -> Result<Vec<Mount>> {
    let inert = ["nosuid", "noexec", "nodev"];
    let shared = ["nosuid", "nodev", "mode=1777"];
    let mut mounts = vec![
        mount("/proc", "proc", &inert)?,
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        // libcontainer writes into /dev: this one is thrown away, the kernel's is mounted over it later.
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=64k"],
        )?,
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755"])?,
        mount("/tmp", "tmpfs", &shared)?,
    ];
    if sandbox.devices == Devices::Harmless {
        mounts.push(mount("/dev/shm", "tmpfs", &shared)?);
    }
    if sandbox.devices == (Devices::Kernel { efivars: true }) {
        mounts.push(mount("/sys/firmware/efi/efivars", "efivarfs", &inert)?);
    }
    if sandbox.network.is_none() {
        mounts.push(mount("/etc/resolv.conf", "bind", &["bind", "ro"])?);
    }
    Ok(mounts)
}

/// What is bound comes from the same path of the host.
fn mount(destination: &str, kind: &str, options: &[&str]) -> Result<Mount> {
    let options = options.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(if kind == "bind" { destination } else { kind })
        .options(options)
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sandbox(devices: Devices, network: Option<&str>) -> serde_json::Value {
        let sandbox = Sandbox {
            root: Path::new("/store/root"),
            bundle: PathBuf::new(),
            command: &["bootc", "--version"].map(String::from),
            environment: &["PATH=/image/bin", "A=b", "INVOCATION_ID=1"].map(String::from),
            devices,
            network: network.map(Path::new),
        };
        serde_json::to_value(runtime_spec(&sandbox).unwrap()).unwrap()
    }

    #[test]
    fn nothing_of_the_host_is_in_the_sandbox() {
        let spec = sandbox(Devices::Harmless, Some("/proc/7/fd/9"));
        assert_eq!(
            spec["linux"]["namespaces"],
            json!([{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                   {"type": "network", "path": "/proc/7/fd/9"}])
        );
        for mount in spec["mounts"].as_array().unwrap() {
            assert_ne!(mount["type"], "bind", "{mount}");
        }
        assert_eq!(
            spec["process"]["env"],
            json!([
                "HOME=/root",
                "LANG=C.UTF-8",
                "TERM=dumb",
                "PATH=/image/bin",
                "A=b"
            ])
        );
        assert_eq!(spec["process"]["args"], json!(["bootc", "--version"]));
        assert_eq!(spec["root"], json!({"path": "/store/root", "readonly": false}));
    }

    #[test]
    fn capabilities_are_the_table_and_no_more() {
        let spec = sandbox(Devices::Harmless, None);
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(
                spec["process"]["capabilities"][set].as_array().unwrap().len(),
                CAPABILITIES.len()
            );
        }
        assert_eq!(spec["process"]["capabilities"]["ambient"], json!([]));
    }

    #[test]
    fn firmware_variables_only_on_a_uefi_machine_and_name_resolution_only_with_the_host_network() {
        let destinations = |spec: &serde_json::Value| {
            let mounts = spec["mounts"].as_array().unwrap();
            mounts
                .iter()
                .map(|mount| mount["destination"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let bios = sandbox(Devices::Kernel { efivars: false }, Some("/n"));
        let uefi = sandbox(Devices::Kernel { efivars: true }, None);
        assert_eq!(destinations(&bios), ["/proc", "/sys", "/dev", "/run", "/tmp"]);
        assert_eq!(
            destinations(&uefi)[5..],
            ["/sys/firmware/efi/efivars", "/etc/resolv.conf"]
        );
        assert_eq!(uefi["linux"]["namespaces"].as_array().unwrap().len(), 4);
    }
}
