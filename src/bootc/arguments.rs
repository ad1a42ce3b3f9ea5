//! The command line of `bootc install to-disk`.

use anyhow::{Result, bail};

use super::options::{BoundImages, Options};
use super::probe::Probe;
use super::uki::Uki;
use crate::machine::disk::layout::Backend;

/// Where the SSH keys lie in the sandbox, relative to its root.
pub const SSH_KEYS_PATH: &str = "etc/landfall/root-ssh-authorized-keys";

const COMMAND: [&str; 3] = ["bootc", "install", "to-disk"];

/// What is decided for the user.
#[derive(Clone, Debug)]
pub struct Installation<'a> {
    /// The disk, by the kernel's name for it.
    pub device: &'a str,
    /// `REGISTRY/REPOSITORY@DIGEST`: skopeo refuses a tag and a digest together.
    pub source: &'a str,
    /// The image that the installed system follows.
    pub target: &'a str,
    pub root_size_mib: u64,
    pub wipe: bool,
    pub backend: Backend,
    pub uki: Option<&'a Uki>,
    pub has_bound_images: bool,
}

/// The command that installs the image, or why its bootc cannot do what was asked.
pub fn to_disk(installation: &Installation<'_>, options: &Options, probe: &Probe) -> Result<Vec<String>> {
    if let Some(uki) = installation.uki {
        check_uki(uki, options, &probe.filesystem(options)?)?;
    }
    let asks_for_help = |argument: &&String| matches!(argument.as_str(), "--help" | "-h");
    if let Some(help) = options.extra.iter().find(asks_for_help) {
        bail!("bootc would show its help and install nothing: leave out --bootc-arg {help}");
    }
    let arguments = arguments(installation, options, probe);
    let own = &arguments[COMMAND.len() + options.extra.len()..arguments.len() - 1];
    let names = own.iter().filter(|argument| argument.starts_with("--"));
    let mut names = names.map(|argument| name_of(argument));
    if let Some(unknown) = names.find(|name| !probe.has(name)) {
        bail!(
            "the image's bootc {} does not know {unknown}: leave it out or update the image",
            probe.version
        );
    }
    Ok(arguments)
}

/// The command as a question: bootc reads all of its arguments, then a request for help at their end. So it
/// says what it would refuse, also of options that its help doesn't list, and does nothing.
pub fn rehearsal(command: &[String]) -> Vec<String> {
    command.iter().cloned().chain(["--help".into()]).collect()
}

/// The command, started by a shell: bootc 1.1.0 and 1.1.2 refuse to be the first process of a PID namespace,
/// and the shell reaps what others leave.
pub fn in_shell(command: &[String]) -> Vec<String> {
    ["sh", "-c", "\"$@\"; exit $?", "sh"]
        .map(String::from)
        .into_iter()
        .chain(command.iter().cloned())
        .collect()
}

fn arguments(installation: &Installation<'_>, options: &Options, probe: &Probe) -> Vec<String> {
    let mut arguments: Vec<String> = COMMAND.map(String::from).into();
    // Before options of ours, so that one whose value was forgotten doesn't take the disk for it.
    arguments.extend(options.extra.iter().cloned());
    let mut option = |name: &str, value: Option<&str>| {
        arguments.push(value.map_or_else(|| name.into(), |value| format!("{name}={value}")));
    };
    let source = format!("docker://{}", installation.source);
    option("--source-imgref", Some(&source));
    option("--target-imgref", Some(installation.target));
    // Hidden or gone where it is the default: 1.1.7 and later.
    if probe.has("--skip-fetch-check") {
        option("--skip-fetch-check", None);
    }
    if installation.wipe {
        option("--wipe", None);
    }
    option("--root-size", Some(&format!("{}M", installation.root_size_mib)));
    // Else bootc takes the first that the image allows, which may be another.
    option("--block-setup", Some(options.block_setup.name()));
    if let Some(filesystem) = options.filesystem {
        option("--filesystem", Some(filesystem.name()));
    }
    if options.root_ssh_authorized_keys.is_some() {
        option("--root-ssh-authorized-keys", Some(&format!("/{SSH_KEYS_PATH}")));
    }
    if let Some(bootloader) = &options.bootloader {
        option("--bootloader", Some(bootloader));
    }
    if installation.backend == Backend::Composefs {
        option("--composefs-backend", None);
        if installation.uki.is_some_and(Uki::verity_is_optional) {
            option("--allow-missing-verity", None);
        }
    }
    for (asked, name) in [
        (options.generic_image, "--generic-image"),
        (options.disable_selinux, "--disable-selinux"),
        (
            options.enforce_container_sigpolicy,
            "--enforce-container-sigpolicy",
        ),
    ] {
        if asked {
            option(name, None);
        }
    }
    let skip = installation.has_bound_images.then_some(BoundImages::Skip);
    if let Some(bound) = options.bound_images.or(skip) {
        option("--bound-images", Some(bound.name()));
    }
    for karg in &options.kargs {
        option("--karg", Some(karg));
    }
    arguments.push(installation.device.into());
    arguments
}

/// bootc notices only at the end that a signed command line cannot be added to, and with a source not at all
/// that the system cannot boot from such a file system.
fn check_uki(uki: &Uki, options: &Options, filesystem: &str) -> Result<()> {
    if !options.kargs.is_empty() {
        bail!(
            "the image boots the unified kernel image /{}, whose command line cannot be changed: leave out --karg",
            uki.path
        )
    }
    if !uki.verity_is_optional() && filesystem == "xfs" {
        bail!(
            "the image boots the unified kernel image /{}, which needs fs-verity, and XFS has none: choose \
             another file system with --filesystem",
            uki.path
        )
    }
    Ok(())
}

