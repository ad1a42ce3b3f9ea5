//! Whether the installed disk will start under UEFI. Without `--generic-image`, bootupd installs the boot
//! loader for the way that this machine was booted, and for no other: then the EFI system partition may stay
//! empty, and that is no error to bootc. (Read in bootupd 0.2: `--auto` chooses the components,
//! `--update-firmware` opens efivarfs.)

use std::path::Path;

use anyhow::{Result, bail};

use crate::machine::disk::layout::Arch;
use crate::machine::kernel;

/// How this machine was booted, as far as that matters to boot loaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booted {
    /// By UEFI, whose variables can be reached.
    ByUefi,
    /// By UEFI, but this kernel doesn't show its variables.
    ByUefiWithoutVariables,
    /// By a BIOS, for one.
    Otherwise,
}

impl Booted {
    /// How this machine was booted.
    pub fn find_out() -> Self {
        let firmware = Path::new("/sys/firmware/efi");
        if !firmware.is_dir() {
            Self::Otherwise
        } else if firmware.join("efivars").is_dir() && kernel::need_filesystem("efivarfs").is_ok() {
            Self::ByUefi
        } else {
            Self::ByUefiWithoutVariables
        }
    }

    /// Refuses an installation by bootupd, and not as a generic image, that would not start under UEFI.
    pub fn refuse_bootupd(self, arch: Arch) -> Result<()> {
        match (self, arch) {
            // Where there is no BIOS, bootupd knows nothing else.
            (Self::ByUefi, _) | (Self::Otherwise, Arch::Aarch64) => Ok(()),
            (Self::Otherwise, Arch::X86_64) => bail!(
                "this machine was not booted by UEFI, so the image's bootupd would install no boot loader \
                 for UEFI: use --generic-image, or boot this machine by UEFI"
            ),
            (Self::ByUefiWithoutVariables, _) => bail!(
                "this kernel does not show the firmware's variables, which the image's bootupd wants to change: use \
                 --generic-image, or add the module efivarfs to the ramdisk and boot without efi=noruntime"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_esp_empty_is_refused() {
        use Arch::{Aarch64, X86_64};
        for (booted, arch, expected) in [
            (Booted::ByUefi, X86_64, None),
            (Booted::ByUefi, Aarch64, None),
            (Booted::Otherwise, X86_64, Some("not booted by UEFI")),
            (Booted::Otherwise, Aarch64, None),
            (Booted::ByUefiWithoutVariables, X86_64, Some("efivarfs")),
            (Booted::ByUefiWithoutVariables, Aarch64, Some("efivarfs")),
        ] {
            let error = booted.refuse_bootupd(arch).err().map(|error| error.to_string());
            let as_expected = match (&error, expected) {
                (None, None) => true,
                (Some(error), Some(part)) => error.contains(part) && error.contains("--generic-image"),
                _ => false,
            };
            assert!(as_expected, "{booted:?} {arch:?}: {error:?}");
        }
    }
}
