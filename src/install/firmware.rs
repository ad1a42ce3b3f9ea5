//! The firmware's variables as they were before the installation: remembered before the disk is claimed, put
//! back when bootc has run or could not, whatever else fails.

use std::cell::OnceCell;

use anyhow::Result;
use uuid::Uuid;

use super::uefi::Booted;
use crate::console::progress::Progress;
use crate::machine::disk::chosen::Disk;
use crate::machine::firmware::{BootEntry, Firmware, PutBack, Target, Variables};

/// How many names a warning has; the report has all.
const NAMES: usize = 16;

/// The firmware and the disk's partitions before the installation.
pub struct Before {
    pub firmware: Firmware,
    pub partitions: Vec<Uuid>,
}

impl Before {
    /// Remembers them. Where the firmware can't be asked, that is an error only if it is to get a `place`;
    /// `None` if the image can't reach it either.
    pub fn remember(disk: &Disk, place: Option<BootEntry>, progress: &Progress) -> Result<Option<Self>> {
        if place.is_none() && Booted::find_out() != Booted::ByUefi {
            return Ok(None);
        }
        match Self::try_to_remember(disk) {
            Err(error) if place.is_none() => {
                progress.warn(format!(
                    "what the image changes in the firmware's settings will stay changed: {error:#}"
                ));
                Ok(None)
            }
            before => before.map(Some),
        }
    }

    fn try_to_remember(disk: &Disk) -> Result<Self> {
        Ok(Self {
            firmware: Firmware::remember(Variables::to_be_read()?)?,
            partitions: disk.partition_guids()?,
        })
    }

    /// Puts the variables back, but for what the installation onto `disk` is there to change. Gives what had
    /// to be done, if anything.
    pub fn put_back(&self, disk: &Disk, progress: &Progress) -> Option<PutBack> {
        match self.try_to_put_back(disk) {
            Ok(put_back) => {
                tell(&put_back, progress);
                (!put_back.is_empty()).then_some(put_back)
            }
            Err(error) => {
                progress.warn(format!(
                    "what the image changed in the firmware's settings is not put back: check them: {error:#}"
                ));
                None
            }
        }
    }

    fn try_to_put_back(&self, disk: &Disk) -> Result<PutBack> {
        let others = OnceCell::new();
        // What can't be read may be there.
        let is_elsewhere = |partition: &Uuid| match others.get_or_init(|| disk.partition_guids_of_others()) {
            Ok(others) => others.contains(partition),
            Err(_) => true,
        };
        self.firmware.put_back(&Target {
            // A disk that can't be read has nothing to start.
            partitions: &disk.partition_guids().unwrap_or_default(),
            replaced: &self.partitions,
            is_elsewhere: &is_elsewhere,
        })
    }
}

fn tell(put_back: &PutBack, progress: &Progress) {
    let PutBack {
        restored,
        removed,
        failed,
    } = put_back;
    let done = [("put back", restored), ("removed again", removed)];
    let done = done.iter().filter(|(_, names)| !names.is_empty());
    let done: Vec<String> = done
        .map(|(what, names)| format!("{what}: {}", list(names)))
        .collect();
    if !done.is_empty() {
        progress.warn(format!(
            "the image removed or changed firmware variables: {}",
            done.join("; ")
        ));
    }
    if !failed.is_empty() {
        progress.warn(format!(
            "the image removed or changed firmware variables that cannot be put back: check the firmware's \
             settings: {}",
            list(failed)
        ));
    }
}

/// The names in one line that can be read.
fn list(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES)].join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_says_what_was_done_and_one_what_could_not_be() {
        let said = |put_back: &PutBack| {
            let (sender, said) = std::sync::mpsc::channel();
            let progress = Progress::to(move |event| drop(sender.send(format!("{event:?}"))));
            tell(put_back, &progress);
            drop(progress);
            said.into_iter().collect::<Vec<_>>()
        };
        assert!(said(&PutBack::default()).is_empty());
        let names = |range: std::ops::Range<usize>| range.map(|number| format!("V{number}")).collect();
        let put_back = PutBack {
            restored: names(0..2),
            removed: names(0..18),
            failed: vec!["PK (is signed)".into()],
        };
        let said = said(&put_back);
        assert!(
            said[0].contains("variables: put back: V0, V1; removed again: V0, V1, V2, "),
            "{said:?}"
        );
        assert!(said[0].contains(", V15 and 2 more"), "{said:?}");
        assert!(
            said[1].contains("cannot be put back: check the firmware's settings: PK (is"),
            "{said:?}"
        );
        assert_eq!(said.len(), 2);
    }
}
