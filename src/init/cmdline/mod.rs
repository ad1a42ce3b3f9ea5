//! The kernel command line: what is to be installed where, and what happens then.
//!
//! Every key of ours is known or an error, because a typo in a boot menu must not be silently ignored on a
//! thousand machines. What is asked for becomes the arguments of `landfall install`, so that one way serves
//! both, and the configuration file counts here, too. Apart from that file nothing is looked at.

pub mod ip;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::{self, Command, Takes};
use crate::image::source::name::ImageName;
use crate::image::source::url;
use crate::request;

/// What happens after a success (`landfall.after=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Into the installed system, if the firmware's boot order agrees.
    #[default]
    Reboot,
    PowerOff,
    Shell,
    /// The machine stops with the last lines on its screen.
    Halt,
}

/// What happens after a failure (`landfall.after-failure=`). Never a reboot: it would fail again, and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterFailure {
    /// The reason stays on the screen, and the console takes a few words.
    #[default]
    Stay,
    PowerOff,
    Shell,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    pub success: After,
    pub failure: AfterFailure,
}

pub struct Installation {
    /// The arguments after the program's name: `install …`.
    pub arguments: Vec<OsString>,
    /// Where the installer looks for its configuration.
    pub configuration: PathBuf,
    /// The same, read; `None` when that makes no sense, which the installer says better.
    pub request: Option<Box<request::Install>>,
}

impl Installation {
    /// Whether anything comes from the network.
    pub fn needs_network(&self) -> bool {
        self.request.as_ref().is_none_or(|request| {
            let config_drive = request.config_drive.as_deref().and_then(Path::to_str);
            matches!(request.image.name, ImageName::Registry(_))
                || config_drive.is_some_and(|text| url::parse(text).is_some())
        })
    }
}

/// The keys that are no options of `install`: what is typed without a name, and what only a first process
/// needs.
const OWN_KEYS: [&str; 5] = ["image", "device", "after", "after-failure", "args"];

/// The last value of `landfall.KEY=`, as with the kernel's own keys.
fn last<'a>(words: &'a [String], key: &str) -> Option<&'a str> {
    let values = ours(words).filter_map(|(found, value)| value.filter(|_| found == key));
    values.last()
}

/// Our keys and their values.
fn ours(words: &[String]) -> impl Iterator<Item = (&str, Option<&str>)> {
    let ours = words.iter().filter_map(|word| word.strip_prefix("landfall."));
    ours.map(|word| match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    })
}

pub fn ending(words: &[String]) -> Result<Ending> {
    let success = match last(words, "after") {
        None => After::default(),
        Some("reboot") => After::Reboot,
        Some("poweroff") => After::PowerOff,
        Some("shell") => After::Shell,
        Some("halt") => After::Halt,
        Some(other) => bail!("landfall.after={other} is unknown: use reboot, poweroff, shell or halt"),
    };
    let failure = match last(words, "after-failure") {
        None => AfterFailure::default(),
        Some("stay") => AfterFailure::Stay,
        Some("poweroff") => AfterFailure::PowerOff,
        Some("shell") => AfterFailure::Shell,
        Some(other) => bail!("landfall.after-failure={other} is unknown: use stay, poweroff or shell"),
    };
    Ok(Ending { success, failure })
}

pub fn installation(words: &[String]) -> Result<Installation> {
    let mut arguments = vec!["install".to_owned()];
    let options = cli::install_options();
    for (key, value) in ours(words) {
        let takes = options.get(key).copied();
        if takes.is_none() && !OWN_KEYS.contains(&key) {
            let known: Vec<_> = OWN_KEYS
                .into_iter()
                .chain(options.keys().map(String::as_str))
                .collect();
            bail!(
                "landfall.{key} on the kernel command line is unknown; use landfall.{{{}}}",
                known.join(",")
            );
        }
        let added = add(&mut arguments, key, takes, value);
        added.with_context(|| format!("reading landfall.{key} on the kernel command line"))?;
    }
    let given = |key: &str| last(words, key).filter(|value| !value.is_empty());
    let required = |key: &str, example: &str| {
        given(key).map(str::to_owned).with_context(|| {
            format!("the kernel command line has no landfall.{key}: add e.g. landfall.{key}={example}")
        })
    };
    let image = required("image", "registry.lab:5000/os/web:1.4")?;
    arguments.extend(["--".to_owned(), image]);
    if given("device-hint").is_none() {
        arguments.push(required("device", "/dev/nvme0n1, or landfall.device=auto")?);
    } else {
        arguments.extend(given("device").map(str::to_owned));
    }
    Ok(Installation {
        configuration: last(words, "config").unwrap_or(cli::USUAL_CONFIGURATION).into(),
        request: request(&arguments),
        arguments: arguments.into_iter().map(OsString::from).collect(),
    })
}

