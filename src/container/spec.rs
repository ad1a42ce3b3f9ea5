//! The sandbox as an OCI runtime configuration (runtime-spec `config.md`, `config-linux.md`). No I/O.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::network::Network;
use super::power::Power;
use crate::image::root::Root;

/// One command in an image's root.
#[derive(Clone, Debug)]
pub struct Sandbox<'root> {
    root: &'root Path,
    pub(super) bundle: PathBuf,
    command: &'root [String],
    /// As `KEY=VALUE`.
    environment: &'root [String],
    pub(super) power: Power,
    /// How much memory it may use.
    pub(super) memory_bytes: u64,
    /// The network namespace behind this path; without one it is the host's, with its name resolution, for who
    /// installs, and none at all for who is asked.
    network: Option<&'root Path>,
}

impl<'root> Sandbox<'root> {
    pub fn new(
        root: &'root Root,
        command: &'root [String],
        environment: &'root [String],
        power: Power,
        network: &'root Network,
    ) -> Self {
        Self {
            root: root.path(),
            bundle: root.scratch("container"),
            command,
            environment,
            power,
            memory_bytes: root.memory_of_programs(),
            network: network.namespace(),
        }
    }

    pub(super) fn has_the_hosts_network(&self) -> bool {
        self.network.is_none() && self.power != Power::Asking
    }
}

/// Kernel interfaces that no program of an image needs: nothing is to be seen there. podman's default, and
/// what else tells of the kernel's memory or of how it was started.
const MASKED: [&str; 20] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bootconfig",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
];
/// A copy of the machine's, in the bundle: who installs could make a mount of the machine's own writable.
pub(super) const RESOLV_CONF: &str = "resolv.conf";
/// Tables of the firmware, the keys to network disks among them.
const FIRMWARE: &str = "/sys/firmware";
const EFI: &str = "/sys/firmware/efi";

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
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
        .args(sandbox.command.to_vec())
        .env(environment(sandbox.environment)?)
        .cwd("/")
        .capabilities(capabilities(&sandbox.power)?)
        .no_new_privileges(sandbox.power == Power::Asking)
        .rlimits(vec![no_core()?])
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(sandbox)?)
        .masked_paths(masked(&sandbox.power))
        .readonly_paths(Vec::new())
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

fn capabilities(power: &Power) -> Result<LinuxCapabilities> {
    let capabilities = power.capabilities();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(HashSet::new())
        .ambient(HashSet::new());
    Ok(capabilities.build()?)
}

/// With a limit of one byte the kernel neither writes a core file nor starts the program of the machine that
/// would take one; with none at all it would start that.
fn no_core() -> Result<PosixRlimit> {
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitCore);
    Ok(limit.soft(1u64).hard(1u64).build()?)
}

