//! FAT12, FAT16 and FAT32, read only (Microsoft's "FAT: General Overview of On-Disk Format", 1.03).
//!
//! For EFI system partitions and config drives: find a file, list a directory, read a file. Chains of clusters and
//! directories are bounded by what the volume can hold, so a loop in them ends.

use std::io::{self, Read, Seek};

use zeroize::Zeroizing;

use super::bytes::{array, le16, le32, read_up_to, text};
use super::signature::Signature;
use super::{FilesystemError, NamedFile};

/// The most bytes of a directory that are read: as many entries as FAT allows.
const MAX_DIRECTORY_BYTES: u64 = 65_536 * ENTRY_BYTES as u64;
const ENTRY_BYTES: usize = 32;
const MAX_ALLOCATION: u64 = 64 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name: the long one, where there is one.
    pub name: String,
    /// The name in 8.3 form.
    pub short_name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The size in bytes; 0 for a directory.
    pub size_bytes: u64,
    first_cluster: u32,
}

impl Entry {
    /// FAT does not tell upper from lower case.
    fn is_called(&self, name: &str) -> bool {
        let fold = |text: &str| text.to_lowercase();
        fold(&self.name) == fold(name) || fold(&self.short_name) == fold(name)
    }
}

/// A FAT filesystem.
pub struct Volume<R> {
    device: R,
    shape: Shape,
    label: Option<String>,
}

/// Where the parts of the volume are, from its boot sector.
#[derive(Clone, Copy, Debug)]
struct Shape {
    width: Width,
    sector_bytes: u64,
    cluster_bytes: u64,
    /// The first FAT.
    fat_start: u64,
    /// The root directory, as FAT12 and FAT16 have it.
    root_start: u64,
    root_bytes: u64,
    /// The root directory, as FAT32 has it.
    root_cluster: u32,
    /// Where cluster 2 begins.
    data_start: u64,
    clusters: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

fn unsound(problem: impl Into<String>) -> FilesystemError {
    FilesystemError::Unsound {
        kind: "FAT",
        problem: problem.into(),
    }
}

impl Shape {
    fn parse(boot: &[u8]) -> Result<Self, FilesystemError> {
        let sector_bytes = u64::from(le16(boot, 11));
        let sectors_per_cluster = u64::from(array::<1>(boot, 13)[0]);
        let reserved = u64::from(le16(boot, 14));
        let fats = u64::from(array::<1>(boot, 16)[0]);
        let root_entries = u64::from(le16(boot, 17));
        if array(boot, 510) != [0x55, 0xaa] || !matches!(boot.first(), Some(0xeb | 0xe9)) {
            return Err(unsound("no boot sector"));
        }
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) || !sectors_per_cluster.is_power_of_two() {
            return Err(unsound(format!(
                "sectors of {sector_bytes} bytes, {sectors_per_cluster} in a cluster"
            )));
        }
        if reserved == 0 || !matches!(fats, 1..=4) || array::<1>(boot, 21)[0] < 0xf0 {
            return Err(unsound("impossible boot sector"));
        }
        let either = |small: u16, large: u32| {
            if small == 0 {
                u64::from(large)
            } else {
                u64::from(small)
            }
        };
        let sectors = either(le16(boot, 19), le32(boot, 32));
        let fat_sectors = either(le16(boot, 22), le32(boot, 36));
        let root_sectors = (root_entries * ENTRY_BYTES as u64).div_ceil(sector_bytes);
        let data_sector = reserved + fats * fat_sectors + root_sectors;
        let clusters = sectors
            .checked_sub(data_sector)
            .map(|data| data / sectors_per_cluster)
            .filter(|clusters| (1..0x0fff_fff5).contains(clusters))
            .ok_or_else(|| unsound("no room for data"))?;
        let width = match clusters {
            ..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => Width::Fat32,
        };
        if (width == Width::Fat32) != (root_entries == 0) {
            return Err(unsound("root directory does not fit the number of clusters"));
        }
        Ok(Self {
            width,
            sector_bytes,
            cluster_bytes: sectors_per_cluster * sector_bytes,
            fat_start: reserved * sector_bytes,
            root_start: (data_sector - root_sectors) * sector_bytes,
            root_bytes: root_entries * ENTRY_BYTES as u64,
            root_cluster: le32(boot, 44),
            data_start: data_sector * sector_bytes,
            clusters: u32::try_from(clusters).map_err(|_| unsound("too many clusters"))?,
        })
    }

