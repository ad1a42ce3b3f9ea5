//! Writes small ISO 9660 images (ECMA-119) with Rock Ridge names (SUSP 1.10, RRIP 1.10): what Linux mounts.
//!
//! One volume, one extent a file, read-only modes, a fixed date: the same files give the same bytes.

use std::collections::BTreeMap;

use super::build::BuildError;
use super::decode::LABEL;
use super::secret::Secret;
use super::tree::Tree;
use std::io::Write;

const SECTOR: usize = 2048;
const DESCRIPTOR_SECTOR: usize = 16;
/// After the two descriptors.
const FIRST_FREE_SECTOR: usize = 18;
/// A record is at most 255 bytes long, and holds the short name, attributes and the long name.
const MAX_NAME: usize = 128;
/// 1 January 1980: seven bytes, years from 1900.
const DATE: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
const DIRECTORY_MODE: u32 = 0o40_500;
const FILE_MODE: u32 = 0o100_400;

/// A directory and where it will be.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) parent: usize,
    name: String,
    /// By long name: directories by index.
    pub(super) directories: BTreeMap<String, usize>,
    /// By long name: files by index.
    pub(super) files: BTreeMap<String, usize>,
    /// Where it begins: a sector, or a cluster.
    pub(super) sector: usize,
    /// Its size in bytes.
    pub(super) size: usize,
}

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
    let mut directories = arrange(tree)?;
    let mut sector = FIRST_FREE_SECTOR;
    let table = path_table(&directories, u32::to_le_bytes, u16::to_le_bytes);
    let table_sectors = table.len().div_ceil(SECTOR);
    sector += 2 * table_sectors;
    for index in 0..directories.len() {
        directories[index].sector = sector;
        directories[index].size = records(&directories, index, &[], tree).len();
        sector += directories[index].size / SECTOR;
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
    put(&primary_descriptor(
        &directories[0],
        sector,
        table.len(),
        table_sectors,
    ))?;
    put(b"\xffCD001\x01")?;
    put(&path_table(&directories, u32::to_le_bytes, u16::to_le_bytes))?;
    put(&path_table(&directories, u32::to_be_bytes, u16::to_be_bytes))?;
    for index in 0..directories.len() {
        put(&records(&directories, index, &starts, tree))?;
    }
    for file in &tree.files {
        put(&file.content)?;
    }
    Ok(out)
}

/// Makes directories out of paths. The root is the first; every other one comes after its parent.
pub(super) fn arrange(tree: &Tree) -> Result<Vec<Directory>, BuildError> {
    let mut directories = vec![Directory::default()];
    for (index, file) in tree.files.iter().enumerate() {
        let mut names: Vec<&str> = file.path.split('/').collect();
        if let Some(long) = names.iter().find(|name| name.len() > MAX_NAME) {
            return Err(BuildError::Name {
                name: (*long).to_string(),
            });
        }
        let last = names.pop().unwrap_or_default();
        let mut current = 0;
        for name in names {
            let next = directories.len();
            let known = *directories[current]
                .directories
                .entry(name.into())
                .or_insert(next);
            if known == next {
                directories.push(Directory {
                    parent: current,
                    name: name.into(),
                    ..Directory::default()
                });
            }
            current = known;
        }
        directories[current].files.insert(last.into(), index);
    }
    // The path table wants the upper ones first, and each level by parent.
    let mut order: Vec<usize> = (0..directories.len()).collect();
    let depth = |mut index: usize| {
        let mut depth = 0;
        while index != 0 {
            index = directories[index].parent;
            depth += 1;
        }
        depth
    };
    order.sort_by_key(|index| (depth(*index), directories[*index].parent, *index));
    let position = |old: usize| order.iter().position(|index| *index == old).unwrap_or_default();
    let mut arranged: Vec<Directory> = Vec::with_capacity(directories.len());
    for old in &order {
        let directory = &directories[*old];
        arranged.push(Directory {
            parent: position(directory.parent),
            name: directory.name.clone(),
            directories: directory
                .directories
                .iter()
                .map(|(name, old)| (name.clone(), position(*old)))
                .collect(),
            files: directory.files.clone(),
            ..Directory::default()
        });
    }
    Ok(arranged)
}

/// A name in the form that ISO 9660 allows everywhere: the long one is what Linux shows.
fn short_name(index: usize, is_directory: bool) -> String {
    if is_directory {
        format!("D{index:07}")
    } else {
        format!("F{index:07}.;1")
    }
}

fn path_table(directories: &[Directory], word: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = Vec::new();
    for (index, directory) in directories.iter().enumerate() {
        let name = if index == 0 {
            vec![0]
        } else {
            short_name(index, true).into_bytes()
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
fn records(directories: &[Directory], index: usize, starts: &[usize], tree: &Tree) -> Vec<u8> {
    let directory = &directories[index];
    let parent = &directories[directory.parent];
    let mut bytes = Vec::new();
    let mut own = Vec::new();
    if index == 0 {
        own.extend(b"SP\x07\x01\xbe\xef\0");
        own.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    }
    own.extend(attributes(DIRECTORY_MODE));
    append(
        &mut bytes,
        record(&[0], directory.sector, directory.size, true, &own),
    );
    append(
        &mut bytes,
        record(
            &[1],
            parent.sector,
            parent.size,
            true,
            &attributes(DIRECTORY_MODE),
        ),
    );
    let mut children: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, child) in &directory.directories {
        let short = short_name(*child, true);
        let use_area = [attributes(DIRECTORY_MODE), long_name(name)].concat();
        let target = &directories[*child];
        children.push((
            short.clone(),
            record(short.as_bytes(), target.sector, target.size, true, &use_area),
        ));
    }
    for (name, file) in &directory.files {
        let short = short_name(*file, false);
        let use_area = [attributes(FILE_MODE), long_name(name)].concat();
        let start = starts.get(*file).copied().unwrap_or_default();
        let size = tree.files[*file].content.len();
        children.push((
            short.clone(),
            record(short.as_bytes(), start, size, false, &use_area),
        ));
    }
    children.sort();
    children
        .into_iter()
        .for_each(|(_, record)| append(&mut bytes, record));
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes
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

fn primary_descriptor(root: &Directory, sectors: usize, table_bytes: usize, table_sectors: usize) -> Vec<u8> {
    let mut descriptor = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| descriptor[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x01CD001\x01");
    put(8, &[b' '; 64]);
    put(40, LABEL.as_bytes());
    put(80, &both32(sectors));
    put(120, &both16(1));
    put(124, &both16(1));
    put(128, &both16(SECTOR as u16));
    put(132, &both32(table_bytes));
    put(140, &(FIRST_FREE_SECTOR as u32).to_le_bytes());
    put(148, &((FIRST_FREE_SECTOR + table_sectors) as u32).to_be_bytes());
    put(156, &record(&[0], root.sector, root.size, true, &[]));
    // Publisher and the like are empty; dates are not given.
    put(190, &[b' '; 623]);
    for at in [813, 830, 847, 864] {
        put(at, &[b'0'; 16]);
    }
    put(881, &[1]);
    descriptor
}
