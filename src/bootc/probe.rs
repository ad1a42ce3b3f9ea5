//! What the image's bootc says of itself: version, options, configuration. Three harmless commands, parsed
//! here.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::options::Options;
use crate::console::text::shortened;
use crate::machine::disk::layout::BlockSetup;

/// What is asked, in this order.
pub const QUESTIONS: [&[&str]; 3] = [
    &["bootc", "--version"],
    &["bootc", "install", "to-disk", "--help"],
    &["bootc", "install", "print-configuration"],
];

/// Versions that take the types of partitions from udev's database alone.
const NEEDS_UDEV: RangeInclusive<[u32; 3]> = [1, 14, 0]..=[1, 15, 1];

/// Versions that run bootupd in bubblewrap (`bwrap`).
const NEEDS_BUBBLEWRAP: RangeInclusive<[u32; 3]> = [1, 13, 0]..=[1, 15, 2];

/// The answers.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The version, e.g. `1.16.9`.
    pub version: String,
    options: BTreeSet<String>,
    configuration: Configuration,
}

/// The keys of the install configuration that matter here. Others come and go with bootc's versions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration {
    root_fs_type: Option<String>,
    filesystem: Option<FilesystemTable>,
    block: Option<Vec<String>>,
    bootloader: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct FilesystemTable {
    root: Option<RootFilesystem>,
}

#[derive(Clone, Debug, Deserialize)]
struct RootFilesystem {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Probe {
    /// Reads the answers to [`QUESTIONS`].
    pub fn parse([version, help, configuration]: [&str; 3]) -> Result<Self> {
        let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let number = version.split_whitespace().find(is_number);
        let unexpected = |question: &str, answer: &str| {
            format!("unexpected output of {question}: {:?}", shortened(answer.trim()))
        };
        let number = number.with_context(|| unexpected("bootc --version", version))?;
        let configuration = serde_json::from_str(configuration.trim())
            .with_context(|| unexpected("bootc install print-configuration", configuration))?;
        Ok(Self {
            version: number.into(),
            options: options_in(help),
            configuration,
        })
    }

    /// Whether this bootc has the option `name` (with its dashes).
    pub fn has(&self, name: &str) -> bool {
        self.options.contains(name)
    }

    /// Checks that this version can install where there is no udev: some can't, and notice it after the wipe
    /// ("root partition 3 has type <none>").
    pub fn check_version(&self) -> Result<()> {
        if NEEDS_UDEV.contains(&self.numbers()) {
            bail!(
                "the image's bootc {} needs udev's database, which the sandbox does not have: update bootc in the image \
                 to 1.15.2 or newer",
                self.version
            );
        }
        Ok(())
    }

    /// Whether this version runs bootupd in bubblewrap, with the ostree backend.
    pub fn needs_bubblewrap(&self) -> bool {
        NEEDS_BUBBLEWRAP.contains(&self.numbers())
    }

    /// Whether this version mounts the installed image from a file, with the composefs backend. Older ones
    /// use loop devices.
    pub fn mounts_erofs_files(&self) -> bool {
        self.numbers() >= [1, 16, 0]
    }

    fn numbers(&self) -> [u32; 3] {
        let numbers = self.version.split('.');
        let mut numbers = numbers.map(|number| number.parse().unwrap_or(0));
        std::array::from_fn(|_| numbers.next().unwrap_or(0))
    }

    /// The root partition's file system: the user's choice or the image's.
    pub fn filesystem(&self, options: &Options) -> Result<String> {
        let configuration = self.configuration.clone();
        let table = configuration.filesystem.and_then(|table| table.root?.kind);
        let chosen = options.filesystem.map(|chosen| chosen.name().to_owned());
        let kind = chosen.or(table).or(configuration.root_fs_type);
        kind.context("the image does not configure a root file system: choose one with --filesystem")
    }

    /// The boot loader: the user's choice or the image's. Without either, bootc decides.
    pub fn bootloader<'a>(&'a self, options: &'a Options) -> Option<&'a str> {
        let chosen = options.bootloader.as_deref();
        chosen.or(self.configuration.bootloader.as_deref())
    }

