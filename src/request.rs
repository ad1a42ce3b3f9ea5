//! What is to be done, as plain types: whoever asks for it, and however.

mod destination;

use std::path::{Path, PathBuf};

use crate::bootc;
use crate::container::NetworkAccess;
use crate::image::root::Wanted;
use crate::machine::disk::find::Hints;
use crate::machine::firmware::BootEntry;

pub use destination::{Destination, DestinationForm};

/// An installation.
pub struct Install {
    /// The image.
    pub image: Wanted,
    /// What the disk is called; `auto` is no name.
    pub device: Option<PathBuf>,
    /// What holds of the disk.
    pub hints: Hints,
    /// Where the config drive is.
    pub config_drive: Option<PathBuf>,
    /// Whether config drives are removed from other disks.
    pub clear_stale_config_drives: bool,
    /// Whether what is on the disk may go.
    pub wipe: bool,
    /// Whether nobody is asked about it.
    pub yes: bool,
    /// The size of the root partition in MiB, when it is not to take all there is.
    pub root_size_mib: Option<u64>,
    /// Where the installed system comes in the firmware's boot order.
    pub boot_entry: Option<BootEntry>,
    /// Whether a half-installed disk stays as it is.
    pub keep_on_failure: bool,
    /// Whether a kernel that lacks guards of the sandbox is refused.
    pub require_isolation: bool,
    /// What the image's programs can reach.
    pub network: NetworkAccess,
    /// What the image's bootc is asked.
    pub bootc: bootc::Options,
}

impl Install {
    /// The disk that is named; without one, the hints say which it is, or it is the obvious one.
    pub fn disk(&self) -> Option<&Path> {
        self.device.as_deref().filter(|name| *name != Path::new("auto"))
    }
}
