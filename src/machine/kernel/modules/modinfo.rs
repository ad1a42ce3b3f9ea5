//! The `.modinfo` section of a kernel module: `key=value` strings, each ended by NUL (include/linux/module.h).
//!
//! Pure: bytes in, strings out. What isn't a 64-bit little-endian ELF file, or lies about its sections, is an error.

use anyhow::{Context, Result, bail};

/// Offsets in the headers of ELF-64 (System V ABI, chapter 4).
const SECTION_HEADERS_OFFSET: usize = 0x28;
const SECTION_HEADER_BYTES: usize = 0x3a;
const SECTION_COUNT: usize = 0x3c;
const NAMES_INDEX: usize = 0x3e;
const SECTION_NAME: usize = 0x00;
const SECTION_OFFSET: usize = 0x18;
const SECTION_BYTES: usize = 0x20;

/// The values that the module at hand gives for `key`, in their order.
pub(super) fn values<'a>(modinfo: &'a [u8], key: &str) -> Vec<&'a str> {
    let texts = modinfo
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok());
    texts
        .filter_map(|text| text.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// Finds the section in an uncompressed module.
pub(super) fn section(elf: &[u8]) -> Result<&[u8]> {
    // Class 2: 64 bits, data 1: little-endian, as x86_64 and aarch64 are.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("not a kernel module: no 64-bit little-endian ELF file");
    }
    let table = usize_at(elf, SECTION_HEADERS_OFFSET)?;
    let size = usize::from(u16_at(elf, SECTION_HEADER_BYTES)?);
    let header = |index: usize| {
        let start = index.checked_mul(size).and_then(|start| start.checked_add(table));
        start
            .and_then(|start| elf.get(start..start.checked_add(size)?))
            .context("a section header is cut off")
    };
    let names = content(elf, header(usize::from(u16_at(elf, NAMES_INDEX)?))?)?;
    for index in 0..usize::from(u16_at(elf, SECTION_COUNT)?) {
        let header = header(index)?;
        let name = usize::try_from(u32_at(header, SECTION_NAME)?)?;
        if names
            .get(name..)
            .is_some_and(|rest| rest.starts_with(b".modinfo\0"))
        {
            return content(elf, header);
        }
    }
    bail!("not a kernel module: no section .modinfo");
}

fn content<'a>(elf: &'a [u8], header: &[u8]) -> Result<&'a [u8]> {
    let (start, length) = (
        usize_at(header, SECTION_OFFSET)?,
        usize_at(header, SECTION_BYTES)?,
    );
    start
        .checked_add(length)
        .and_then(|end| elf.get(start..end))
        .context("a section reaches past the end of the file")
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .context("a header is cut off")
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

fn usize_at(bytes: &[u8], offset: usize) -> Result<usize> {
    Ok(usize::try_from(u64::from_le_bytes(bytes_at(bytes, offset)?))?)
}

/// Makes the least ELF file that holds `modinfo`.
#[cfg(test)]
pub(super) fn elf_with(modinfo: &[u8]) -> Vec<u8> {
    const HEADER: usize = 0x40;
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut elf = vec![0; HEADER];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut section = |name: u32, bytes: &[u8], headers: &mut Vec<u8>| {
        let mut header = [0; HEADER];
        header[SECTION_NAME..SECTION_NAME + 4].copy_from_slice(&name.to_le_bytes());
        header[SECTION_OFFSET..SECTION_OFFSET + 8].copy_from_slice(&(elf.len() as u64).to_le_bytes());
        header[SECTION_BYTES..SECTION_BYTES + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        elf.extend(bytes);
        headers.extend(header);
    };
    let mut headers = Vec::new();
    section(0, b"", &mut headers);
    section(1, modinfo, &mut headers);
    section(10, names, &mut headers);
    let table = elf.len() as u64;
    elf.extend(headers);
    elf[SECTION_HEADERS_OFFSET..SECTION_HEADERS_OFFSET + 8].copy_from_slice(&table.to_le_bytes());
    for (offset, value) in [
        (SECTION_HEADER_BYTES, HEADER as u16),
        (SECTION_COUNT, 3),
        (NAMES_INDEX, 2),
    ] {
        elf[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODINFO: &[u8] = b"license=GPL\0alias=fs-vfat\0alias=x\0depends=fat,nls\0\0name=vfat\0";

    #[test]
    fn the_section_is_found_and_read() {
        let elf = elf_with(MODINFO);
        let modinfo = section(&elf).unwrap();
        assert_eq!(modinfo, MODINFO);
        assert_eq!(values(modinfo, "alias"), ["fs-vfat", "x"]);
        assert_eq!(values(modinfo, "depends"), ["fat,nls"]);
        assert_eq!(values(modinfo, "depend"), [""; 0]);
    }

    #[test]
    fn every_cut_is_an_error_and_none_a_panic() {
        let elf = elf_with(MODINFO);
        for length in 0..elf.len() {
            assert!(
                section(&elf[..length]).is_err(),
                "{length} of {} bytes",
                elf.len()
            );
        }
    }

    #[test]
    fn offsets_that_overflow_are_errors() {
        let elf = elf_with(MODINFO);
        let table = usize_at(&elf, SECTION_HEADERS_OFFSET).unwrap();
        for offset in [
            SECTION_HEADERS_OFFSET,
            table + 0x80 + SECTION_OFFSET,
            table + 0x80 + SECTION_BYTES,
        ] {
            let mut evil = elf.clone();
            evil[offset..offset + 8].fill(0xff);
            assert!(section(&evil).is_err(), "at {offset:#x}");
        }
    }
}
