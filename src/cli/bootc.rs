//! Options for the image's bootc.

use std::path::PathBuf;

use super::macros::{arguments, words};
use crate::bootc::Options;
use crate::bootc::options::{BoundImages, Filesystem};
use crate::machine::disk::layout::BlockSetup;

arguments! {
    #[command(next_help_heading = "Options for the image's bootc")]
    Options {
        /// Kernel argument of the installed system (may be repeated)
        #[arg(long = "karg", value_name = "ARG")]
        kargs: Vec<String>,
        /// SSH keys that may log in as root on the installed system
        #[arg(long, value_name = "FILE")]
        root_ssh_authorized_keys: Option<PathBuf>,
        /// File system of the root partition (default: as the image is configured)
        #[arg(long, value_name = "TYPE")]
        filesystem: Option<Filesystem>,
        /// Image that the installed system follows for updates (default: the installed one, by its tag)
        #[arg(long, value_name = "IMAGE")]
        target_imgref: Option<String>,
        /// How the root file system is stored on the disk
        #[arg(long, value_name = "SETUP", default_value = "direct")]
        block_setup: BlockSetup,
        /// Boot loader to install (default: bootc decides)
        #[arg(long, value_name = "NAME")]
        bootloader: Option<String>,
        /// Use bootc's composefs backend; an image with a unified kernel image always does
        #[arg(long)]
        composefs_backend: bool,
        /// Install for any machine, not for this one: no firmware variables are written
        #[arg(long)]
        generic_image: bool,
        /// What to do with images bound to this one (default: skip)
        #[arg(long, value_name = "HOW")]
        bound_images: Option<BoundImages>,
        /// Install a system that runs without SELinux
        #[arg(long)]
        disable_selinux: bool,
        /// Enforce the image's own signature policy
        #[arg(long)]
        enforce_container_sigpolicy: bool,
        /// Another argument for bootc, passed unchanged (may be repeated)
        #[arg(long = "bootc-arg", value_name = "ARG", allow_hyphen_values = true)]
        extra: Vec<String>,
    }
}

words!(Filesystem {
    Ext4: Self::Ext4.name();
    Xfs: Self::Xfs.name();
    Btrfs: Self::Btrfs.name();
});

words!(BoundImages {
    Skip: Self::Skip.name(), "They are not installed";
    Pull: Self::Pull.name(), "They are pulled from their registries; needs `--network host`";
});

words!(BlockSetup {
    Direct: Self::Direct.name(), "Nothing";
    Tpm2Luks: Self::Tpm2Luks.name(), "LUKS, unlocked by the machine's TPM 2.0";
});
