//! Writes small ISO 9660 images (ECMA-119) with the names of Rock Ridge (SUSP 1.10, RRIP 1.10), which Linux mounts, and
//! those of Joliet, as genisoimage makes them for Ironic.
//!
//! One volume, one extent a file, read-only modes, a fixed date: the same files give the same bytes.

use std::io::Write;

use super::directories::{Directory, arrange};
use super::error::BuildError;
use super::form::LABEL;
use super::secret::Secret;
use super::tree::Tree;

const SECTOR: usize = 2048;
const DESCRIPTOR_SECTOR: usize = 16;
/// After the three descriptors.
const FIRST_FREE_SECTOR: usize = 19;
/// In UTF-16 units. What is longer has a made-up name in Joliet.
const MAX_JOLIET_NAME: usize = 64;
/// 1 January 1980: seven bytes, years from 1900.
const DATE: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
const DIRECTORY_MODE: u32 = 0o40_500;
const FILE_MODE: u32 = 0o100_400;

/// A number in both byte orders.
fn both32(number: usize) -> [u8; 8] {
    let number = number as u32;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn both16(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (number.to_le_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

/// Makes an image of `tree`, labelled `config-2`, of at most `limit` bytes.
pub(super) fn image(tree: &Tree, limit: u64) -> Result<Secret, BuildError> {
    let directories = arrange(tree)?;
    let mut hierarchies =
        [Names::RockRidge, Names::Joliet].map(|names| Hierarchy::new(names, directories.clone(), tree));
    let mut sector = FIRST_FREE_SECTOR;
    for hierarchy in &mut hierarchies {
        sector = hierarchy.place(sector);
    }
    let mut starts = Vec::with_capacity(tree.files.len());
    for file in &tree.files {
        starts.push(sector);
        sector += file.content.len().div_ceil(SECTOR);
    }
    if (sector * SECTOR) as u64 > limit {
        return Err(BuildError::TooLarge);
    }
    let mut out = Secret::with_limit(limit);
    let mut put = |bytes: &[u8]| {
        let padding = bytes.len().next_multiple_of(SECTOR) - bytes.len();
        out.write_all(bytes)
            .and_then(|()| out.write_all(&[0; SECTOR][..padding]))
            .map_err(|_| BuildError::TooLarge)
    };
    put(&[0; DESCRIPTOR_SECTOR * SECTOR])?;
    for hierarchy in &hierarchies {
        put(&hierarchy.descriptor(sector))?;
    }
    put(b"\xffCD001\x01")?;
    for hierarchy in &hierarchies {
        put(&hierarchy.path_table(u32::to_le_bytes, u16::to_le_bytes))?;
        put(&hierarchy.path_table(u32::to_be_bytes, u16::to_be_bytes))?;
        for index in 0..hierarchy.directories.len() {
            put(&hierarchy.records(index, &starts, tree))?;
        }
    }
    for file in &tree.files {
        put(&file.content)?;
    }
    Ok(out)
}

/// How names are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Made-up ones that ISO 9660 allows everywhere, and the real ones in Rock Ridge's fields.
    RockRidge,
    /// The real ones, in UTF-16.
    Joliet,
}

impl Names {
    /// Text as descriptors and records have it.
    fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::RockRidge => text.as_bytes().to_vec(),
            Self::Joliet => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    /// Text with spaces behind it, `length` bytes long.
    fn padded(self, text: &str, length: usize) -> Vec<u8> {
        let mut field = self.encode(&format!("{text:length$}"));
        field.resize(length, 0);
        field
    }

    /// What the directory `name`, which is the one with this index, is called in a record.
    fn of_directory(self, name: &str, index: usize) -> Vec<u8> {
        match self {
            Self::Joliet if fits_joliet(name) => self.encode(name),
            _ => self.encode(&format!("D{index:07}")),
        }
    }

    /// What the file `name`, which is the one with this index, is called in a record.
    fn of_file(self, name: &str, index: usize) -> Vec<u8> {
        match self {
            Self::Joliet if fits_joliet(name) => self.encode(&format!("{name};1")),
            _ => self.encode(&format!("F{index:07}.;1")),
        }
    }
}

fn fits_joliet(name: &str) -> bool {
    let is_forbidden = |letter: char| letter.is_control() || "*/:;?\\".contains(letter);
    name.encode_utf16().count() <= MAX_JOLIET_NAME && !name.contains(is_forbidden)
}

/// The directories with one kind of names: each kind has its own, and the files are the same.
struct Hierarchy {
    names: Names,
    directories: Vec<Directory>,
    table_bytes: usize,
    table_sector: usize,
}

impl Hierarchy {
    fn new(names: Names, directories: Vec<Directory>, tree: &Tree) -> Self {
        let mut new = Self {
            names,
            directories,
            table_bytes: 0,
            table_sector: 0,
        };
        new.table_bytes = new.path_table(u32::to_le_bytes, u16::to_le_bytes).len();
        for index in 0..new.directories.len() {
            new.directories[index].size = new.records(index, &[], tree).len();
        }
        new
    }

    fn table_sectors(&self) -> usize {
        self.table_bytes.div_ceil(SECTOR)
    }

    /// Puts path tables and directories at `sector` and behind it. Gives the sector after them.
    fn place(&mut self, sector: usize) -> usize {
        self.table_sector = sector;
        let mut sector = sector + 2 * self.table_sectors();
        for directory in &mut self.directories {
            directory.sector = sector;
            sector += directory.size / SECTOR;
        }
        sector
    }

    fn path_table(&self, word: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut table = Vec::new();
        for (index, directory) in self.directories.iter().enumerate() {
            let name = if index == 0 {
                vec![0]
            } else {
                self.names.of_directory(&directory.name, index)
            };
            table.extend([name.len() as u8, 0]);
            table.extend(word(directory.sector as u32));
            table.extend(half(directory.parent as u16 + 1));
            table.extend(&name);
            table.resize(table.len().next_multiple_of(2), 0);
        }
        table
    }

    /// The records of a directory, in whole sectors. Without `starts` their size is right and their places aren't.
    fn records(&self, index: usize, starts: &[usize], tree: &Tree) -> Vec<u8> {
        let directory = &self.directories[index];
        let parent = &self.directories[directory.parent];
        let mut own = Vec::new();
        if index == 0 && self.names == Names::RockRidge {
            own.extend(b"SP\x07\x01\xbe\xef\0");
            own.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
        }
        own.extend(self.use_area(DIRECTORY_MODE, ""));
        let above = self.use_area(DIRECTORY_MODE, "");
        let mut bytes = record(&[0], directory.sector, directory.size, true, &own);
        bytes.extend(record(&[1], parent.sector, parent.size, true, &above));
        let mut children: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, child) in &directory.directories {
            let target = &self.directories[*child];
            let called = self.names.of_directory(name, *child);
            let use_area = self.use_area(DIRECTORY_MODE, name);
            let record = record(&called, target.sector, target.size, true, &use_area);
            children.push((called, record));
        }
        for (name, file) in &directory.files {
            let start = starts.get(*file).copied().unwrap_or_default();
            let size = tree.files[*file].content.len();
            let called = self.names.of_file(name, *file);
            let record = record(&called, start, size, false, &self.use_area(FILE_MODE, name));
            children.push((called, record));
        }
        children.sort();
        children
            .into_iter()
            .for_each(|(_, record)| append(&mut bytes, record));
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes
    }

    /// Rock Ridge's fields of a record.
    fn use_area(&self, mode: u32, name: &str) -> Vec<u8> {
        match self.names {
            Names::RockRidge if name.is_empty() => attributes(mode),
            Names::RockRidge => [attributes(mode), long_name(name)].concat(),
            Names::Joliet => Vec::new(),
        }
    }

    fn descriptor(&self, sectors: usize) -> Vec<u8> {
        let mut descriptor = vec![0; SECTOR];
        let mut put = |at: usize, bytes: &[u8]| descriptor[at..at + bytes.len()].copy_from_slice(bytes);
        match self.names {
            Names::RockRidge => put(0, b"\x01CD001\x01"),
            Names::Joliet => {
                put(0, b"\x02CD001\x01");
                // UCS-2 of the third level.
                put(88, b"%/E");
            }
        }
        // Who published it and the like is left empty; dates are not given.
        for (at, length) in [
            (8, 32),
            (190, 128),
            (318, 128),
            (446, 128),
            (574, 128),
            (702, 37),
            (739, 37),
            (776, 37),
        ] {
            put(at, &self.names.padded("", length));
        }
        for at in [813, 830, 847, 864] {
            put(at, &[b'0'; 16]);
        }
        put(40, &self.names.padded(LABEL, 32));
        put(80, &both32(sectors));
        put(120, &both16(1));
        put(124, &both16(1));
        put(128, &both16(SECTOR as u16));
        put(132, &both32(self.table_bytes));
        put(140, &(self.table_sector as u32).to_le_bytes());
        let second = self.table_sector + self.table_sectors();
        put(148, &(second as u32).to_be_bytes());
        let root = &self.directories[0];
        put(156, &record(&[0], root.sector, root.size, true, &[]));
        put(881, &[1]);
        descriptor
    }
}

/// No record reaches over the end of a sector.
fn append(bytes: &mut Vec<u8>, record: Vec<u8>) {
    let left = SECTOR - bytes.len() % SECTOR;
    if left < record.len() {
        bytes.resize(bytes.len() + left, 0);
    }
    bytes.extend(record);
}

fn record(name: &[u8], sector: usize, size: usize, is_directory: bool, use_area: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both32(sector));
    record.extend(both32(size));
    record.extend(DATE);
    record.extend([u8::from(is_directory) * 2, 0, 0]);
    record.extend(both16(1));
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record.extend(use_area);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = record.len() as u8;
    record
}

/// Mode, links, owner and group (RRIP, "PX").
fn attributes(mode: u32) -> Vec<u8> {
    let mut field = b"PX\x24\x01".to_vec();
    for number in [mode as usize, 1, 0, 0] {
        field.extend(both32(number));
    }
    field
}

/// The name as it is (RRIP, "NM").
fn long_name(name: &str) -> Vec<u8> {
    let mut field = vec![b'N', b'M', 5 + name.len() as u8, 1, 0];
    field.extend(name.as_bytes());
    field
}
