//! Writes small FAT16 images (Microsoft's "FAT: General Overview of On-Disk Format", 1.03) with long names.
//!
//! For disks whose sectors are too large for ISO 9660. Every file and directory is one run of clusters.

use std::io::Write;

use super::directories::{Directory, arrange};
use super::error::BuildError;
use super::secret::Secret;
use super::tree::Tree;

/// FAT pads with spaces, and its label is in capital letters.
const LABEL: &[u8; 11] = b"CONFIG-2   ";
const ENTRY: usize = 32;
/// FAT16 has 4,085 clusters at least and 65,524 at most; both ends are left alone, because programs differ about them.
const CLUSTERS: std::ops::RangeInclusive<usize> = 4_200..=65_000;
const FIRST_CLUSTER: usize = 2;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
/// 1 January 1980.
const DATE: [u8; 2] = [0x21, 0];

/// Where the parts of the image are; sizes in bytes, but for `clusters`.
struct Shape {
    sector: usize,
    cluster: usize,
    fat: usize,
    root: usize,
    clusters: usize,
}

/// Makes an image of `tree`, labelled `CONFIG-2`, with sectors of `sector` bytes, of at most `limit` bytes.
pub(super) fn image(tree: &Tree, sector: usize, limit: u64) -> Result<Secret, BuildError> {
    let mut directories = arrange(tree)?;
    if directories.iter().any(has_names_alike) {
        return Err(BuildError::Clash);
    }
    let mut cluster = sector;
    let (shape, starts) = loop {
        let (used, starts) = place(&mut directories, tree, cluster);
        if used <= *CLUSTERS.end() {
            break (Shape::new(sector, cluster, used, &directories[0]), starts);
        }
        cluster *= 2;
    };
    if shape.total() as u64 > limit {
        return Err(BuildError::TooLarge);
    }
    let mut out = Secret::with_limit(limit);
    let mut put = |bytes: &[u8], to: usize| {
        let padding = vec![0; to - bytes.len()];
        out.write_all(bytes)
            .and_then(|()| out.write_all(&padding))
            .map_err(|_| BuildError::TooLarge)
    };
    put(&shape.boot_sector(), sector)?;
    let table = allocation(&directories, tree, &starts, shape.cluster);
    put(&table, shape.fat)?;
    put(&table, shape.fat)?;
    put(&entries(&directories, 0, tree, &starts), shape.root)?;
    for (index, directory) in directories.iter().enumerate().skip(1) {
        put(
            &entries(&directories, index, tree, &starts),
            directory.size.next_multiple_of(shape.cluster),
        )?;
    }
    for file in &tree.files {
        put(&file.content, file.content.len().next_multiple_of(shape.cluster))?;
    }
    let left = shape.total() - out.len();
    out.write_all(&vec![0; left]).map_err(|_| BuildError::TooLarge)?;
    Ok(out)
}

/// Whether names differ only in what FAT doesn't keep apart.
fn has_names_alike(directory: &Directory) -> bool {
    let names = directory.directories.keys().chain(directory.files.keys());
    let mut alike: Vec<String> = names.map(|name| name.to_lowercase()).collect();
    alike.sort();
    alike.windows(2).any(|pair| pair[0] == pair[1])
}

/// Gives every directory but the root and every file its clusters. Returns how many are used and where files begin.
fn place(directories: &mut [Directory], tree: &Tree, cluster: usize) -> (usize, Vec<usize>) {
    let mut next = FIRST_CLUSTER;
    for index in 0..directories.len() {
        directories[index].size = entries(directories, index, tree, &[]).len();
        directories[index].sector = if index == 0 { 0 } else { next };
        next += if index == 0 {
            0
        } else {
            directories[index].size.div_ceil(cluster)
        };
    }
    let mut starts = Vec::with_capacity(tree.files.len());
    for file in &tree.files {
        // An empty file has no clusters.
        starts.push(if file.content.is_empty() { 0 } else { next });
        next += file.content.len().div_ceil(cluster);
    }
    (next - FIRST_CLUSTER, starts)
}

impl Shape {
    fn new(sector: usize, cluster: usize, used: usize, root: &Directory) -> Self {
        let clusters = used.max(*CLUSTERS.start());
        Self {
            sector,
            cluster,
            fat: (2 * (clusters + FIRST_CLUSTER)).next_multiple_of(sector),
            root: root.size.max(512 * ENTRY).next_multiple_of(sector),
            clusters,
        }
    }

