//! `landfall disks`: what disks there are, what is on them, and which one is meant. Writes nothing.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::console::text::size;
use crate::machine::disk::chosen::{Contents, Disk, Use};
use crate::machine::disk::find::{self, BlockDevice, Hints, NoDisk};

/// All disks as people and programs read them.
#[derive(Debug, Serialize)]
pub struct Inventory {
    /// The disk that would be taken.
    pub chosen: Option<String>,
    /// All of them, by name.
    pub disks: Vec<Entry>,
    #[serde(skip)]
    missed: Option<NoDisk>,
}

/// A disk.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// What hints are compared with.
    #[serde(flatten)]
    pub found: BlockDevice,
    /// What it holds, where that could be read.
    pub contents: Option<Contents>,
    /// What uses it.
    pub uses: Vec<Use>,
    /// Why it isn't the one that would be taken.
    pub not_chosen: Option<String>,
    /// Why it could not be looked at.
    pub problem: Option<String>,
}

impl Inventory {
    /// Looks at all disks: which one the hints mean.
    pub fn take(hints: &Hints) -> Result<Self> {
        let found = find::disks()?;
        let choice = find::choose(&found, hints);
        let (chosen, rejected, missed) = match choice {
            Ok((chosen, rejected)) => (Some(chosen.disk.name), rejected, None),
            Err(missed) => (None, missed.rejected.clone(), Some(missed)),
        };
        let not_chosen = |name: &str| {
            let rejected = rejected.iter().find(|each| each.name == name)?;
            Some(rejected.because.clone())
        };
        let disks = found.into_iter().map(|found| {
            let because = not_chosen(&found.disk.name);
            Entry::look(found, because)
        });
        Ok(Self {
            disks: disks.collect(),
            chosen,
            // Without hints, none can go unmatched.
            missed: missed.filter(|_| !hints.is_empty()),
        })
    }

    /// An error when hints were given and no disk satisfies them.
    pub fn refuse_if_missed(self) -> Result<()> {
        self.missed.map_or(Ok(()), |missed| Err(missed.into()))
    }
}

impl Entry {
    fn look(found: BlockDevice, not_chosen: Option<String>) -> Self {
        let mut entry = Self {
            found,
            contents: None,
            uses: Vec::new(),
            not_chosen,
            problem: None,
        };
        if let Err(error) = entry.open() {
            entry.problem = Some(format!("{error:#}"));
        }
        entry
    }

    fn open(&mut self) -> Result<()> {
        // Also of a disk that can't be opened.
        self.uses = self.found.uses()?;
        let disk = Disk::probe(Path::new(&self.found.disk.name))?;
        self.uses = disk.uses()?;
        self.contents = Some(disk.contents()?);
        Ok(())
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.disks.is_empty() {
            return writeln!(out, "this kernel sees no disks");
        }
        self.disks.iter().try_for_each(|entry| entry.fmt(out))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = &self.found.disk;
        // What a disk says of itself is untrusted text on its way to a terminal.
        let named = |name: &str, value: Option<&String>| {
            value.map(|value| format!("{name} \"{}\"", value.escape_debug()))
        };
        let facts = [
            Some(size(disk.size_bytes)),
            Some(format!("sectors of {} bytes", self.found.sector_bytes)),
            disk.tran.clone(),
            named("vendor", disk.vendor.as_ref()),
            named("model", disk.model.as_ref()),
            named("serial", disk.serial.first()),
            named("wwn", disk.wwn.first()),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        writeln!(out, "{}: {}", disk.name, facts.join(", "))?;
        if let Some(contents) = &self.contents {
            writeln!(out, "    holds   {contents}")?;
        }
        for each in &self.uses {
            writeln!(out, "    in use  {each}")?;
        }
        if let Some(problem) = &self.problem {
            writeln!(out, "    unread  {problem}")?;
        }
        match &self.not_chosen {
            None if self.uses.is_empty() => writeln!(out, "    chosen"),
            None => writeln!(out, "    chosen, but refused while it is in use"),
            Some(because) => writeln!(out, "    not chosen: {because}"),
        }
    }
}
