//! ISO 9660 (ECMA-119), read only, with the long names of Rock Ridge (SUSP 1.10, RRIP 1.10) or else Joliet.
//!
//! For config drives: label and files. Directories are bounded in size, depth and number, so loops end.

use std::io::{self, Read, Seek};

use zeroize::Zeroizing;

use super::bytes::{array, le32, read_up_to, text};
use super::signature::Signature;
use super::{FilesystemError, NamedFile};

/// The size of an ISO 9660 sector in bytes.
pub const SECTOR_BYTES: u64 = 2048;
const FIRST_DESCRIPTOR: u64 = 16 * SECTOR_BYTES;
const MAX_DESCRIPTORS: u64 = 16;
const MAX_DIRECTORY_BYTES: u32 = 1 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;
const MAX_LINKS: usize = 256;
/// How often a link may lead to another.
const MAX_LINK_DEPTH: usize = 8;
/// How often a record's extensions may be continued elsewhere.
const MAX_CONTINUATIONS: usize = 8;

const DIRECTORY: u8 = 0x02;
/// Associated file, multi-extent: nothing that is on a config drive.
const UNUSUAL: u8 = 0x04 | 0x80;

/// The ISO 9660 filesystem on `from`, if there is one.
pub(super) fn signature<R: Read + Seek>(from: &mut R) -> io::Result<Option<Signature>> {
    let descriptor = read_up_to(from, FIRST_DESCRIPTOR, SECTOR_BYTES as usize)?;
    Ok(is_descriptor(&descriptor, 1).then(|| Signature {
        kind: "iso9660",
        label: text(&descriptor, 40, 32),
        uuid: None,
    }))
}

fn is_descriptor(sector: &[u8], kind: u8) -> bool {
    sector.first() == Some(&kind) && sector[1..].starts_with(b"CD001")
}

fn unsound(problem: impl Into<String>) -> FilesystemError {
    FilesystemError::Unsound {
        kind: "ISO 9660",
        problem: problem.into(),
    }
}

/// Reads all files, of together at most `limit` bytes. What symbolic links name is read as if it were there; devices are
/// left out.
pub fn read_files<R: Read + Seek>(device: &mut R, limit: u64) -> Result<Vec<NamedFile>, FilesystemError> {
    let primary = read_up_to(device, FIRST_DESCRIPTOR, SECTOR_BYTES as usize)?;
    if !is_descriptor(&primary, 1) {
        return Err(unsound("no volume descriptor"));
    }
    let root = Record::parse(&primary[156..]).ok_or_else(|| unsound("no root directory"))?;
    let skip = system_use_offset(device, &root)?;
    let (root, names) = match (skip, joliet_root(device)?) {
        (Some(skip), _) => (root, Names::RockRidge { skip }),
        (None, Some(joliet)) => (joliet, Names::Joliet),
        (None, None) => (root, Names::Plain),
    };
    let mut walk = Walk {
        device,
        names,
        found: Vec::new(),
        links: Vec::new(),
        left: limit,
        seen: 0,
    };
    walk.directory("", &root, 0)?;
    walk.follow_links()?;
    Ok(walk.found)
}

/// How names are kept.
#[derive(Clone, Copy)]
enum Names {
    /// In the system use fields, which begin after so many bytes.
    RockRidge { skip: usize },
    /// In UTF-16, in a tree of their own.
    Joliet,
    /// In capital letters with a version behind them.
    Plain,
}

/// A directory record.
struct Record {
    start: u64,
    size: u32,
    flags: u8,
    name: Vec<u8>,
    system_use: Vec<u8>,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let length = usize::from(*bytes.first()?);
        let bytes = bytes.get(..length).filter(|bytes| bytes.len() >= 34)?;
        let name_end = 33 + usize::from(bytes[32]);
        let name = bytes.get(33..name_end)?.to_vec();
        // A byte makes the length of the name odd, so that what follows begins at an even place.
        let system_use = bytes
            .get(name_end + usize::from(bytes[32] % 2 == 0)..)
            .unwrap_or_default()
            .to_vec();
        Some(Self {
            start: u64::from(le32(bytes, 2)) * SECTOR_BYTES,
            size: le32(bytes, 10),
            flags: bytes[25],
            name,
            system_use,
        })
    }

    fn is_directory(&self) -> bool {
        self.flags & DIRECTORY != 0
    }
}

