//! The firmware's variables (UEFI 2.10, chapter 8), and its boot order among them (chapter 3): as they were
//! before an installation, but for what it is there to change.
//!
//! bootc must reach them, as its boot loader needs an entry of its own: whoever made the image could remove
//! all others, and every setting. And today's bootc and bootupd put themselves first, which breaks sites that
//! boot from the network first. So all is remembered before bootc runs, and put back and in order afterwards.

mod load_option;
mod order;
mod restoration;
mod snapshot;
mod variables;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use uuid::Uuid;

pub use load_option::EspPath;
#[cfg(any(test, fuzzing))]
pub use load_option::LoadOption;
pub use order::BootEntry;
pub use restoration::Target;
use restoration::{Restoration, restoration};
use snapshot::{Name, Snapshot};
pub use variables::Variables;

/// The firmware before an installation.
#[derive(Debug)]
pub struct Firmware {
    variables: Variables,
    before: Snapshot,
    takes_changes: bool,
}

/// What an image had changed in the firmware's variables: their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PutBack {
    /// Those that have their content again.
    pub restored: Vec<String>,
    /// Those that were new, and are gone.
    pub removed: Vec<String>,
    /// Those that are not as they were, and why.
    pub failed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootOrder {
    /// The entries in the order in which the firmware tries them, by number.
    pub order: Vec<u16>,
    /// Those of the installed disk.
    pub own: Vec<u16>,
    /// The one that is tried at the next boot, once.
    pub next: Option<u16>,
}

impl fmt::Display for BootOrder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (order, own) = (numbers(&self.order), numbers(&self.own));
        write!(out, "boot order: {order}; the installed system is {own}")?;
        match self.next {
            Some(next) => write!(out, ", and {next:04X} comes first at the next boot"),
            None => Ok(()),
        }
    }
}

/// Numbers of entries as firmware and efibootmgr write them.
pub fn numbers(numbers: &[u16]) -> String {
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:04X}")).collect();
    numbers.join(",")
}

impl Firmware {
    /// Remembers the variables.
    pub fn remember(variables: Variables) -> Result<Self> {
        Ok(Self {
            before: variables.snapshot()?,
            takes_changes: variables.refuse_read_only().is_ok(),
            variables,
        })
    }

    /// Puts back what is not as it was, but for what an installation onto `target` is there to change.
    pub fn put_back(&self, target: &Target<'_>) -> Result<PutBack> {
        if self.takes_changes {
            self.variables.make_writable()?;
        }
        let Restoration { remove, write, lost } =
            restoration(&self.before, &self.variables.snapshot()?, target);
        let mut put_back = PutBack {
            failed: lost.iter().map(|name| format!("{name} (is signed)")).collect(),
            ..PutBack::default()
        };
        // What is removed may have taken the room of what is missing.
        for name in &remove {
            match self.variables.unset(name) {
                Ok(()) => put_back.removed.push(name.to_string()),
                Err(error) => put_back.fail(name, &error),
            }
        }
        for (name, variable) in &write {
            match self.variables.set(name, variable) {
                Ok(()) if self.before.has(name) => put_back.restored.push(name.to_string()),
                // An entry of the installation that had the number of an old one.
                Ok(()) => {}
                Err(error) => put_back.fail(name, &error),
            }
        }
        Ok(put_back)
    }

    /// Removes the entries that were made here for partitions that are `gone`: each installation gives its
    /// partitions new GUIDs, and firmware has room for few entries. Gives their numbers.
    pub fn forget(&self, gone: &[Uuid]) -> Result<Vec<u16>> {
        let entries = self.variables.entries_on(gone)?.into_iter();
        let gone: Vec<u16> = entries
            .filter(|(_, option)| option.is_made_here())
            .map(|(number, _)| number)
            .collect();
        for number in &gone {
            self.variables.remove(&order::name(*number))?;
        }
        Ok(gone)
    }

    /// Puts the entries of the installed disk, whose boot loader is `loader`, where `wish` has them. Where
    /// there are none, because the image installs for any machine, one is made.
    pub fn arrange(&self, wish: BootEntry, loader: &EspPath) -> Result<BootOrder> {
        let mut own = self.own_entries(loader)?;
        // As bootc left it: of several entries of its own, it may mean one to come first.
        let now = order(&self.variables)?;
        own.sort_by_key(|number| now.iter().position(|each| each == number).unwrap_or(usize::MAX));
        let before = self.before.boot_order();
        let wanted = order::arrange(wish, &before, &now, &own, &self.variables.numbers()?);
        self.variables.write("BootOrder", &order::to_bytes(&wanted))?;
        let next = (wish == BootEntry::Next).then(|| own[0]);
        if let Some(next) = next {
            self.variables.write("BootNext", &next.to_le_bytes())?;
        }
        // What the firmware made of it.
        let order = order(&self.variables)?;
        if order != wanted {
            let (order, wanted) = (numbers(&order), numbers(&wanted));
            bail!("the firmware's boot order is {order}, but {wanted} was written");
        }
        Ok(BootOrder { order, own, next })
    }

