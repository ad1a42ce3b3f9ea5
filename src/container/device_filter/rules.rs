//! Rules as data: devices that the image's programs can open, and make nodes of. What no rule allows is
//! refused.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};

use crate::machine::disk::numbers::{LAST_MINOR, Numbers};

/// What the kernel calls with, in the map's words: `BPF_DEVCG_DEV_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Block = 1,
    Character = 2,
}

/// Devices that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: Kind,
    pub major: u32,
    pub minors: RangeInclusive<u32>,
}

impl Rule {
    const fn new(kind: Kind, major: u32, minors: RangeInclusive<u32>) -> Self {
        Self { kind, major, minors }
    }
}

/// Devices that keep nothing and lead nowhere.
const HARMLESS: [Rule; 6] = [
    // No device: overlayfs marks deleted files so, and before Linux 5.8 making one asked us.
    Rule::new(Kind::Character, 0, 0..=0),
    // null, zero
    Rule::new(Kind::Character, 1, 3..=3),
    Rule::new(Kind::Character, 1, 5..=5),
    // full, random, urandom
    Rule::new(Kind::Character, 1, 7..=9),
    // tty
    Rule::new(Kind::Character, 5, 0..=0),
    // ptmx
    Rule::new(Kind::Character, 5, 2..=2),
];
/// The majors of pts/0 and all others. The kernel opens those of one's own devpts alone.
const TERMINALS: RangeInclusive<u32> = 136..=143;

const LOOP_CONTROL: Rule = Rule::new(Kind::Character, 10, 237..=237);
const MAPPER_CONTROL: Rule = Rule::new(Kind::Character, 10, 236..=236);

/// What every program of an image can open.
pub fn harmless() -> Vec<Rule> {
    let terminals = TERMINALS.map(|major| Rule::new(Kind::Character, major, 0..=LAST_MINOR));
    HARMLESS.into_iter().chain(terminals).collect()
}

/// What an installation onto the disk with this node needs beside that.
pub fn installing(disk: &Path, encrypted: bool) -> Result<Vec<Rule>> {
    let numbers = Numbers::read(disk).context("reading the numbers of the block devices")?;
    let mut rules = harmless();
    rules.push(LOOP_CONTROL);
    if encrypted {
        rules.push(MAPPER_CONTROL);
        let tpms = numbers.tpms.iter();
        rules.extend(tpms.map(|&(major, minor)| Rule::new(Kind::Character, major, minor..=minor)));
    }
    let free = numbers.free(encrypted).into_iter();
    rules.extend(free.map(|(major, minors)| Rule::new(Kind::Block, major, minors)));
    Ok(rules)
}
