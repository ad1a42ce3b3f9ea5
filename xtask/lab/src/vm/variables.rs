//! The variables of a machine's firmware, as they lie in its flash memory: EDK II's
//! `AUTHENTICATED_VARIABLE_HEADER`, the name, the content.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const HEADER_BYTES: usize = 60;
/// How a header begins …
const START: [u8; 2] = [0xaa, 0x55];
/// … and what follows in that of a variable that was neither changed nor removed since.
const VALID: u8 = 0x3f;
/// Where the header has the length of the content.
const LENGTH_AT: usize = 40;

/// What a variable was once, or still is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Whether it still is.
    pub is_valid: bool,
    /// What it held.
    pub content: Vec<u8>,
}

/// The boot order that the firmware keeps in `file`.
pub fn boot_order(file: &Path) -> Result<Vec<u16>> {
    let versions = versions(file, "BootOrder")?;
    let valid = versions.iter().find(|version| version.is_valid);
    Ok(numbers(
        &valid.context("the firmware keeps no boot order")?.content,
    ))
}

/// The entries of a boot order.
pub fn numbers(content: &[u8]) -> Vec<u16> {
    let (numbers, _) = content.as_chunks::<2>();
    numbers.iter().map(|number| u16::from_le_bytes(*number)).collect()
}

/// All that the firmware has written to `file` as the variable `name`, in that order: it only marks what is
/// replaced.
pub fn versions(file: &Path, name: &str) -> Result<Vec<Version>> {
    let flash = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let name: Vec<u8> = name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let places = (HEADER_BYTES..flash.len()).filter(|at| flash[*at..].starts_with(&name));
    Ok(places.filter_map(|at| version(&flash, at, name.len())).collect())
}

/// The version whose name is `at` this place, unless something else there looks like the name.
fn version(flash: &[u8], at: usize, name_bytes: usize) -> Option<Version> {
    let header = &flash[at - HEADER_BYTES..at];
    if !header.starts_with(&START) {
        return None;
    }
    let length = u32::from_le_bytes(*header[LENGTH_AT..].first_chunk()?) as usize;
    Some(Version {
        is_valid: header[2] == VALID,
        content: flash[at + name_bytes..].get(..length)?.to_vec(),
    })
}