fn name_of(argument: &str) -> &str {
    argument.split('=').next().unwrap_or(argument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootc::options::Filesystem;

    const SOURCE: &str = "reg.lab:5000/os/web@sha256:00";

    fn installation() -> Installation<'static> {
        Installation {
            device: "/dev/vda",
            source: SOURCE,
            target: "reg.lab:5000/os/web:1",
            root_size_mib: 4000,
            wipe: false,
            backend: Backend::Ostree,
            uki: None,
            has_bound_images: false,
        }
    }

    fn probe(options: &str) -> Probe {
        let help: String = options.split(' ').map(|option| format!("  {option}\n")).collect();
        Probe::parse(["bootc 1.4.0", &help, r#"{"root-fs-type":"ext4"}"#]).unwrap()
    }

    const COMMON: &str = "--source-imgref --target-imgref --root-size --block-setup --karg --filesystem --wipe --skip-fetch-check";

    #[test]
    fn the_plain_command() {
        let command = to_disk(&installation(), &Options::default(), &probe(COMMON)).unwrap();
        assert_eq!(
            command.join(" "),
            "bootc install to-disk --source-imgref=docker://reg.lab:5000/os/web@sha256:00 \
             --target-imgref=reg.lab:5000/os/web:1 --skip-fetch-check --root-size=4000M --block-setup=direct /dev/vda"
        );
        assert_eq!(
            in_shell(&command)[..5],
            ["sh", "-c", "\"$@\"; exit $?", "sh", "bootc"]
        );
    }

    #[test]
    fn what_the_user_asks_is_handed_on() {
        let options = Options {
            kargs: vec!["console=ttyS0".into(), "quiet".into()],
            filesystem: Some(Filesystem::Xfs),
            extra: vec!["--new-option".into(), "7".into()],
            ..Options::default()
        };
        let command = to_disk(
            &Installation {
                wipe: true,
                ..installation()
            },
            &options,
            &probe(COMMON),
        )
        .unwrap();
        assert_eq!(command[3..5], ["--new-option", "7"]);
        assert_eq!(
            command[7..].join(" "),
            "--skip-fetch-check --wipe --root-size=4000M --block-setup=direct --filesystem=xfs --karg=console=ttyS0 \
             --karg=quiet /dev/vda"
        );
    }

    #[test]
    fn nobody_asks_for_help_instead_of_an_installation() {
        let options = Options {
            extra: vec!["--help".into()],
            ..Options::default()
        };
        let error = to_disk(&installation(), &options, &probe(COMMON)).unwrap_err();
        assert!(
            error.to_string().contains("leave out --bootc-arg --help"),
            "{error}"
        );
    }

    #[test]
    fn a_rehearsal_asks_for_help_at_the_end() {
        let command = to_disk(&installation(), &Options::default(), &probe(COMMON)).unwrap();
        assert!(
            rehearsal(&command)
                .join(" ")
                .ends_with("--block-setup=direct /dev/vda --help")
        );
    }

    #[test]
    fn an_option_that_this_bootc_lacks_is_refused_by_name() {
        let composefs = Installation {
            backend: Backend::Composefs,
            ..installation()
        };
        let error = to_disk(&composefs, &Options::default(), &probe(COMMON))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the image's bootc 1.4.0 does not know --composefs-backend: leave it out or update the image"
        );
        let bound = Installation {
            has_bound_images: true,
            ..installation()
        };
        let known = probe(&format!("{COMMON} --bound-images"));
        assert!(
            to_disk(&bound, &Options::default(), &known)
                .unwrap()
                .contains(&"--bound-images=skip".into())
        );
    }

    #[test]
    fn a_unified_kernel_image_takes_no_kernel_arguments() {
        let uki = Uki {
            path: "boot/EFI/Linux/6.1.efi".into(),
            command_line: "rw composefs=?00".into(),
        };
        let installation = Installation {
            uki: Some(&uki),
            backend: Backend::Composefs,
            ..installation()
        };
        let known = probe(&format!("{COMMON} --composefs-backend --allow-missing-verity"));
        let command = to_disk(&installation, &Options::default(), &known).unwrap();
        assert!(command.contains(&"--allow-missing-verity".into()));
        let kargs = Options {
            kargs: vec!["quiet".into()],
            ..Options::default()
        };
        assert!(
            to_disk(&installation, &kargs, &known)
                .unwrap_err()
                .to_string()
                .contains("leave out --karg")
        );
    }

    #[test]
    fn a_sealed_unified_kernel_image_wants_fs_verity() {
        let refused = |command_line: &str| {
            let uki = Uki {
                path: "boot/EFI/Linux/6.1.efi".into(),
                command_line: command_line.into(),
            };
            let installation = Installation {
                uki: Some(&uki),
                backend: Backend::Composefs,
                ..installation()
            };
            let xfs = Options {
                filesystem: Some(Filesystem::Xfs),
                ..Options::default()
            };
            let known = probe(&format!("{COMMON} --composefs-backend --allow-missing-verity"));
            to_disk(&installation, &xfs, &known)
                .err()
                .map(|error| error.to_string())
        };
        assert!(refused("rw composefs=00").unwrap().contains("XFS has none"));
        assert_eq!(refused("rw composefs=?00"), None);
    }
}
