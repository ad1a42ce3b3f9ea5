//! The installed system's place in the firmware's boot order: refused at once where it can't be had, taken
//! when the disk is finished. A disk is worth more than its place.

use anyhow::{Context, Result, bail};

use super::firmware::Before;
use super::unfinished::Finished;
use crate::console::progress::Progress;
use crate::machine::firmware::{BootEntry, BootOrder, EspPath, Variables, numbers};

/// Refuses a place for a system without a boot loader; `bootloader` is which one it will have, as far as that
/// is known.
pub fn check_bootloader(place: Option<BootEntry>, bootloader: Option<&str>) -> Result<()> {
    if place.is_some() && bootloader == Some("none") {
        bail!(
            "without a boot loader nothing can be put into the firmware's boot order: leave out \
             --boot-entry, or choose a boot loader with --bootloader"
        )
    }
    Ok(())
}

/// Refuses a machine where the boot order can't be changed.
pub fn check_machine(place: Option<BootEntry>) -> Result<()> {
    if place.is_some() {
        Variables::of_this_machine()?;
    }
    Ok(())
}

/// Says when the firmware has no entry for the boot loader. That is an error for one which needs an entry,
/// because it is not where firmware looks by itself.
fn check_entry(
    variables: Result<Variables>,
    loader: &EspPath,
    needs_entry: bool,
    progress: &Progress,
) -> Result<()> {
    let path = &loader.path;
    match variables.and_then(|variables| variables.lead_to(loader.partition_uuid)) {
        Ok(true) => Ok(()),
        Ok(false) if needs_entry => bail!(
            "the firmware has no boot entry for {path} and does not look there by itself: make one with \
             efibootmgr, or install with --boot-entry first"
        ),
        Ok(false) => {
            progress.note(format!(
                "the firmware has no boot entry for the installed system: it finds {path} by itself, after \
                 its other entries; --boot-entry makes one"
            ));
            Ok(())
        }
        Err(error) if needs_entry => {
            progress.warn(format!(
                "{path} needs a firmware boot entry, and it is unknown whether there is one: {error:#}"
            ));
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Puts the installed system into the place that was asked for. Without one, the place that it has may still
/// not be enough.
pub fn settle(
    finished: &Finished,
    place: Option<BootEntry>,
    progress: &Progress,
) -> Result<Option<BootOrder>> {
    let Some(loader) = &finished.loader else {
        return Ok(None);
    };
    if let (Some(place), Some(before)) = (place, &finished.firmware) {
        return arrange(before, place, loader, progress).map(Some);
    }
    let variables = Variables::of_this_machine();
    check_entry(variables, loader, finished.needs_entry, progress).map(|()| None)
}

/// Puts the installed system, which starts by `loader`, into its place.
fn arrange(before: &Before, place: BootEntry, loader: &EspPath, progress: &Progress) -> Result<BootOrder> {
    forget_replaced(before, progress);
    let order = before.firmware.arrange(place, loader).context(
        "the firmware's boot order is not as requested: set it with efibootmgr or in the firmware's settings",
    )?;
    progress.note(order.to_string());
    Ok(order)
}

/// Makes room. An old entry too many is no failure.
fn forget_replaced(before: &Before, progress: &Progress) {
    match before.firmware.forget(&before.partitions) {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => progress.note(format!(
            "removed the boot entries of the disk's previous installation: {}",
            numbers(&gone)
        )),
        Err(error) => progress.warn(format!(
            "boot entries of the disk's previous installation may be left: {error:#}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_loader_that_nothing_starts_is_refused() {
        let loader = EspPath {
            partition_number: 2,
            partition_uuid: Uuid::from_u128(42),
            start_lba: 4096,
            sectors: 1_048_576,
            path: "EFI/fedora/shimx64.efi".into(),
        };
        let directory = tempfile::tempdir().unwrap();
        let variables = Variables::in_directory(directory.path());
        let check = |variables| check_entry(variables, &loader, true, &Progress::silent());
        let error = check(Ok(variables.clone())).unwrap_err().to_string();
        assert!(
            error.contains("no boot entry for EFI/fedora/shimx64.efi"),
            "{error}"
        );
        // One that can't be read may be it.
        let unreadable = directory
            .path()
            .join("Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        std::fs::create_dir(&unreadable).unwrap();
        check(Ok(variables.clone())).unwrap();
        std::fs::remove_dir(unreadable).unwrap();
        let entry = loader.load_option().to_bytes();
        variables.write("Boot0003", &entry).unwrap();
        check(Ok(variables)).unwrap();
        // What can't be seen is only said.
        check(Err(anyhow::anyhow!("no UEFI"))).unwrap();
    }

    #[test]
    fn a_loader_that_firmware_finds_without_an_entry_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let variables = Variables::in_directory(directory.path());
        let loader = EspPath {
            partition_number: 2,
            partition_uuid: Uuid::from_u128(42),
            start_lba: 4096,
            sectors: 1_048_576,
            path: "EFI/BOOT/BOOTX64.EFI".into(),
        };
        let notes = |variables| {
            let (sender, notes) = std::sync::mpsc::channel();
            let progress = Progress::to(move |event| drop(sender.send(format!("{event:?}"))));
            check_entry(variables, &loader, false, &progress).unwrap();
            drop(progress);
            notes.into_iter().collect::<Vec<_>>()
        };
        let said = notes(Ok(variables.clone()));
        assert_eq!(said.len(), 1);
        assert!(
            said[0].contains("no boot entry for the installed system: it finds EFI/BOOT/BOOTX64.EFI"),
            "{said:?}"
        );
        // What was never asked is no news.
        assert!(notes(Err(anyhow::anyhow!("no UEFI"))).is_empty());
        variables
            .write("Boot0003", &loader.load_option().to_bytes())
            .unwrap();
        assert!(notes(Ok(variables)).is_empty());
    }

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
