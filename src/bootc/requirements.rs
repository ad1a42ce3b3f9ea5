//! What an image must contain for its bootc to succeed. bootc finds each gap late, with an obscure message,
//! after the disk was wiped; here they are all named at once, before the wipe.

use anyhow::{Result, bail};

use super::options::Options;
use super::probe::Probe;
use crate::image::rootfs::Rootfs;
use crate::machine::disk::layout::{Backend, BlockSetup};

/// Programs that every installation runs, and for what.
const PROGRAMS: [(&str, &str); 13] = [
    ("skopeo", "fetches the image for bootc"),
    ("podman", "sets up the installed system's image storage"),
    ("udevadm", "waits for partitions"),
    ("sfdisk", "partitions the disk"),
    ("lsblk", "lists partitions"),
    ("findmnt", "checks whether the disk is in use"),
    ("wipefs", "removes old signatures"),
    ("mkfs.fat", "formats the EFI system partition"),
    ("blkid", "reads partitions without udev"),
    ("mount", "mounts the new file systems"),
    ("umount", "unmounts the new file systems"),
    ("fstrim", "tells the disk which blocks are unused"),
    ("fsfreeze", "writes out file system journals"),
];
const OSTREE: (&str, &str) = ("ostree", "sets up the installed system");
const BOOTUPD: (&str, &str) = ("bootupctl", "installs the boot loader");
const BUBBLEWRAP: (&str, &str) = ("bwrap", "runs bootupctl for this version of bootc");
const BOOTUPD_UPDATES: &str = "usr/lib/bootupd/updates";
/// What bootupd has to install for UEFI.
const BOOTUPD_EFI: &str = "usr/lib/bootupd/updates/EFI.json";
const BOOTUPCTL: &str = "usr/bin/bootupctl";
const EDITENV: &str = "usr/bin/grub2-editenv";
/// No program that is looked into is larger.
const MAX_PROGRAM_BYTES: u64 = 64 << 20;
/// Where podman looks for conmon beside `PATH`, and for netavark: the defaults of containers.conf(5).
const PODMAN_CONMON: [&str; 3] = [
    "usr/libexec/podman",
    "usr/local/libexec/podman",
    "usr/local/lib/podman",
];
const PODMAN_HELPERS: [&str; 4] = [
    "usr/local/libexec/podman",
    "usr/local/lib/podman",
    "usr/libexec/podman",
    "usr/lib/podman",
];
/// What bootc does first with podman, on a storage that is gone afterwards.
pub const PODMAN_TRIAL: [&str; 6] = [
    "podman",
    "--root",
    "/tmp/landfall-podman/root",
    "--runroot",
    "/tmp/landfall-podman/run",
    "images",
];
/// What makes podman start where it may not mount: it goes on as if it had made the namespaces for that.
pub const PODMAN_ENVIRONMENT: [&str; 2] =
    ["_CONTAINERS_USERNS_CONFIGURED=done", "_CONTAINERS_ROOTLESS_UID=0"];
/// It is not looked for in that trial. Since this version podman has no other program for networks.
pub const PODMANS_NETWORK: &str = "netavark";
pub const NEEDS_NETAVARK_SINCE: u32 = 5;
/// Where podman is told of other places for its programs (containers.conf(5)).
const PODMAN_CONFIGURATION: [&str; 2] = [
    "usr/share/containers/containers.conf",
    "etc/containers/containers.conf",
];
const MAX_CONFIGURATION_BYTES: u64 = 1 << 20;
/// What podman takes when it isn't told.
const OCI_RUNTIMES: [&str; 2] = ["crun", "runc"];
const BOOTCTL: (&str, &str) = ("bootctl", "installs the boot loader");
const LUKS: [(&str, &str); 2] = [
    ("cryptsetup", "encrypts the root partition"),
    ("systemd-cryptenroll", "binds its key to the TPM"),
];
const PREPARE_ROOT: [&str; 2] = ["etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf"];

/// Checks that `root` is that of a bootable container at all.
pub fn check_bootc(root: &Rootfs) -> Result<()> {
    if root.has_program("bootc")? && root.has_program("sh")? {
        return Ok(());
    }
    bail!("the image contains no bootc, so it cannot install itself: use a bootable container image")
}