    fn is_fat32(&self) -> bool {
        self.width == Width::Fat32
    }

    /// Where `cluster` begins, in bytes.
    fn cluster_start(&self, cluster: u32) -> Result<u64, FilesystemError> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters);
        let index = index.ok_or_else(|| unsound(format!("cluster {cluster} does not exist")))?;
        Ok(self.data_start + u64::from(index) * self.cluster_bytes)
    }
}

impl<R: Read + Seek> Volume<R> {
    /// Reads the boot sector and the label of the volume that begins with `device`.
    pub fn open(mut device: R) -> Result<Self, FilesystemError> {
        let boot = read_up_to(&mut device, 0, 512)?;
        let shape = Shape::parse(&boot)?;
        let mut volume = Self {
            device,
            shape,
            label: None,
        };
        let root = volume.root_bytes()?;
        volume.label = label_entry(&root).or_else(|| {
            let offset = if shape.is_fat32() { 71 } else { 43 };
            text(&boot, offset, 11).filter(|label| label != "NO NAME")
        });
        Ok(volume)
    }

    /// The volume's label.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The size of the sectors that the volume was made for, in bytes: it can't live on a disk with larger ones.
    pub fn sector_bytes(&self) -> u64 {
        self.shape.sector_bytes
    }

    /// What is called `path` (names with `/` between them), if anything is.
    pub fn find(&mut self, path: &str) -> Result<Option<Entry>, FilesystemError> {
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        let mut bytes = self.root_bytes()?;
        while let Some(name) = names.next() {
            let Some(entry) = entries(&bytes).into_iter().find(|entry| entry.is_called(name)) else {
                return Ok(None);
            };
            if names.peek().is_none() {
                return Ok(Some(entry));
            }
            if !entry.is_directory {
                return Ok(None);
            }
            bytes = self.directory_bytes(&entry)?;
        }
        Ok(None)
    }

    /// What is in the directory `path`, `/` for the root; nothing when there is no such directory.
    pub fn list(&mut self, path: &str) -> Result<Vec<Entry>, FilesystemError> {
        if path.split('/').all(str::is_empty) {
            return Ok(entries(&self.root_bytes()?));
        }
        match self.find(path)? {
            Some(entry) if entry.is_directory => Ok(entries(&self.directory_bytes(&entry)?)),
            _ => Ok(Vec::new()),
        }
    }

    /// The first bytes of a file, at most `limit` of them.
    pub fn read(&mut self, file: &Entry, limit: u64) -> Result<Vec<u8>, FilesystemError> {
        let wanted = file.size_bytes.min(limit);
        let bytes = self.chain(file.first_cluster, wanted)?;
        if (bytes.len() as u64) < wanted {
            return Err(unsound(format!("\"{}\" ends early", file.name.escape_debug())));
        }
        Ok(bytes)
    }

