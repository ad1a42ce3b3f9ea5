//! What the user asks of bootc.

use std::path::PathBuf;

use crate::machine::disk::layout::{Backend, BlockSetup};

/// Options that are handed on to `bootc install to-disk`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub kargs: Vec<String>,
    pub root_ssh_authorized_keys: Option<PathBuf>,
    pub filesystem: Option<Filesystem>,
    pub target_imgref: Option<String>,
    pub block_setup: BlockSetup,
    pub bootloader: Option<String>,
    pub composefs_backend: bool,
    pub generic_image: bool,
    pub bound_images: Option<BoundImages>,
    pub disable_selinux: bool,
    pub enforce_container_sigpolicy: bool,
    /// Arguments that are passed unchanged.
    pub extra: Vec<String>,
}

/// The file systems that bootc makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
}

/// What becomes of images that are bound to the installed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundImages {
    Skip,
    /// They are pulled from their registries; needs `--network host`.
    Pull,
}

impl Options {
    /// bootc's backend for an image that boots a unified kernel image, or doesn't.
    pub fn backend(&self, has_uki: bool) -> Backend {
        if self.composefs_backend || has_uki {
            Backend::Composefs
        } else {
            Backend::Ostree
        }
    }

    /// Whether the boot loader is installed for any machine.
    pub fn is_generic_image(&self) -> bool {
        self.generic_image || self.extra.iter().any(|argument| argument == "--generic-image")
    }
}

impl Filesystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

impl BoundImages {
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pull => "pull",
        }
    }
}
