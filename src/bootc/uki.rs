//! Unified kernel images: where an image keeps them, and the kernel command line inside (UAPI group spec 5;
//! PE/COFF section table).
//!
//! bootc itself looks for one only when it installs the container it runs in, not when it is given a source.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, ensure};

use crate::image::rootfs::Rootfs;

const DIRECTORY: &str = "boot/EFI/Linux";
/// Section tables of images seen have a dozen entries.
const MAX_SECTIONS: u16 = 96;
/// The kernel takes 2 KiB on x86-64; nobody needs more than this.
const MAX_COMMAND_LINE_BYTES: u32 = 64 << 10;

/// A unified kernel image in a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// Its path, relative to the root.
    pub path: String,
    /// The kernel command line that it carries.
    pub command_line: String,
}

impl Uki {
    /// The first unified kernel image of `root`, as bootc would find it.
    pub fn find(root: &Rootfs) -> Result<Option<Self>> {
        let is_efi = |name: &std::ffi::OsString| name.as_bytes().ends_with(b".efi");
        let Some(name) = root.list(DIRECTORY)?.into_iter().find(is_efi) else {
            return Ok(None);
        };
        let path = format!("{DIRECTORY}/{}", name.to_string_lossy());
        let file = root.open_file(&path)?;
        let command_line =
            command_line(file).with_context(|| format!("reading the UKI /{path} of the image"))?;
        Ok(Some(Self { path, command_line }))
    }

    /// Whether the system may run from a file system without fs-verity: `composefs=?DIGEST`.
    pub fn verity_is_optional(&self) -> bool {
        self.command_line
            .split_ascii_whitespace()
            .any(|argument| argument.starts_with("composefs=?"))
    }
}

/// Whether this is a unified kernel image: an EFI program that brings a kernel along. The section table is
/// enough of it.
pub fn is_unified(file: impl Read + Seek) -> bool {
    matches!(section(file, b".linux\0\0"), Ok(Some(_)))
}

/// The `.cmdline` section of a PE file; empty if there is none.
fn command_line(mut file: impl Read + Seek) -> Result<String> {
    match section(&mut file, b".cmdline")? {
        Some((offset, bytes)) => section_text(file, offset.into(), bytes),
        None => Ok(String::new()),
    }
}

/// Where a section of a PE file is: its offset and its size.
fn section(mut file: impl Read + Seek, name: &[u8; 8]) -> Result<Option<(u32, u32)>> {
    let [b'M', b'Z'] = read_at::<2>(&mut file, 0)? else {
        anyhow::bail!("it is not a PE file")
    };
    let header = u64::from(u32::from_le_bytes(read_at(&mut file, 0x3c)?));
    ensure!(read_at(&mut file, header)? == *b"PE\0\0", "it is not a PE file");
    let sections = u16::from_le_bytes(read_at(&mut file, header + 6)?);
    ensure!(sections <= MAX_SECTIONS, "the PE file has {sections} sections");
    let optional_header_bytes = u64::from(u16::from_le_bytes(read_at(&mut file, header + 20)?));
    let table = header + 24 + optional_header_bytes;
    for section in (0..u64::from(sections)).map(|index| table + 40 * index) {
        if read_at(&mut file, section)? == *name {
            let virtual_bytes = u32::from_le_bytes(read_at(&mut file, section + 8)?);
            let offset = u32::from_le_bytes(read_at(&mut file, section + 20)?);
            return Ok(Some((offset, virtual_bytes)));
        }
    }
    Ok(None)
}

fn section_text(mut file: impl Read + Seek, offset: u64, bytes: u32) -> Result<String> {
    ensure!(
        bytes <= MAX_COMMAND_LINE_BYTES,
        "its header says that the command line has {bytes} bytes"
    );
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(bytes.into()).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.trim_end_matches('\0').trim().to_owned())
}

fn read_at<const N: usize>(mut file: impl Read + Seek, offset: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)
        .with_context(|| format!("reading {N} bytes at {offset}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn pe(section: &[u8; 8], text: &[u8], said_bytes: u32) -> Vec<u8> {
        let mut file = vec![0; 0x200];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x44].copy_from_slice(b"PE\0\0");
        file[0x46] = 1;
        file[0x54] = 16;
        file[0x68..0x70].copy_from_slice(section);
        file[0x70..0x74].copy_from_slice(&said_bytes.to_le_bytes());
        file[0x7c..0x80].copy_from_slice(&0x200u32.to_le_bytes());
        file.extend(text);
        file
    }

    #[test]
    fn the_command_line_is_found() {
        let text = b"rw composefs=?00ff quiet\0";
        let file = pe(b".cmdline", text, text.len() as u32);
        let command_line = command_line(Cursor::new(file)).unwrap();
        assert_eq!(command_line, "rw composefs=?00ff quiet");
        assert!(
            Uki {
                path: String::new(),
                command_line
            }
            .verity_is_optional()
        );
    }

    #[test]
    fn a_kernel_inside_makes_a_program_a_unified_kernel_image() {
        assert!(is_unified(Cursor::new(pe(b".linux\0\0", b"x", 1))));
        assert!(!is_unified(Cursor::new(pe(b".sdmagic", b"x", 1))));
        assert!(!is_unified(Cursor::new(b"MZ".to_vec())));
    }

    #[test]
    fn files_that_lie_are_errors_and_a_missing_section_is_empty() {
        assert_eq!(command_line(Cursor::new(pe(b".linux\0\0", b"x", 1))).unwrap(), "");
        assert!(command_line(Cursor::new(pe(b".cmdline", b"x", u32::MAX))).is_err());
        assert!(command_line(Cursor::new(b"MZ".to_vec())).is_err());
        assert!(command_line(Cursor::new(b"#!/bin/sh".to_vec())).is_err());
    }
}