    /// The numbers of the entries that lead to the partition of `loader`. Where there are none, one is made.
    fn own_entries(&self, loader: &EspPath) -> Result<Vec<u16>> {
        let own = self.variables.entries_on(&[loader.partition_uuid])?.into_iter();
        let own: Vec<u16> = own.map(|(number, _)| number).collect();
        if !own.is_empty() {
            return Ok(own);
        }
        let number = order::free_number(&self.variables.numbers()?)
            .context("all boot entries are taken: remove some first")?;
        self.variables
            .write(&order::name(number), &loader.load_option().to_bytes())?;
        Ok(vec![number])
    }
}

impl PutBack {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn fail(&mut self, name: &Name, error: &anyhow::Error) {
        self.failed.push(format!("{name} ({})", error.root_cause()));
    }
}

fn order(variables: &Variables) -> Result<Vec<u16>> {
    let bytes = variables.read("BootOrder")?.unwrap_or_default();
    Ok(order::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn loader(uuid: u128) -> EspPath {
        EspPath {
            partition_number: 2,
            partition_uuid: Uuid::from_u128(uuid),
            start_lba: 4096,
            sectors: 1_048_576,
            path: "EFI/BOOT/BOOTX64.EFI".into(),
        }
    }

    fn variables(directory: &Path, order: &[u16]) -> Variables {
        let variables = Variables::in_directory(directory);
        for number in order {
            let other = loader(u128::from(*number) + 1000).load_option();
            variables.write(&order::name(*number), &other.to_bytes()).unwrap();
        }
        variables.write("BootOrder", &order::to_bytes(order)).unwrap();
        variables
    }

    #[test]
    fn entries_go_where_they_are_wished() {
        for (wish, order, next) in [
            (BootEntry::Keep, vec![3, 1, 0, 7], None),
            (BootEntry::First, vec![7, 3, 1, 0], None),
            (BootEntry::Next, vec![3, 1, 0, 7], Some(7)),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let firmware = Firmware::remember(variables(directory.path(), &[3, 1, 5, 0])).unwrap();
            // bootupd puts its own first and removes an old one of that name.
            let after = variables(directory.path(), &[7, 3, 1, 0]);
            after
                .write("Boot0007", &loader(42).load_option().to_bytes())
                .unwrap();
            fs::remove_file(directory.path().join(Name::global("Boot0005").file())).unwrap();
            let arranged = firmware.arrange(wish, &loader(42)).unwrap();
            assert_eq!(
                arranged,
                BootOrder {
                    order: order.clone(),
                    own: vec![7],
                    next
                }
            );
            assert_eq!(after.read("BootOrder").unwrap().unwrap(), order::to_bytes(&order));
            let written = after.read("BootNext").unwrap();
            assert_eq!(written, next.map(|next| next.to_le_bytes().to_vec()));
        }
    }

    #[test]
    fn entries_that_make_no_sense_to_us_keep_their_number_and_their_place() {
        let directory = tempfile::tempdir().unwrap();
        let variables = variables(directory.path(), &[1, 0, 2]);
        let path = |number| directory.path().join(Name::of_boot_entry(number).file());
        // No entry at all; the first node of its device path has 3 bytes; nobody can read it.
        fs::write(path(0), b"\x07\0\0\0garbage").unwrap();
        let mut bytes = fs::read(path(1)).unwrap();
        let first_node = bytes
            .windows(4)
            .position(|bytes| *bytes == [4, 1, 42, 0])
            .unwrap();
        bytes[first_node + 2] = 3;
        fs::write(path(1), bytes).unwrap();
        fs::remove_file(path(2)).unwrap();
        fs::create_dir(path(2)).unwrap();
        let before = [0, 1].map(|number| fs::read(path(number)).unwrap());

        let firmware = Firmware::remember(variables).unwrap();
        let arranged = firmware.arrange(BootEntry::Keep, &loader(42)).unwrap();
        assert_eq!((arranged.order, arranged.own), (vec![1, 0, 2, 3], vec![3]));
        assert_eq!([0, 1].map(|number| fs::read(path(number)).unwrap()), before);
    }

    #[test]
    fn an_entry_is_made_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let variables = variables(directory.path(), &[0, 1]);
        let firmware = Firmware::remember(variables).unwrap();
        let arranged = firmware.arrange(BootEntry::First, &loader(42)).unwrap();
        assert_eq!((arranged.order, arranged.own), (vec![2, 0, 1], vec![2]));
        // Once is enough.
        let again = firmware.arrange(BootEntry::Keep, &loader(42)).unwrap();
        assert_eq!(again.order, [0, 1, 2]);
        let entries = Variables::in_directory(directory.path()).entries().unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[2].1, loader(42).load_option());
    }

    #[test]
    fn the_order_is_said_as_efibootmgr_says_it() {
        let mut order = BootOrder {
            order: vec![0x1a, 2],
            own: vec![2],
            next: None,
        };
        assert_eq!(
            order.to_string(),
            "boot order: 001A,0002; the installed system is 0002"
        );
        order.next = Some(2);
        assert!(
            order
                .to_string()
                .ends_with(", and 0002 comes first at the next boot")
        );
    }

    #[test]
    fn a_machine_without_any_order_gets_one() {
        let directory = tempfile::tempdir().unwrap();
        let firmware = Firmware::remember(Variables::in_directory(directory.path())).unwrap();
        assert_eq!(firmware.arrange(BootEntry::Next, &loader(1)).unwrap().order, [0]);
    }
}
