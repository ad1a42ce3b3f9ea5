//! The variables of a machine's firmware, as they lie in its flash memory: EDK II's
//! `AUTHENTICATED_VARIABLE_HEADER`, the name, the content.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const HEADER_BYTES: usize = 60;
/// How the header of a variable begins that was neither changed nor removed since.
const VALID: [u8; 3] = [0xaa, 0x55, 0x3f];
/// Where the header has the length of the content.
const LENGTH_AT: usize = 40;

/// The boot order that the firmware keeps in `file`.
pub fn boot_order(file: &Path) -> Result<Vec<u16>> {
    let flash = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let content = content(&flash, "BootOrder").context("the firmware keeps no boot order")?;
    let (numbers, _) = content.as_chunks::<2>();
    Ok(numbers.iter().map(|number| u16::from_le_bytes(*number)).collect())
}

/// The content of a variable; of several by this name, of the first one.
fn content<'a>(flash: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name: Vec<u8> = name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let is_valid = |at: &usize| {
        let header = at.checked_sub(HEADER_BYTES).map(|start| &flash[start..]);
        header.is_some_and(|header| header.starts_with(&VALID)) && flash[*at..].starts_with(&name)
    };
    let at = (0..flash.len()).find(is_valid)?;
    let length = flash[at - HEADER_BYTES + LENGTH_AT..].first_chunk()?;
    let content = &flash[at + name.len()..];
    content.get(..u32::from_le_bytes(*length) as usize)
}