fn masked(power: &Power) -> Vec<String> {
    let mut masked = MASKED.map(String::from).to_vec();
    if !power.target().is_some_and(|target| target.efivars) {
        masked.push(FIRMWARE.into());
    }
    masked
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

fn namespaces(sandbox: &Sandbox<'_>) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Ipc, Mount, Pid, Uts};
    let private = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = [Pid, Mount, Ipc, Uts]
        .map(private)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = sandbox.network {
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(path);
        namespaces.push(joined.build()?);
    } else if !sandbox.has_the_hosts_network() {
        namespaces.push(private(LinuxNamespaceType::Network)?);
    }
    Ok(namespaces)
}

fn mounts(sandbox: &Sandbox<'_>) -> Result<Vec<Mount>> {
    let inert = ["nosuid", "noexec", "nodev"];
    let seen = ["nosuid", "noexec", "nodev", "ro"];
    let size = format!("size={}", sandbox.power.scratch_bytes());
    let scratch = |mode| ["nosuid", "nodev", mode, &size];
    let mut mounts = vec![
        mount("/proc", "proc", &seen)?,
        mount("/sys", "sysfs", &seen)?,
        // libcontainer writes into /dev: for who installs, this one is covered later by the kernel's.
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"],
        )?,
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        )?,
        mount("/dev/shm", "tmpfs", &scratch("mode=1777"))?,
        mount("/run", "tmpfs", &scratch("mode=755"))?,
        mount("/tmp", "tmpfs", &scratch("mode=1777"))?,
    ];
    if sandbox.power.target().is_some_and(|target| target.efivars) {
        mounts.push(mount(
            FIRMWARE,
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=755", "size=4k"],
        )?);
        let inside = ["bind", "nosuid", "noexec", "nodev", "ro"];
        mounts.push(bind(Path::new(EFI), EFI, &inside)?);
        mounts.push(mount("/sys/firmware/efi/efivars", "efivarfs", &inert)?);
    }
    if sandbox.has_the_hosts_network() {
        let copy = sandbox.bundle.join(RESOLV_CONF);
        mounts.push(bind(&copy, "/etc/resolv.conf", &["bind", "ro"])?);
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Result<Mount> {
    mount_from(Path::new(kind), destination, kind, options)
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Result<Mount> {
    mount_from(source, destination, "bind", options)
}

fn mount_from(source: &Path, destination: &str, kind: &str, options: &[&str]) -> Result<Mount> {
    let options = options.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::super::power::Target;
    use super::*;
    use serde_json::json;

    fn installing(efivars: bool) -> Power {
        Power::Installing(Target {
            disk: "/dev/vda".into(),
            efivars,
            luks: false,
        })
    }

    fn sandbox(power: Power, network: Option<&str>) -> serde_json::Value {
        let sandbox = Sandbox {
            root: Path::new("/store/root"),
            bundle: PathBuf::new(),
            command: &["bootc", "--version"].map(String::from),
            environment: &["PATH=/image/bin", "A=b", "INVOCATION_ID=1"].map(String::from),
            power,
            memory_bytes: 0,
            network: network.map(Path::new),
        };
        serde_json::to_value(runtime_spec(&sandbox).unwrap()).unwrap()
    }

    #[test]
    fn nothing_of_the_host_is_in_the_sandbox() {
        let spec = sandbox(Power::Asking, Some("/proc/7/fd/9"));
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
    fn who_is_asked_gains_nothing_and_who_installs_may_mount() {
        for (power, count, may_gain) in [(Power::Asking, 5, false), (installing(true), 8, true)] {
            let process = &sandbox(power, None)["process"];
            assert_eq!(process["noNewPrivileges"], !may_gain);
            for set in ["bounding", "effective", "permitted"] {
                assert_eq!(process["capabilities"][set].as_array().unwrap().len(), count);
            }
            for set in ["ambient", "inheritable"] {
                assert_eq!(process["capabilities"][set], json!([]));
            }
            assert_eq!(
                process["rlimits"],
                json!([{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}])
            );
        }
    }

    #[test]
    fn who_is_asked_never_has_the_hosts_network() {
        let spec = sandbox(Power::Asking, None);
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(namespaces.last(), Some(&json!({"type": "network"})));
        assert!(!spec["mounts"].to_string().contains("resolv.conf"));
    }

    #[test]
    fn what_the_kernel_shows_cannot_be_written_and_memory_is_bounded() {
        for power in [Power::Asking, installing(false)] {
            let spec = sandbox(power, None);
            for mount in spec["mounts"].as_array().unwrap() {
                let has = |option: &str| {
                    let options = mount["options"].as_array().unwrap();
                    options
                        .iter()
                        .any(|given| given.as_str().unwrap().starts_with(option))
                };
                match mount["type"].as_str().unwrap() {
                    "proc" | "sysfs" => assert!(has("ro"), "{mount}"),
                    "tmpfs" => assert!(has("size="), "{mount}"),
                    _ => {}
                }
            }
        }
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
        let bios = sandbox(installing(false), Some("/n"));
        let uefi = sandbox(installing(true), None);
        assert_eq!(
            destinations(&bios),
            ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/tmp"]
        );
        assert_eq!(
            destinations(&uefi)[7..],
            [FIRMWARE, EFI, "/sys/firmware/efi/efivars", "/etc/resolv.conf"]
        );
        let masks_firmware = |spec: &serde_json::Value| {
            spec["linux"]["maskedPaths"]
                .as_array()
                .unwrap()
                .contains(&FIRMWARE.into())
        };
        assert!(masks_firmware(&bios) && !masks_firmware(&uefi));
        assert_eq!(uefi["linux"]["namespaces"].as_array().unwrap().len(), 4);
    }
}