    /// Checks that the image allows the block setup. An image without an install configuration, which has no
    /// list, allows all.
    pub fn check_block_setup(&self, setup: BlockSetup) -> Result<()> {
        let Some(allowed) = &self.configuration.block else {
            return Ok(());
        };
        if allowed.iter().any(|name| name == setup.name()) {
            return Ok(());
        }
        bail!(
            "the image allows block setup {}, not {}: choose one with --block-setup, or allow it in the image's \
             /usr/lib/bootc/install/*.toml",
            allowed.join(" or "),
            setup.name()
        )
    }
}

/// The long options that a help text of clap lists.
fn options_in(help: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split(|c: char| !is_name(c)))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(Into::into)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootc::options::Filesystem;

    const HELP: &str = "Install to the target block device\n\nUsage: bootc install to-disk [OPTIONS] <DEVICE>\n\n\
        Options:\n      --wipe\n          Automatically wipe, see also --force\n  -h, --help  Print help\n\
        \x20     --root-size <ROOT_SIZE>\n";

    fn probe(configuration: &str) -> Probe {
        Probe::parse(["bootc 1.16.9 (of a vendor)\n", HELP, configuration]).unwrap()
    }

    #[test]
    fn options_are_those_of_the_list() {
        let probe = probe("{}");
        assert_eq!(probe.version, "1.16.9");
        assert!(probe.has("--wipe") && probe.has("--root-size") && probe.has("--help"));
        assert!(!probe.has("--force"));
    }

    #[test]
    fn file_system_of_the_user_then_of_the_image() {
        let none = probe("{}");
        assert!(
            none.filesystem(&Options::default())
                .unwrap_err()
                .to_string()
                .contains("--filesystem")
        );
        let image =
            probe(r#"{"filesystem":{"root":{"type":"xfs"}},"root-fs-type":null,"block":["direct"],"new":1}"#);
        assert_eq!(image.filesystem(&Options::default()).unwrap(), "xfs");
        let chosen = Options {
            filesystem: Some(Filesystem::Btrfs),
            ..Options::default()
        };
        assert_eq!(image.filesystem(&chosen).unwrap(), "btrfs");
        assert_eq!(
            probe(r#"{"root-fs-type":"ext4"}"#)
                .filesystem(&Options::default())
                .unwrap(),
            "ext4"
        );
    }

    #[test]
    fn block_setups_that_the_image_does_not_allow_are_refused() {
        probe("{}").check_block_setup(BlockSetup::Tpm2Luks).unwrap();
        let direct = probe(r#"{"block":["direct"]}"#);
        direct.check_block_setup(BlockSetup::Direct).unwrap();
        let error = direct
            .check_block_setup(BlockSetup::Tpm2Luks)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("allows block setup direct, not tpm2-luks"),
            "{error}"
        );
        probe(r#"{"block":["direct","tpm2-luks"]}"#)
            .check_block_setup(BlockSetup::Tpm2Luks)
            .unwrap();
    }

    #[test]
    fn versions_that_cannot_do_without_udev_are_refused() {
        for (version, works) in [
            ("1.1.3", true),
            ("1.13.0", true),
            ("1.14.0", false),
            ("1.15.1", false),
            ("1.15.2", true),
            ("1.16", true),
        ] {
            let probe = Probe::parse([version, HELP, "{}"]).unwrap();
            assert_eq!(probe.check_version().is_ok(), works, "{version}");
        }
    }

    #[test]
    fn boot_loader_of_the_user_then_of_the_image() {
        let image = probe(r#"{"bootloader":"systemd"}"#);
        assert_eq!(image.bootloader(&Options::default()), Some("systemd"));
        let none = Options {
            bootloader: Some("none".into()),
            ..Options::default()
        };
        assert_eq!(image.bootloader(&none), Some("none"));
        assert_eq!(probe("{}").bootloader(&Options::default()), None);
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        assert!(Probe::parse(["bootc", HELP, "{}"]).is_err());
        assert!(Probe::parse(["bootc 1.1.0", HELP, "nonsense"]).is_err());
    }
}