fn request(arguments: &[String]) -> Option<Box<request::Install>> {
    let words = ["landfall"]
        .into_iter()
        .chain(arguments.iter().map(String::as_str));
    match cli::read(words.map(OsString::from)).ok()?.command {
        Command::Install { install, .. } => Some(Box::new(install)),
        _ => None,
    }
}

fn add(arguments: &mut Vec<String>, key: &str, takes: Option<Takes>, value: Option<&str>) -> Result<()> {
    let needed = || value.context("it needs a value: KEY=VALUE");
    match takes {
        Some(Takes::Nothing) if boolean(value)? => arguments.push(format!("--{key}")),
        Some(Takes::Nothing) => {}
        Some(Takes::Bool) => arguments.push(format!("--{key}={}", boolean(value)?)),
        Some(Takes::Value | Takes::Values) => arguments.push(format!("--{key}={}", needed()?)),
        // In the quoting of a shell.
        None if key == "args" => arguments.extend(shell_words(needed()?)?),
        // Read elsewhere.
        None => drop(needed()?),
    }
    Ok(())
}

fn boolean(value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("1" | "true" | "yes" | "on") => Ok(true),
        Some("0" | "false" | "no" | "off") => Ok(false),
        Some(other) => bail!("{other:?} is neither true nor false"),
    }
}

