//! The installed system's place in the firmware's boot order: refused at once where it can't be had, taken when the disk is
//! finished. A disk is worth more than its place.

use anyhow::{Context, Result, bail};

use super::Finished;
use crate::disk::partition_guids;
use crate::firmware::{BootEntry, BootOrder, EspPath, Firmware, Variables, numbers};
use crate::progress::Progress;

/// Refuses a place for a system without a boot loader; `bootloader` is which one it will have, as far as that is known.
pub fn check_bootloader(place: Option<BootEntry>, bootloader: Option<&str>) -> Result<()> {
    if place.is_some() && bootloader == Some("none") {
        bail!(
            "without a boot loader there is nothing to put into the firmware's boot order: leave out --boot-entry, or choose \
             a boot loader with --bootloader"
        )
    }
    Ok(())
}

/// A place in the boot order, and the order as it was before the installation.
pub struct Wish {
    place: BootEntry,
    firmware: Firmware,
}

impl Wish {
    /// Remembers the boot order of this machine. Refuses a machine where it can't be changed.
    pub fn remember(place: BootEntry) -> Result<Self> {
        let firmware = Firmware::remember(Variables::of_this_machine()?)?;
        Ok(Self { place, firmware })
    }

    /// Puts the installed system, which starts by `loader`, into its place.
    pub fn fulfil(&self, _: &Finished, loader: &EspPath, progress: &Progress) -> Result<BootOrder> {
        self.forget_gone(progress);
        let order = self.firmware.arrange(self.place, loader).context(
            "the disk is installed and verified, but the firmware's boot order is not as asked: put it right by efibootmgr \
             or in the firmware's settings",
        )?;
        progress.note(order.to_string());
        Ok(order)
    }

    /// Makes room. An old entry too many is no failure.
    fn forget_gone(&self, progress: &Progress) {
        let gone = partition_guids().and_then(|partitions| self.firmware.forget_gone(&partitions));
        match gone {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => progress.note(format!(
                "removed the boot entries of earlier installations that are gone: {}",
                numbers(&gone)
            )),
            Err(error) => progress.warn(format!(
                "boot entries of earlier installations may be left: {error:#}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_no_boot_loader_is_refused() {
        let place = Some(BootEntry::First);
        let error = check_bootloader(place, Some("none")).unwrap_err().to_string();
        assert!(error.contains("leave out --boot-entry"), "{error}");
        for (place, bootloader) in [(None, Some("none")), (place, Some("grub")), (place, None)] {
            assert!(
                check_bootloader(place, bootloader).is_ok(),
                "{place:?} {bootloader:?}"
            );
        }
    }
}