    fn total(&self) -> usize {
        self.sector + 2 * self.fat + self.root + self.clusters * self.cluster
    }

    fn boot_sector(&self) -> Vec<u8> {
        let mut boot = vec![0; self.sector];
        let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
        let half = |number: usize| (number as u16).to_le_bytes();
        let sectors = self.total() / self.sector;
        put(0, b"\xeb\x3c\x90LANDFALL");
        put(11, &half(self.sector));
        put(13, &[(self.cluster / self.sector) as u8]);
        put(14, &half(1));
        put(16, &[2]);
        put(17, &half(self.root / ENTRY));
        match u16::try_from(sectors) {
            Ok(sectors) => put(19, &sectors.to_le_bytes()),
            Err(_) => put(32, &(sectors as u32).to_le_bytes()),
        }
        put(21, &[0xf8]);
        put(22, &half(self.fat / self.sector));
        // Sectors and heads mean nothing today, but zeros offend some programs.
        put(24, &half(32));
        put(26, &half(64));
        put(36, &[0x80, 0, 0x29]);
        put(39, &uuid::Uuid::new_v4().as_bytes()[..4]);
        put(43, LABEL);
        put(54, b"FAT16   ");
        put(510, &[0x55, 0xaa]);
        boot
    }
}

/// The table of clusters: each names its successor, the last of a run says so.
fn allocation(directories: &[Directory], tree: &Tree, starts: &[usize], cluster: usize) -> Vec<u8> {
    let mut table: Vec<u16> = vec![0xfff8, 0xffff];
    let runs = directories
        .iter()
        .skip(1)
        .map(|directory| (directory.sector, directory.size));
    let files = starts
        .iter()
        .zip(&tree.files)
        .map(|(start, file)| (*start, file.content.len()));
    for (start, size) in runs.chain(files).filter(|(start, _)| *start != 0) {
        let end = start + size.div_ceil(cluster);
        table.extend((start + 1..end).map(|next| next as u16));
        table.push(0xffff);
    }
    table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The entries of a directory. Without `starts` their number is right and their places aren't.
fn entries(directories: &[Directory], index: usize, tree: &Tree, starts: &[usize]) -> Vec<u8> {
    let directory = &directories[index];
    let mut bytes = Vec::new();
    if index == 0 {
        bytes.extend(entry(LABEL, VOLUME_LABEL, 0, 0));
    } else {
        bytes.extend(entry(b".          ", DIRECTORY, directory.sector, 0));
        bytes.extend(entry(
            b"..         ",
            DIRECTORY,
            directories[directory.parent].sector,
            0,
        ));
    }
    for (name, child) in &directory.directories {
        let short = short_name('D', *child);
        bytes.extend(long_name(name, &short));
        bytes.extend(entry(&short, DIRECTORY, directories[*child].sector, 0));
    }
    for (name, file) in &directory.files {
        let short = short_name('F', *file);
        bytes.extend(long_name(name, &short));
        let start = starts.get(*file).copied().unwrap_or_default();
        bytes.extend(entry(&short, ARCHIVE, start, tree.files[*file].content.len()));
    }
    bytes
}

/// A name of eight letters that nothing else has.
fn short_name(kind: char, index: usize) -> [u8; 11] {
    let mut name = *b"           ";
    name[..8].copy_from_slice(format!("{kind}{index:07}").as_bytes());
    name
}

fn entry(name: &[u8; 11], attributes: u8, cluster: usize, size: usize) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE);
    }
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..].copy_from_slice(&(size as u32).to_le_bytes());
    entry
}

/// The entries that hold a long name, its last piece first.
fn long_name(name: &str, short: &[u8; 11]) -> Vec<u8> {
    const PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let checksum = short
        .iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let pieces: Vec<&[u16]> = units.chunks(PLACES.len()).collect();
    let mut bytes = Vec::new();
    for (index, piece) in pieces.iter().enumerate().rev() {
        let mut entry = [0; ENTRY];
        let is_last = index + 1 == pieces.len();
        entry[0] = index as u8 + 1 + if is_last { 0x40 } else { 0 };
        entry[11] = LONG_NAME;
        entry[13] = checksum;
        for (place, at) in PLACES.iter().enumerate() {
            // A zero ends the name; ones fill up behind it.
            let unit = piece
                .get(place)
                .copied()
                .unwrap_or(if place == piece.len() { 0 } else { 0xffff });
            entry[*at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        bytes.extend(entry);
    }
    bytes
}