    /// Reads all files, of together at most `limit` bytes.
    pub fn read_files(&mut self, limit: u64) -> Result<Vec<NamedFile>, FilesystemError> {
        let mut found = Vec::new();
        let mut left = limit;
        let mut directories = vec![(String::new(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            for entry in self.list(&directory)? {
                let path = if directory.is_empty() {
                    entry.name.clone()
                } else {
                    format!("{directory}/{}", entry.name)
                };
                if found.len() + directories.len() > MAX_FILES || depth > MAX_DEPTH {
                    return Err(unsound("too many files or directories"));
                }
                if entry.is_directory {
                    directories.push((path, depth + 1));
                    continue;
                }
                left = left
                    .checked_sub(entry.size_bytes)
                    .ok_or_else(|| unsound("files larger than the image"))?;
                let content = Zeroizing::new(self.read(&entry, entry.size_bytes)?);
                found.push(NamedFile { path, content });
            }
        }
        Ok(found)
    }

    fn root_bytes(&mut self) -> Result<Vec<u8>, FilesystemError> {
        if self.shape.is_fat32() {
            return self.chain(self.shape.root_cluster, MAX_DIRECTORY_BYTES);
        }
        let length = self.shape.root_bytes.min(MAX_DIRECTORY_BYTES) as usize;
        Ok(read_up_to(&mut self.device, self.shape.root_start, length)?)
    }

    fn directory_bytes(&mut self, directory: &Entry) -> Result<Vec<u8>, FilesystemError> {
        // `..` of a directory in the root names cluster 0.
        if directory.first_cluster == 0 {
            return self.root_bytes();
        }
        self.chain(directory.first_cluster, MAX_DIRECTORY_BYTES)
    }

    /// The bytes of the clusters from `first` on, at most `limit` of them.
    fn chain(&mut self, first: u32, limit: u64) -> Result<Vec<u8>, FilesystemError> {
        // All at once, so that growing leaves no copies of what may be secret; but no more than a lie could ask for.
        let mut bytes = Vec::with_capacity(limit.min(MAX_ALLOCATION) as usize);
        let mut next = Some(first);
        let mut steps = 0;
        while let Some(cluster) = next
            && (bytes.len() as u64) < limit
        {
            let start = self.shape.cluster_start(cluster)?;
            let length = self.shape.cluster_bytes.min(limit - bytes.len() as u64) as usize;
            let read = read_up_to(&mut self.device, start, length)?;
            if read.len() < length {
                return Err(unsound("the device ends before the volume does"));
            }
            bytes.extend_from_slice(&read);
            steps += 1;
            if steps > self.shape.clusters {
                return Err(unsound("a chain of clusters is a loop"));
            }
            next = self.after(cluster)?;
        }
        Ok(bytes)
    }

    /// The cluster that follows `cluster` in its chain.
    fn after(&mut self, cluster: u32) -> Result<Option<u32>, FilesystemError> {
        let position = u64::from(cluster);
        let mut entry =
            |offset: u64, length| read_up_to(&mut self.device, self.shape.fat_start + offset, length);
        let (next, end) = match self.shape.width {
            Width::Fat12 => {
                let pair = le16(&entry(position + position / 2, 2)?, 0);
                (
                    u32::from(if position % 2 == 0 {
                        pair & 0xfff
                    } else {
                        pair >> 4
                    }),
                    0xff8,
                )
            }
            Width::Fat16 => (u32::from(le16(&entry(2 * position, 2)?, 0)), 0xfff8),
            Width::Fat32 => (le32(&entry(4 * position, 4)?, 0) & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < end).then_some(next))
    }
}

/// The FAT filesystem that `from` begins with, if it does.
pub(super) fn signature<R: Read + Seek>(from: &mut R) -> io::Result<Option<Signature>> {
    let boot = read_up_to(from, 0, 512)?;
    let Ok(shape) = Shape::parse(&boot) else {
        return Ok(None);
    };
    let serial = le32(&boot, if shape.is_fat32() { 67 } else { 39 });
    let label = match Volume::open(from) {
        Ok(volume) => volume.label,
        Err(FilesystemError::Io(error)) => return Err(error),
        Err(FilesystemError::Unsound { .. }) => None,
    };
    let uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    Ok(Some(Signature {
        kind: "vfat",
        label,
        uuid,
    }))
}

const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// The label that is kept as an entry of the root directory.
fn label_entry(root: &[u8]) -> Option<String> {
    raw_entries(root)
        .find(|raw| {
            raw[11] & 0x3f & (VOLUME_LABEL | DIRECTORY) == VOLUME_LABEL && raw[11] & 0x3f != LONG_NAME
        })
        .and_then(|raw| text(raw, 0, 11))
}

/// The used entries up to the end mark.
fn raw_entries(directory: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (entries, _) = directory.as_chunks::<ENTRY_BYTES>();
    entries
        .iter()
        .take_while(|raw| raw[0] != 0)
        .filter(|raw| raw[0] != 0xe5)
        .map(|raw| &raw[..])
}

fn entries(directory: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut long_name = LongName::default();
    for raw in raw_entries(directory) {
        if raw[11] & 0x3f == LONG_NAME {
            long_name.add(raw);
            continue;
        }
        let long = long_name.take(raw);
        let short_name = short_name(raw);
        if raw[11] & VOLUME_LABEL != 0 || short_name == "." || short_name == ".." {
            continue;
        }
        let is_directory = raw[11] & DIRECTORY != 0;
        found.push(Entry {
            name: long.unwrap_or_else(|| short_name.clone()),
            short_name,
            is_directory,
            size_bytes: if is_directory { 0 } else { u64::from(le32(raw, 28)) },
            first_cluster: u32::from(le16(raw, 20)) << 16 | u32::from(le16(raw, 26)),
        });
    }
    found
}

/// The 8.3 name; bits 3 and 4 of byte 12 say that base and extension are in lower case (as Linux and NT write it).
fn short_name(raw: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>, lower: bool| {
        let text: String = raw[range].iter().map(|byte| char::from(*byte)).collect();
        let text = text.trim_end().to_string();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let base = part(0..8, raw[12] & 0x08 != 0);
    let extension = part(8..11, raw[12] & 0x10 != 0);
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// A long name, collected from the entries that stand before its file: last piece first.
#[derive(Default)]
struct LongName {
    units: Vec<[u16; 13]>,
    checksum: u8,
    missing: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8]) {
        let sequence = raw[0];
        if sequence & 0x40 != 0 {
            *self = Self {
                units: Vec::new(),
                checksum: raw[13],
                missing: sequence & 0x1f,
            };
        } else if sequence != self.missing || raw[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let offsets = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        self.units.push(offsets.map(|offset| le16(raw, offset)));
        self.missing = self.missing.saturating_sub(1);
    }

    /// The collected name, if it belongs to the short entry `raw`.
    fn take(&mut self, raw: &[u8]) -> Option<String> {
        let collected = std::mem::take(self);
        let checksum = raw[..11]
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if collected.units.is_empty() || collected.missing != 0 || checksum != collected.checksum {
            return None;
        }
        let units: Vec<u16> = collected.units.iter().rev().flatten().copied().collect();
        let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        Some(String::from_utf16_lossy(&units[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn bytes_that_are_no_boot_sector_are_refused() {
        for bytes in [vec![], vec![0; 512], vec![0xff; 512]] {
            assert!(Volume::open(Cursor::new(bytes)).is_err());
        }
    }

    /// A boot sector of FAT16 with 512-byte sectors, one sector in a cluster, 5000 clusters.
    fn boot_sector() -> Vec<u8> {
        let mut boot = vec![0; 512];
        boot[0] = 0xeb;
        boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
        boot[13] = 1;
        boot[14] = 1;
        boot[16] = 1;
        boot[17..19].copy_from_slice(&16_u16.to_le_bytes());
        boot[19..21].copy_from_slice(&(1 + 20 + 1 + 5000_u16).to_le_bytes());
        boot[21] = 0xf8;
        boot[22] = 20;
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    #[test]
    fn a_chain_that_loops_ends_with_an_error() {
        let mut volume = boot_sector();
        volume.resize(512 * (1 + 20 + 1 + 5000), 0);
        let (fat, root) = (512, 512 * 21);
        volume[fat + 4..fat + 6].copy_from_slice(&3_u16.to_le_bytes());
        volume[fat + 6..fat + 8].copy_from_slice(&2_u16.to_le_bytes());
        volume[root..root + 11].copy_from_slice(b"A       TXT");
        volume[root + 26] = 2;
        volume[root + 28..root + 32].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut volume = Volume::open(Cursor::new(volume)).unwrap();
        let file = volume.find("a.txt").unwrap().unwrap();
        assert_eq!(volume.read(&file, 600).unwrap().len(), 600);
        let error = volume.read(&file, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("loop"), "{error}");
    }

    #[test]
    fn each_field_of_the_boot_sector_is_checked() {
        assert!(Shape::parse(&boot_sector()).is_ok());
        for (offset, wrong) in [
            (0, 0),
            (12, 3),
            (13, 3),
            (13, 0),
            (14, 0),
            (16, 0),
            (17, 0),
            (21, 0),
            (22, 255),
            (511, 0),
        ] {
            let mut boot = boot_sector();
            boot[offset] = wrong;
            if offset == 22 {
                boot[23] = wrong;
            }
            assert!(Shape::parse(&boot).is_err(), "byte {offset} = {wrong}");
        }
    }
}