/// Checks that `root` has all that an installation with `options` on `backend` needs.
pub fn check(root: &Rootfs, options: &Options, backend: Backend, probe: &Probe) -> Result<()> {
    let mkfs = format!("mkfs.{}", probe.filesystem(options)?);
    let mut programs = PROGRAMS.to_vec();
    programs.push((&mkfs, "formats the root partition"));
    let boot_loader = boot_loader(root, probe.bootloader(options), backend)?;
    let by_bootupd = boot_loader.contains(&BOOTUPD);
    if backend == Backend::Ostree && by_bootupd && probe.needs_bubblewrap() {
        programs.push(BUBBLEWRAP);
    }
    programs.extend(boot_loader);
    if options.block_setup == BlockSetup::Tpm2Luks {
        programs.extend(LUKS);
    }
    let mut missing = Vec::new();
    for (program, purpose) in programs {
        if !root.has_program(program)? {
            missing.push(format!("{program} ({purpose})"));
        }
    }
    if by_bootupd {
        missing.extend(missing_for_bootupd(root)?);
    }
    if !root.exists(PREPARE_ROOT[0])? && !root.exists(PREPARE_ROOT[1])? {
        missing.push("/usr/lib/ostree/prepare-root.conf (says how the root is mounted)".into());
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the image cannot install itself; it lacks {}: rebuild it with these",
        missing.join(", ")
    )
}

/// Whether the boot loader will be installed by bootupd.
pub fn is_for_bootupd(root: &Rootfs, options: &Options, backend: Backend, probe: &Probe) -> Result<bool> {
    Ok(boot_loader(root, probe.bootloader(options), backend)?.contains(&BOOTUPD))
}

/// Without the boot loader for UEFI, bootupd leaves the EFI system partition empty, and that is no error to
/// it.
fn missing_for_bootupd(root: &Rootfs) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    if !root.exists(BOOTUPD_EFI)? {
        missing.push(format!(
            "/{BOOTUPD_EFI} (the boot loader that bootupctl installs: made by bootupctl backend generate-update-metadata)"
        ));
    }
    if wants_editenv(root) && !root.exists(EDITENV)? {
        missing.push(format!(
            "/{EDITENV} (makes the boot loader's environment for this bootupctl)"
        ));
    }
    Ok(missing)
}

/// Since 0.2.28, bootupd runs this program at every installation; its own file has the path in it.
fn wants_editenv(root: &Rootfs) -> bool {
    let path = format!("/{EDITENV}");
    let program = root.read(BOOTUPCTL, MAX_PROGRAM_BYTES).unwrap_or_default();
    let mut windows = program.windows(path.len());
    windows.any(|window| window == path.as_bytes())
}

/// Programs that podman does not start without and that are in none of the places where it looks for them,
/// unless it is configured otherwise or too old to need them: whether it starts must be tried.
pub fn doubted_for_podman(root: &Rootfs) -> Result<Vec<&'static str>> {
    let mut doubted = Vec::new();
    if !root.has_program("conmon")? && !is_in(root, &PODMAN_CONMON, "conmon")? {
        doubted.push("conmon");
    }
    if !root.has_program(OCI_RUNTIMES[0])? && !root.has_program(OCI_RUNTIMES[1])? {
        doubted.push("runtime");
    }
    let told = told_to_podman(root)?;
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    if !is_in(root, &PODMAN_HELPERS, PODMANS_NETWORK)? && !is_in(root, &told, PODMANS_NETWORK)? {
        doubted.push(PODMANS_NETWORK);
    }
    Ok(doubted)
}

/// The directories where podman is told to look for its programs. A file that podman does not understand
/// either names none.
fn told_to_podman(root: &Rootfs) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for file in PODMAN_CONFIGURATION {
        let mut files = vec![file.to_owned()];
        let drop_ins = format!("{file}.d");
        let names = root
            .list(&drop_ins)?
            .into_iter()
            .filter_map(|name| name.into_string().ok());
        files.extend(names.map(|name| format!("{drop_ins}/{name}")));
        for file in files {
            let text = root
                .read_if_there(&file, MAX_CONFIGURATION_BYTES)?
                .unwrap_or_default();
            told.extend(helper_directories(&String::from_utf8_lossy(&text)));
        }
    }
    Ok(told)
}