/// The records of a directory. None reaches over the end of a sector; zeros fill it up.
fn records<R: Read + Seek>(device: &mut R, directory: &Record) -> Result<Vec<Record>, FilesystemError> {
    let size = directory.size.min(MAX_DIRECTORY_BYTES) as usize;
    let bytes = Zeroizing::new(read_up_to(device, directory.start, size)?);
    let mut records = Vec::new();
    for sector in bytes.chunks(SECTOR_BYTES as usize) {
        let mut rest = sector;
        while let Some(record) = Record::parse(rest) {
            rest = &rest[usize::from(rest[0])..];
            records.push(record);
        }
    }
    Ok(records)
}

/// Where the system use fields begin, if the root directory says that there are any (SUSP, "SP").
fn system_use_offset<R: Read + Seek>(
    device: &mut R,
    root: &Record,
) -> Result<Option<usize>, FilesystemError> {
    let own = records(device, root)?.into_iter().next();
    let own = own.filter(|own| own.system_use.starts_with(b"SP\x07\x01\xbe\xef"));
    Ok(own.map(|own| usize::from(own.system_use[6])))
}

fn joliet_root<R: Read + Seek>(device: &mut R) -> Result<Option<Record>, FilesystemError> {
    for index in 1..MAX_DESCRIPTORS {
        let sector = read_up_to(
            device,
            FIRST_DESCRIPTOR + index * SECTOR_BYTES,
            SECTOR_BYTES as usize,
        )?;
        let is_joliet = || matches!(array(&sector, 88), [0x25, 0x2f, 0x40 | 0x43 | 0x45]);
        if is_descriptor(&sector, 2) && is_joliet() {
            return Ok(Record::parse(&sector[156..]));
        }
        if !is_descriptor(&sector, 2) && !is_descriptor(&sector, 0) {
            break;
        }
    }
    Ok(None)
}

struct Walk<'device, R> {
    device: &'device mut R,
    names: Names,
    found: Vec<NamedFile>,
    /// Symbolic links: where each is, and what it names.
    links: Vec<(String, String)>,
    left: u64,
    seen: usize,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn directory(&mut self, path: &str, directory: &Record, depth: usize) -> Result<(), FilesystemError> {
        if depth > MAX_DEPTH {
            return Err(unsound("too many directories in each other"));
        }
        // The first two are the directory itself and the one above.
        for record in records(self.device, directory)?.into_iter().skip(2) {
            self.seen += 1;
            if self.seen > MAX_FILES {
                return Err(unsound("too many files"));
            }
            let (name, kind) = self.name_and_kind(&record)?;
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            match kind {
                _ if record.is_directory() => self.directory(&path, &record, depth + 1)?,
                Kind::File => self.file(path, &record)?,
                Kind::Link(target) => self.links.push((path, target)),
                Kind::Special => {}
            }
        }
        Ok(())
    }

    /// Adds what the links name, each once; what is not there, or not in here, they name in vain.
    fn follow_links(&mut self) -> Result<(), FilesystemError> {
        let mut links = std::mem::take(&mut self.links);
        if links.len() > MAX_LINKS {
            return Err(unsound("too many symbolic links"));
        }
        // A link may name what another one adds.
        for _ in 0..MAX_LINK_DEPTH {
            let mut in_vain = Vec::new();
            for (path, target) in links {
                if !self.copy(&resolve(&path, &target), &path)? {
                    in_vain.push((path, target));
                }
            }
            links = in_vain;
        }
        Ok(())
    }

    /// Adds the file `from`, or the files below it, once more as `to`. Says whether there are any.
    fn copy(&mut self, from: &Option<String>, to: &str) -> Result<bool, FilesystemError> {
        let Some(from) = from else { return Ok(false) };
        let below = |path: &str| {
            let rest = path.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        let copies = self.found.iter().filter_map(|file| {
            let content = file.content.clone();
            below(&file.path).map(|path| NamedFile { path, content })
        });
        let copies: Vec<NamedFile> = copies.collect();
        self.seen += copies.len();
        let size: u64 = copies.iter().map(|file| file.content.len() as u64).sum();
        self.left = self
            .left
            .checked_sub(size)
            .filter(|_| self.seen <= MAX_FILES)
            .ok_or_else(|| unsound("links to files larger than the image"))?;
        let are_any = !copies.is_empty();
        self.found.extend(copies);
        Ok(are_any)
    }

    fn file(&mut self, path: String, record: &Record) -> Result<(), FilesystemError> {
        if record.flags & UNUSUAL != 0 {
            return Err(unsound(format!(
                "\"{}\" is in several parts",
                path.escape_debug()
            )));
        }
        let size = u64::from(record.size);
        self.left = self
            .left
            .checked_sub(size)
            .ok_or_else(|| unsound("files larger than the image"))?;
        let content = Zeroizing::new(read_up_to(self.device, record.start, record.size as usize)?);
        if (content.len() as u64) < size {
            return Err(unsound(format!("\"{}\" ends early", path.escape_debug())));
        }
        self.found.push(NamedFile { path, content });
        Ok(())
    }

    fn name_and_kind(&mut self, record: &Record) -> Result<(String, Kind), FilesystemError> {
        match self.names {
            Names::Plain => Ok((plain_name(&record.name), Kind::File)),
            Names::Joliet => {
                let units = record
                    .name
                    .chunks_exact(2)
                    .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                let name = String::from_utf16_lossy(&units.collect::<Vec<_>>());
                Ok((name.split(';').next().unwrap_or_default().into(), Kind::File))
            }
            Names::RockRidge { skip } => {
                let mut extension = Extension::default();
                let fields = record.system_use.get(skip..).unwrap_or_default();
                extension.collect(self.device, fields)?;
                let name = if extension.name.is_empty() {
                    plain_name(&record.name)
                } else {
                    String::from_utf8_lossy(&extension.name).into_owned()
                };
                Ok((name, extension.kind()))
            }
        }
    }
}

