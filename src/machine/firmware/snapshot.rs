//! The firmware's variables at one moment: names, attributes, contents.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use super::order;
use crate::console::text::printable;

/// `EFI_GLOBAL_VARIABLE`.
pub(super) const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// What EDK II changes by itself: a counter that only grows, and whether the store was ever full.
const OF_THE_FIRMWARE: [&str; 2] = [
    "MTC-eb704011-1402-11d3-8e77-00a0c969723b",
    "VarErrorFlag-04b37fe8-f6ae-480b-bdd5-37d98c5e89aa",
];

/// Attributes (UEFI 2.10, 8.2): kept without power, …
const NON_VOLATILE: u32 = 1;
/// … a record of a hardware error, which the firmware makes, …
const HARDWARE_ERROR_RECORD: u32 = 8;
/// … and, in each way there is or was, to be written with a signature only.
const AUTHENTICATED: u32 = 0x10 | 0x20 | 0x80;
/// Kept without power, and there before and after the operating system has started.
const LASTING: u32 = 7;

/// What a variable is called, with its vendor, as efivarfs has it: `BootOrder-8be4df61-…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(OsString);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub attributes: u32,
    pub content: Vec<u8>,
}

/// The variables that outlast the machine's power and that only programs change. One that can't be read is
/// known by its name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeMap<Name, Option<Variable>>);

impl Name {
    pub fn of_file(name: OsString) -> Self {
        Self(name)
    }

    /// One of those that the specification itself defines.
    pub fn global(name: &str) -> Self {
        Self(format!("{name}-{VENDOR}").into())
    }

    pub fn file(&self) -> &OsStr {
        &self.0
    }

    /// The number of the boot entry that has this name, written as the specification has it.
    pub fn boot_entry(&self) -> Option<u16> {
        let name = self.0.to_str()?.strip_suffix(VENDOR)?.strip_suffix('-')?;
        order::number(name).filter(|number| order::name(*number) == name)
    }

    pub fn of_boot_entry(number: u16) -> Self {
        Self::global(&order::name(number))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.0.to_string_lossy();
        let name = file.strip_suffix(VENDOR).and_then(|name| name.strip_suffix('-'));
        out.write_str(&printable(name.unwrap_or(&file)))
    }
}

impl Variable {
    /// What a file of efivarfs holds: four bytes of attributes, then the content. `None` for one that was
    /// created, but never written: the firmware knows nothing of it.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let (attributes, content) = file.split_first_chunk()?;
        Some(Self {
            attributes: u32::from_le_bytes(*attributes),
            content: content.into(),
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.attributes.to_le_bytes(), &self.content[..]].concat()
    }

    pub fn lasting(content: &[u8]) -> Self {
        Self {
            attributes: LASTING,
            content: content.into(),
        }
    }

    pub fn is_lasting(&self) -> bool {
        self.attributes == LASTING
    }

    pub fn is_authenticated(&self) -> bool {
        self.attributes & AUTHENTICATED != 0
    }
}

impl Snapshot {
    pub fn add(&mut self, name: Name, file: &[u8]) {
        let is_of_interest = |variable: &Variable| {
            variable.attributes & NON_VOLATILE != 0
                && variable.attributes & HARDWARE_ERROR_RECORD == 0
                && OF_THE_FIRMWARE.iter().all(|own| name.0 != *own)
        };
        if let Some(variable) = Variable::parse(file).filter(is_of_interest) {
            self.0.insert(name, Some(variable));
        }
    }

    pub fn add_unreadable(&mut self, name: Name) {
        self.0.insert(name, None);
    }

    pub fn set(&mut self, name: Name, variable: Option<Variable>) {
        match variable {
            Some(variable) => self.0.insert(name, Some(variable)),
            None => self.0.remove(&name),
        };
    }

    /// Whether there is one of this name, although it may be unreadable.
    pub fn has(&self, name: &Name) -> bool {
        self.0.contains_key(name)
    }

    pub fn get(&self, name: &Name) -> Option<&Variable> {
        self.0.get(name)?.as_ref()
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// Those that could be read.
    pub fn variables(&self) -> impl Iterator<Item = (&Name, &Variable)> {
        self.0
            .iter()
            .filter_map(|(name, variable)| Some((name, variable.as_ref()?)))
    }

    /// The boot entries among them.
    pub fn boot_entries(&self) -> impl Iterator<Item = (u16, &Variable)> {
        self.variables()
            .filter_map(|(name, variable)| Some((name.boot_entry()?, variable)))
    }

    pub fn boot_order(&self) -> Vec<u16> {
        let order = self.get(&Name::global("BootOrder"));
        order.map_or_else(Vec::new, |variable| order::from_bytes(&variable.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_without_the_vendor_that_all_know() {
        let junk = "Junk\u{1b}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        for (file, said, number) in [
            (format!("Boot000A-{VENDOR}"), "Boot000A", Some(10)),
            (format!("Boot000a-{VENDOR}"), "Boot000a", None),
            (format!("BootOrder-{VENDOR}"), "BootOrder", None),
            (junk.replace('\u{1b}', ""), &junk.replace('\u{1b}', ""), None),
        ] {
            let name = Name::of_file(file.into());
            assert_eq!((name.to_string().as_str(), name.boot_entry()), (said, number));
        }
        let shown = Name::of_file(junk.into()).to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn what_is_lost_with_the_power_or_changes_by_itself_is_not_remembered() {
        let mut snapshot = Snapshot::default();
        for (name, file) in [
            ("A", &b"\x07\0\0\0kept"[..]),
            ("B", b"\x06\0\0\0volatile"),
            ("C", b"\x0f\0\0\0a hardware error"),
            ("D", b"\x27\0\0\0signed"),
            ("E", b"\x07\0"),
            (OF_THE_FIRMWARE[0], b"\x07\0\0\0\x05\0\0\0"),
        ] {
            snapshot.add(Name::of_file(name.into()), file);
        }
        snapshot.add_unreadable(Name::of_file("F".into()));
        let names: Vec<_> = snapshot.variables().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["A", "D"]);
        assert!(snapshot.has(&Name::of_file("F".into())));
    }
}
