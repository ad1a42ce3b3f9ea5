//! The sandbox as an OCI runtime configuration (runtime-spec `config.md`, `config-linux.md`). No I/O.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

/// What the container sees below `/dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// `null`, `zero`, `random`, `tty` and the like.
    Harmless,
    /// The kernel's devtmpfs: partitions appear in it as the kernel makes them. And the firmware's variables.
    Kernel {
        /// Whether the machine was booted by UEFI.
        efivars: bool,
    },
}

/// What the container can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The network namespace behind this path, which holds nothing but `lo`.
    Namespace(PathBuf),
    /// The host's network, with its name resolution.
    Host,
}

/// One command in an image's root.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The mounted root.
    pub root: PathBuf,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The environment, as `KEY=VALUE`.
    pub environment: Vec<String>,
    /// What is in `/dev`.
    pub devices: Devices,
    /// What can be reached.
    pub network: Network,
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

/// The configuration of `sandbox`.
pub fn runtime_spec(sandbox: &Sandbox) -> Result<Spec> {
    build(sandbox).context("describing the container")
}

fn build(sandbox: &Sandbox) -> Result<Spec> {
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
        .args(sandbox.command.clone())
        .env(environment(&sandbox.environment))
        .cwd("/")
        .capabilities(capabilities)
        .no_new_privileges(false)
        .rlimits(Vec::new())
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(&sandbox.network)?)
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
                .path(&sandbox.root)
                .readonly(false)
                .build()?,
        )
        .process(process)
        .mounts(mounts(sandbox)?)
        .linux(linux)
        .build()?;
    Ok(spec)
}

/// The image's environment over the defaults that every program counts on.
fn environment(image: &[String]) -> Vec<String> {
    let defaults = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LANG=C.UTF-8",
        "TERM=dumb",
    ];
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    // Some versions of bootc believe then that systemd runs them, and run skopeo as a user who can do nothing here.
    let image: Vec<_> = image
        .iter()
        .filter(|variable| key(variable) != "INVOCATION_ID")
        .cloned()
        .collect();
    let given: HashSet<_> = image.iter().map(|variable| key(variable)).collect();
    let missing = defaults
        .iter()
        .filter(|variable| !given.contains(&key(variable)))
        .map(ToString::to_string);
    missing.chain(image.clone()).collect()
}

fn namespaces(network: &Network) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Ipc, Mount, Pid, Uts};
    let private = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = [Pid, Mount, Ipc, Uts]
        .map(private)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    if let Network::Namespace(path) = network {
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(path);
        namespaces.push(joined.build()?);
    }
    Ok(namespaces)
}

fn mounts(sandbox: &Sandbox) -> Result<Vec<Mount>> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        // libcontainer writes into /dev: this one is thrown away, the kernel's is mounted over it later.
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=64k"],
        )?,
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755"])?,
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"])?,
    ];
    if sandbox.devices == (Devices::Kernel { efivars: true }) {
        mounts.push(mount(
            "/sys/firmware/efi/efivars",
            "efivarfs",
            "efivarfs",
            &["nosuid", "noexec", "nodev"],
        )?);
    }
    if sandbox.network == Network::Host {
        mounts.push(mount(
            "/etc/resolv.conf",
            "bind",
            "/etc/resolv.conf",
            &["bind", "ro"],
        )?);
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount> {
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
    use super::*;
    use serde_json::json;

    fn sandbox(devices: Devices, network: Network) -> serde_json::Value {
        let sandbox = Sandbox {
            root: "/store/root".into(),
            command: vec!["bootc".into(), "--version".into()],
            environment: vec!["PATH=/image/bin".into(), "A=b".into(), "INVOCATION_ID=1".into()],
            devices,
            network,
        };
        serde_json::to_value(runtime_spec(&sandbox).unwrap()).unwrap()
    }

    #[test]
    fn nothing_of_the_host_is_in_the_sandbox() {
        let spec = sandbox(Devices::Harmless, Network::Namespace("/proc/7/fd/9".into()));
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
        let spec = sandbox(Devices::Harmless, Network::Host);
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
        let bios = sandbox(
            Devices::Kernel { efivars: false },
            Network::Namespace("/n".into()),
        );
        let uefi = sandbox(Devices::Kernel { efivars: true }, Network::Host);
        assert_eq!(destinations(&bios), ["/proc", "/sys", "/dev", "/run", "/tmp"]);
        assert_eq!(
            destinations(&uefi)[5..],
            ["/sys/firmware/efi/efivars", "/etc/resolv.conf"]
        );
        assert_eq!(uefi["linux"]["namespaces"].as_array().unwrap().len(), 4);
    }
}