/// `META_DATA.JSON;1` is `meta_data.json`, as Linux shows it.
fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).to_lowercase();
    let name = name.split(';').next().unwrap_or_default();
    name.trim_end_matches('.').into()
}

/// What `target`, a symbolic link's text, names when the link is at `path`; `None` when that is not in this filesystem.
fn resolve(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut names: Vec<&str> = path.split('/').collect();
    names.pop();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}

/// What is no directory.
enum Kind {
    File,
    /// A symbolic link, and what it names.
    Link(String),
    Special,
}

/// What Rock Ridge says about a file.
#[derive(Default)]
struct Extension {
    name: Vec<u8>,
    link: Vec<u8>,
    is_special: bool,
}

impl Extension {
    fn kind(&self) -> Kind {
        if !self.link.is_empty() {
            Kind::Link(String::from_utf8_lossy(&self.link).into_owned())
        } else if self.is_special {
            Kind::Special
        } else {
            Kind::File
        }
    }

    /// The names in the field "SL", each with a slash behind it unless it is continued.
    fn collect_link(&mut self, mut components: &[u8]) {
        const CONTINUED: u8 = 0x01;
        while let [flags, length, rest @ ..] = components
            && let Some((name, rest)) = rest.split_at_checked(usize::from(*length))
        {
            match flags & !CONTINUED {
                0x02 => self.link.push(b'.'),
                0x04 => self.link.extend(b".."),
                // The root: the slash will do.
                0x08 => {}
                _ => self.link.extend(name),
            }
            if flags & CONTINUED == 0 {
                self.link.push(b'/');
            }
            components = rest;
        }
    }

    fn collect<R: Read + Seek>(&mut self, device: &mut R, fields: &[u8]) -> Result<(), FilesystemError> {
        const REGULAR: u32 = 0o100_000;
        const KIND: u32 = 0o170_000;
        let mut fields = fields.to_vec();
        for _ in 0..MAX_CONTINUATIONS {
            let mut next = None;
            let mut rest = &fields[..];
            while let [a, b, length, _, ..] = *rest
                && length >= 4
                && let Some(field) = rest.get(..usize::from(length))
            {
                match [a, b] {
                    [b'N', b'M'] => self.name.extend_from_slice(field.get(5..).unwrap_or_default()),
                    [b'P', b'X'] => self.is_special |= !matches!(le32(field, 4) & KIND, REGULAR | 0),
                    [b'S', b'L'] => self.collect_link(field.get(5..).unwrap_or_default()),
                    [b'C', b'E'] => next = Some((le32(field, 4), le32(field, 12), le32(field, 20))),
                    _ => {}
                }
                rest = &rest[usize::from(length)..];
            }
            let Some((sector, offset, length)) = next else {
                return Ok(());
            };
            let start = u64::from(sector) * SECTOR_BYTES + u64::from(offset);
            fields = read_up_to(device, start, length.min(SECTOR_BYTES as u32) as usize)?;
        }
        Err(unsound("extensions are continued too often"))
    }
}