/// Splits at spaces outside single quotes; a backslash takes the next character as it is.
fn shell_words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if !quoted => {
                let next = chars
                    .next()
                    .context("there is nothing after the last backslash")?;
                word.get_or_insert_default().push(next);
            }
            char if char.is_whitespace() && !quoted => words.extend(word.take()),
            char => word.get_or_insert_default().push(char),
        }
    }
    if quoted {
        bail!("a single quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::Hints;
    use crate::machine::kernel::command_line::words;

    #[test]
    fn further_arguments_are_split_as_a_shell_does() {
        for (text, expected) in [
            ("", Some(&[][..])),
            (" a  b ", Some(&["a", "b"])),
            ("a 'b c'd ''", Some(&["a", "b cd", ""])),
            (r"a\ b \\ 'c\'", Some(&["a b", r"\", r"c\"])),
            ("'a", None),
            ("a\\", None),
        ] {
            assert_eq!(
                shell_words(text).ok().as_deref().map(|words| words.to_vec()),
                expected.map(|words| words.iter().map(|word| word.to_string()).collect()),
                "{text:?}"
            );
        }
    }

    fn arguments(cmdline: &str) -> Result<String> {
        let arguments = installation(&words(cmdline))?.arguments;
        Ok(arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect::<Vec<_>>()
            .join("|"))
    }

    #[test]
    fn the_command_line_becomes_an_installation() {
        for (cmdline, expected) in [
            (
                "quiet landfall.image=r/i:1 landfall.device=/dev/vda root=x",
                "install|--|r/i:1|/dev/vda",
            ),
            (
                "landfall.image=old landfall.device=/dev/vda landfall.image=r/i landfall.karg=a landfall.karg=b=c \
                 landfall.wipe landfall.tls-verify=0 landfall.config-drive=/cd.iso landfall.after=halt",
                "install|--karg=a|--karg=b=c|--wipe|--tls-verify=false|--config-drive=/cd.iso|--|r/i|/dev/vda",
            ),
            (
                "landfall.image=r/i landfall.device=/dev/vda landfall.wipe=no landfall.tls-verify=yes \
                 landfall.args=\"--filesystem xfs --karg 'a b'\" landfall.ca-cert=/ca landfall.authfile=/auth \
                 landfall.target-imgref=r/o landfall.memory-budget=3GiB",
                "install|--tls-verify=true|--filesystem|xfs|--karg|a b|--ca-cert=/ca|--authfile=/auth\
                 |--target-imgref=r/o|--memory-budget=3GiB|--|r/i|/dev/vda",
            ),
            (
                "landfall.image=r/i landfall.device=/dev/vda landfall.mirror=a.lab landfall.mirror=b.lab/c \
                 landfall.pull-secret=/s landfall.generic-image landfall.root-size=20GiB landfall.retries=9",
                "install|--mirror=a.lab|--mirror=b.lab/c|--pull-secret=/s|--generic-image|--root-size=20GiB|--retries=9\
                 |--|r/i|/dev/vda",
            ),
        ] {
            assert_eq!(arguments(cmdline).unwrap(), expected, "{cmdline}");
        }
        let [large, nvme] = ["size=>= 100", "tran=nvme"].map(|hint| hint.parse::<Hints>().unwrap());
        for (cmdline, path, hints) in [
            ("landfall.device=/dev/vdb", Some("/dev/vdb"), vec![]),
            (
                "landfall.device=auto landfall.device-hint=tran=nvme",
                None,
                vec![nvme.clone()],
            ),
            (
                "\"landfall.device-hint=size=>= 100\" landfall.device-hint=tran=nvme",
                None,
                vec![large, nvme],
            ),
        ] {
            let words = words(&format!("landfall.image=lab:5000/i {cmdline}"));
            let request = installation(&words).unwrap().request.unwrap();
            let expected = (path.map(Path::new), hints.into());
            assert_eq!((request.disk(), request.hints.clone()), expected, "{cmdline}");
        }
    }

    #[test]
    fn a_stick_alone_needs_no_network() {
        for (cmdline, expected) in [
            ("landfall.image=r.lab/i", true),
            ("landfall.image=oci://r.lab/i", true),
            ("landfall.image=oci:LABEL=STICK/os", false),
            (
                "landfall.image=oci-archive:/os.tar landfall.config-drive=/cd.iso",
                false,
            ),
            (
                "landfall.image=oci:LABEL=STICK/os landfall.config-drive=http://r.lab/cd",
                true,
            ),
        ] {
            let words = words(&format!("{cmdline} landfall.device=/dev/vda"));
            assert_eq!(
                installation(&words).unwrap().needs_network(),
                expected,
                "{cmdline}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for (cmdline, message) in [
            (
                "",
                "the kernel command line has no landfall.image: add e.g. landfall.image=registry.lab:5000/os/web:1.4",
            ),
            (
                "landfall.image=a landfall.device=",
                "the kernel command line has no landfall.device: add e.g. landfall.device=/dev/nvme0n1, or \
                 landfall.device=auto",
            ),
            (
                "landfall.image",
                "reading landfall.image on the kernel command line: it needs a value: KEY=VALUE",
            ),
            (
                "landfall.wipe=maybe",
                "reading landfall.wipe on the kernel command line: \"maybe\" is neither true nor false",
            ),
            (
                "landfall.karg",
                "reading landfall.karg on the kernel command line: it needs a value: KEY=VALUE",
            ),
            (
                "landfall.args='x",
                "reading landfall.args on the kernel command line: a single quote is not closed",
            ),
            (
                "landfall.img=a",
                "landfall.img on the kernel command line is unknown; use landfall.{image,device,after,after-failure,\
                 args,authfile,block-setup,boot-entry,bootc-arg,bootloader,bound-images,ca-cert,clear-stale-config-drives,\
                 composefs-backend,config,config-drive,device-hint,disable-selinux,enforce-container-sigpolicy,filesystem,\
                 generic-image,karg,keep-on-failure,memory-budget,mirror,network,platform,policy,progress,pull-secret,\
                 registries-conf,report,require-isolation,retries,root-size,root-ssh-authorized-keys,target-imgref,tls-verify,wipe,yes}",
            ),
        ] {
            assert_eq!(
                format!("{:#}", arguments(cmdline).unwrap_err()),
                message,
                "{cmdline}"
            );
        }
    }

    #[test]
    fn endings() {
        for (cmdline, success, failure) in [
            ("", After::Reboot, AfterFailure::Stay),
            ("landfall.after=poweroff", After::PowerOff, AfterFailure::Stay),
            (
                "landfall.after=halt landfall.after-failure=poweroff",
                After::Halt,
                AfterFailure::PowerOff,
            ),
            (
                "landfall.after=shell landfall.after-failure=shell",
                After::Shell,
                AfterFailure::Shell,
            ),
            (
                "landfall.after=halt landfall.after=reboot landfall.after-failure=stay",
                After::Reboot,
                AfterFailure::Stay,
            ),
        ] {
            assert_eq!(
                ending(&words(cmdline)).unwrap(),
                Ending { success, failure },
                "{cmdline}"
            );
        }
        for cmdline in ["landfall.after=restart", "landfall.after-failure=reboot"] {
            assert!(ending(&words(cmdline)).is_err(), "{cmdline}");
        }
    }
}
