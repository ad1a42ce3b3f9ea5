//! What the user asks of bootc.

use std::path::PathBuf;

use crate::machine::disk::layout::BlockSetup;

/// Options that are handed on to `bootc install to-disk`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Kernel argument of the installed system (may be repeated)
    pub kargs: Vec<String>,
    /// SSH keys that may log in as root on the installed system
    pub root_ssh_authorized_keys: Option<PathBuf>,
    /// File system of the root partition (default: as the image is configured)
    pub filesystem: Option<Filesystem>,
    /// Image that the installed system follows for updates (default: the installed one, by its tag)
    pub target_imgref: Option<String>,
    /// How the root file system is stored on the disk
    pub block_setup: BlockSetup,
    /// Boot loader to install (default: bootc decides)
    pub bootloader: Option<String>,
    /// Use bootc's composefs backend; an image with a unified kernel image always does
    pub composefs_backend: bool,
    /// Install for any machine, not for this one: no firmware variables are written
    pub generic_image: bool,
    /// What to do with images bound to this one (default: skip)
    pub bound_images: Option<BoundImages>,
    /// Install a system that runs without SELinux
    pub disable_selinux: bool,
    /// Enforce the image's own signature policy
    pub enforce_container_sigpolicy: bool,
    /// Another argument for bootc, passed unchanged (may be repeated)
    pub extra: Vec<String>,
}

/// The file systems that bootc makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
    /// Btrfs
    Btrfs,
}

/// What becomes of images that are bound to the installed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundImages {
    /// They are not installed.
    Skip,
    /// They are pulled from their registries; needs `--network host`.
    Pull,
}

impl Options {
    /// Whether the boot loader is installed for any machine.
    pub fn is_generic_image(&self) -> bool {
        self.generic_image || self.extra.iter().any(|argument| argument == "--generic-image")
    }
}

impl Filesystem {
    /// bootc's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

impl BoundImages {
    /// bootc's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pull => "pull",
        }
    }
}