fn helper_directories(configuration: &str) -> Vec<String> {
    let parsed = configuration.parse::<toml::Table>().unwrap_or_default();
    let directories = parsed
        .get("engine")
        .and_then(|engine| engine.get("helper_binaries_dir"));
    let directories = directories.and_then(toml::Value::as_array).into_iter().flatten();
    let paths = directories.filter_map(|path| path.as_str());
    paths.map(|path| path.trim_matches('/').to_owned()).collect()
}

fn is_in(root: &Rootfs, directories: &[&str], name: &str) -> Result<bool> {
    for directory in directories {
        if root.exists(&format!("{directory}/{name}"))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without this check one would learn only at the end that no boot loader can be installed.
fn boot_loader(
    root: &Rootfs,
    chosen: Option<&str>,
    backend: Backend,
) -> Result<Vec<(&'static str, &'static str)>> {
    let has_bootupd = root.has_program(BOOTUPD.0)? && root.exists(BOOTUPD_UPDATES)?;
    Ok(match (backend, chosen) {
        (Backend::Ostree, Some("none")) => vec![OSTREE],
        (Backend::Ostree, None | Some("grub")) => vec![OSTREE, BOOTUPD],
        (Backend::Ostree, Some(other)) => {
            bail!(
                "bootc's ostree backend installs the boot loader grub or none, not {other}: choose one with --bootloader"
            )
        }
        (Backend::Composefs, Some("none")) => {
            bail!("bootc's composefs backend always installs a boot loader: choose one with --bootloader")
        }
        (Backend::Composefs, Some("systemd")) => vec![BOOTCTL],
        (Backend::Composefs, None) if !has_bootupd => vec![BOOTCTL],
        (Backend::Composefs, _) => vec![BOOTUPD],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn install(root: &Path, programs: &[&str]) {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        for program in programs {
            let path = root.join("usr/bin").join(program);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn checked(root: &Path, options: &Options, backend: Backend) -> String {
        checked_for("1.16.9", root, options, backend)
    }

    fn checked_for(version: &str, root: &Path, options: &Options, backend: Backend) -> String {
        let root = Rootfs::open(root).unwrap();
        let configuration = r#"{"root-fs-type":"ext4"}"#;
        let probe = Probe::parse([&format!("bootc {version}"), "", configuration]).unwrap();
        check(&root, options, backend, &probe)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn every_gap_is_named_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let options = Options::default();
        assert!(
            check_bootc(&Rootfs::open(root).unwrap())
                .unwrap_err()
                .to_string()
                .contains("no bootc")
        );
        let error = checked(root, &options, Backend::Ostree);
        assert!(
            error.contains("skopeo (")
                && error.contains("mkfs.ext4 (")
                && error.contains("prepare-root.conf")
        );
        assert!(!error.contains('\n'));

        install(root, &PROGRAMS.map(|(program, _)| program));
        install(root, &["mkfs.ext4"]);
        fs::create_dir_all(root.join("usr/lib/ostree")).unwrap();
        fs::write(root.join("usr/lib/ostree/prepare-root.conf"), "").unwrap();
        assert!(checked(root, &options, Backend::Ostree).contains("lacks ostree"));
        assert!(checked(root, &options, Backend::Composefs).contains("bootctl"));

        install(root, &["ostree", "bootupctl"]);
        fs::create_dir_all(root.join(BOOTUPD_UPDATES)).unwrap();
        assert!(checked(root, &options, Backend::Ostree).contains("lacks /usr/lib/bootupd/updates/EFI.json"));
        fs::write(root.join(BOOTUPD_EFI), "{}").unwrap();
        assert_eq!(checked(root, &options, Backend::Ostree), "");
        assert_eq!(checked(root, &options, Backend::Composefs), "");
        for (version, expected) in [
            ("1.12.1", ""),
            ("1.13.0", "lacks bwrap"),
            ("1.15.2", "lacks bwrap"),
            ("1.16.0", ""),
        ] {
            let error = checked_for(version, root, &options, Backend::Ostree);
            assert!(
                error.contains(expected) && error.is_empty() == expected.is_empty(),
                "{version}: {error}"
            );
        }
        let luks = Options {
            block_setup: BlockSetup::Tpm2Luks,
            ..Options::default()
        };
        assert!(checked(root, &luks, Backend::Ostree).contains("cryptsetup"));
    }

    #[test]
    fn what_this_very_bootupctl_runs_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        install(root, &["bootupctl"]);
        fs::create_dir_all(root.join(BOOTUPD_UPDATES)).unwrap();
        fs::write(root.join(BOOTUPD_EFI), "{}").unwrap();
        let missing = || missing_for_bootupd(&Rootfs::open(root).unwrap()).unwrap();
        assert_eq!(missing(), [""; 0]);
        fs::write(
            root.join(BOOTUPCTL),
            "\x7fELF ... /usr/bin/grub2-editenvgrubenv ...",
        )
        .unwrap();
        assert!(missing()[0].starts_with("/usr/bin/grub2-editenv ("));
        install(root, &["grub2-editenv"]);
        assert_eq!(missing(), [""; 0]);
    }

    #[test]
    fn podman_is_doubted_when_what_it_starts_is_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let doubted = || doubted_for_podman(&Rootfs::open(root).unwrap()).unwrap();
        assert_eq!(doubted(), ["conmon", "runtime", "netavark"]);
        install(root, &["runc", "netavark"]);
        // Programs that nobody but podman starts are not looked for in `PATH`.
        assert_eq!(doubted(), ["conmon", "netavark"]);
        let conf = root.join("etc/containers/containers.conf.d");
        fs::create_dir_all(&conf).unwrap();
        fs::write(
            conf.join("50-places.conf"),
            "[engine]\nhelper_binaries_dir = [\"/usr/bin\"]\n",
        )
        .unwrap();
        assert_eq!(doubted(), ["conmon"]);
        fs::write(
            conf.join("50-places.conf"),
            "[engine]\nhelper_binaries_dir = [\"/opt\"]\n",
        )
        .unwrap();
        assert_eq!(doubted(), ["conmon", "netavark"]);
        fs::create_dir_all(root.join("usr/libexec/podman")).unwrap();
        for name in ["conmon", "netavark"] {
            fs::write(root.join("usr/libexec/podman").join(name), "").unwrap();
        }
        assert_eq!(doubted(), [""; 0]);
    }

    #[test]
    fn the_boot_loader_is_the_users_choice_or_the_images() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        install(root, &PROGRAMS.map(|(program, _)| program));
        install(root, &["mkfs.ext4", "ostree"]);
        fs::create_dir_all(root.join("usr/lib/ostree")).unwrap();
        fs::write(root.join("usr/lib/ostree/prepare-root.conf"), "").unwrap();
        let rootfs = Rootfs::open(root).unwrap();
        let rows = [
            (Backend::Ostree, "null", "lacks bootupctl"),
            (Backend::Ostree, "\"grub\"", "lacks bootupctl"),
            (Backend::Ostree, "\"none\"", ""),
            (Backend::Ostree, "\"systemd\"", "grub or none, not systemd"),
            (Backend::Composefs, "null", "lacks bootctl"),
            (Backend::Composefs, "\"systemd\"", "lacks bootctl"),
            (Backend::Composefs, "\"grub\"", "lacks bootupctl"),
            (Backend::Composefs, "\"none\"", "always installs a boot loader"),
        ];
        for (backend, configured, expected) in rows {
            let configuration = format!(r#"{{"root-fs-type":"ext4","bootloader":{configured}}}"#);
            let probe = Probe::parse(["bootc 1.16.9", "", &configuration]).unwrap();
            let result = check(&rootfs, &Options::default(), backend, &probe);
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                error.contains(expected) && error.is_empty() == expected.is_empty(),
                "{backend:?} {configured}: {error}"
            );
        }
    }
}
