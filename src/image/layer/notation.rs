//! Trees as text, for tests: a line per name, the same for what goes into an archive and for what comes out.
//!
//! ```text
//! dir a 0700 5:6 @7.5 {user.k=v}
//! file a/b 4755 "text"
//! symlink a/c -> ../target
//! hard a/d = a/b
//! char a/e 1:3
//! block a/f 8:0
//! fifo a/g
//! whiteout a/h
//! opaque a
//! ```
//!
//! Left out: mode 0755 of a directory and 0644 of all else, owner 0:0, time 0. Bytes that aren't printable
//! are `\xNN`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::directory::open_root;
use super::whiteout::{OPAQUE_XATTR, ORIGIN_XATTR};
use super::xattr;

/// How an archive says what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// POSIX 1988, with extended headers for what does not fit.
    #[default]
    Ustar,
    /// Everything in extended headers, and nonsense where they make it void.
    Pax,
    /// GNU's long names and binary numbers.
    Gnu,
    /// Unix V7's, for files, directories and links.
    Old,
}

/// Archives `lines`; a `whiteout` becomes a `.wh.` name and `opaque` a `.wh..wh..opq`.
pub fn archive(lines: &str) -> Vec<u8> {
    archive_as(lines, Dialect::default())
}

/// As [`archive`], in another dialect.
pub fn archive_as(lines: &str, dialect: Dialect) -> Vec<u8> {
    let entries = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let parsed = entries.map(|line| Line {
        dialect,
        ..Line::parse(line)
    });
    let mut bytes: Vec<u8> = parsed.flat_map(Line::archived).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// One entry of an archive: header, data and padding, with an extended header before it where one is needed.
pub fn entry(kind: u8, name: &[u8], link: &[u8], data: &[u8], records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let line = Line {
        path: name.into(),
        link: link.into(),
        data: data.into(),
        ..Line::default()
    };
    line.blocks(kind, records)
}

/// One record of an extended header.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let with = |digits: usize| rest.len() + digits;
    let digits = (1..)
        .find(|digits| with(*digits).to_string().len() == *digits)
        .unwrap();
    [with(digits).to_string().as_bytes(), &rest].concat()
}

#[derive(Default)]
struct Line {
    dialect: Dialect,
    kind: String,
    path: Vec<u8>,
    mode: Option<u32>,
    owner: (u64, u64),
    time: String,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    link: Vec<u8>,
    device: (u32, u32),
    data: Vec<u8>,
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut line = Self::default();
        let mut words = text.splitn(2, ' ');
        line.kind = words.next().unwrap().into();
        let (path, mut rest) = words
            .next()
            .unwrap()
            .split_once(' ')
            .unwrap_or((text.rsplit(' ').next().unwrap(), ""));
        line.path = unescape(path);
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                line.data = unescape(quoted.strip_suffix('"').unwrap());
                break;
            }
            let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
            match word {
                "->" | "=" => {
                    line.link = unescape(more);
                    break;
                }
                _ => line.word(word),
            }
            rest = more;
        }
        line
    }

    fn word(&mut self, word: &str) {
        if let Some(time) = word.strip_prefix('@') {
            self.time = time.into();
        } else if let Some(pair) = word.strip_prefix('{') {
            let (name, value) = pair.strip_suffix('}').unwrap().split_once('=').unwrap();
            self.xattrs.push((unescape(name), unescape(value)));
        } else if let Some((left, right)) = word.split_once(':') {
            if matches!(self.kind.as_str(), "char" | "block") && self.device == (0, 0) {
                self.device = (left.parse().unwrap(), right.parse().unwrap());
            } else {
                self.owner = (left.parse().unwrap(), right.parse().unwrap());
            }
        } else {
            self.mode = Some(u32::from_str_radix(word, 8).unwrap());
        }
    }

    fn archived(mut self) -> Vec<u8> {
        let slash = self
            .path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        let kind = match self.kind.as_str() {
            "file" => b'0',
            "hard" => b'1',
            "symlink" => b'2',
            "char" => b'3',
            "block" => b'4',
            "dir" => b'5',
            "fifo" => b'6',
            "whiteout" => {
                self.path.splice(slash..slash, *b".wh.");
                b'0'
            }
            "opaque" => {
                self.path = if self.path == b"." {
                    b".wh..wh..opq".into()
                } else {
                    [&self.path, b"/.wh..wh..opq".as_slice()].concat()
                };
                b'0'
            }
            other => panic!("{other}: no kind of entry"),
        };
        self.blocks(kind, &[])
    }

    fn blocks(&self, kind: u8, records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut blocks = Vec::new();
        let pax = self.pax(records);
        if !pax.is_empty() {
            blocks.extend(entry(b'x', b"pax", b"", &pax, &[]));
        }
        if self.dialect == Dialect::Gnu {
            for (kind, text) in [(b'L', &self.path), (b'K', &self.link)] {
                if text.len() > 100 {
                    let name = [text, b"\0".as_slice()].concat();
                    blocks.extend(entry(kind, b"././@LongLink", b"", &name, &[]));
                }
            }
        }
        blocks.extend_from_slice(self.header(kind).as_bytes());
        blocks.extend_from_slice(&self.data);
        blocks.resize(blocks.len().next_multiple_of(512), 0);
        blocks
    }

    /// The extended header's records: what was asked for, and what the header itself has no room for.
    fn pax(&self, records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut pax: Vec<u8> = (records.iter())
            .flat_map(|(key, value)| record(key, value))
            .collect();
        for (name, value) in &self.xattrs {
            pax.extend(record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value));
        }
        let all = self.dialect == Dialect::Pax;
        if all || (self.path.len() > 100 && self.dialect != Dialect::Gnu) {
            pax.extend(record(b"path", &self.path));
        }
        if (all && !self.link.is_empty()) || (self.link.len() > 100 && self.dialect != Dialect::Gnu) {
            pax.extend(record(b"linkpath", &self.link));
        }
        if !self.time.is_empty() && (all || self.time.parse::<u64>().is_err()) {
            pax.extend(record(b"mtime", self.time.as_bytes()));
        }
        if all {
            let (uid, gid) = self.owner;
            pax.extend(record(b"uid", uid.to_string().as_bytes()));
            pax.extend(record(b"gid", gid.to_string().as_bytes()));
            pax.extend(record(b"size", self.data.len().to_string().as_bytes()));
        }
        pax
    }

    fn header(&self, kind: u8) -> tar::Header {
        let is_device = matches!(kind, b'3' | b'4' | b'6');
        let mut header = match self.dialect {
            Dialect::Gnu => tar::Header::new_gnu(),
            Dialect::Old if !is_device => tar::Header::new_old(),
            _ => tar::Header::new_ustar(),
        };
        let mut path = self.path.clone();
        header.as_mut_bytes()[156] = kind;
        if self.dialect == Dialect::Old && kind == b'5' && path.len() < 100 {
            // It has no type for directories.
            path.push(b'/');
            header.as_mut_bytes()[156] = 0;
        }
        let bytes = header.as_mut_bytes();
        let count = path.len().min(100);
        bytes[..count].copy_from_slice(&path[..count]);
        let count = self.link.len().min(100);
        bytes[157..157 + count].copy_from_slice(&self.link[..count]);
        header.set_mode(self.mode.unwrap_or(if kind == b'5' { 0o755 } else { 0o644 }));
        let (uid, gid) = match self.dialect {
            Dialect::Pax => (7, 7),
            _ => self.owner,
        };
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(self.time.parse().unwrap_or(0));
        header.set_size(self.data.len() as u64);
        if self.dialect == Dialect::Gnu {
            binary_number(&mut header.as_mut_bytes()[108..116], uid);
            binary_number(&mut header.as_mut_bytes()[124..136], self.data.len() as u64);
        }
        if is_device {
            header.set_device_major(self.device.0).unwrap();
            header.set_device_minor(self.device.1).unwrap();
        }
        header.set_cksum();
        header
    }
}

/// A number as GNU tar writes those that octal digits have no room for.
fn binary_number(field: &mut [u8], number: u64) {
    field.fill(0);
    field[0] = 0x80;
    let start = field.len() - 7;
    field[start..].copy_from_slice(&number.to_be_bytes()[1..]);
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'\\', [b'x', high, low, more @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = more;
            }
            (b'\\', [b'n', more @ ..]) => {
                bytes.push(b'\n');
                rest = more;
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\\"", "\"")
}

/// A word has no blanks.
fn escape_word(bytes: &[u8]) -> String {
    escape(bytes).replace(' ', "\\x20")
}

/// Lists the tree in `root`, sorted by name; the root itself only where it isn't the usual.
pub fn list(root: &Path) -> String {
    let mut names = BTreeMap::new();
    collect(root, root, &mut names);
    let mut seen = HashMap::new();
    let mut out = String::new();
    for (name, path) in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        if let Some(first) = seen.get(&meta.ino()).filter(|_| !meta.is_dir()) {
            writeln!(out, "hard {} = {}", escape_word(&name), first).unwrap();
            continue;
        }
        seen.insert(meta.ino(), escape_word(&name));
        let line = describe(&escape_word(&name), &path, &meta);
        if line != "dir ." {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn collect(root: &Path, path: &Path, names: &mut BTreeMap<Vec<u8>, std::path::PathBuf>) {
    let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
    names.insert(
        if relative.is_empty() {
            b".".to_vec()
        } else {
            relative.to_vec()
        },
        path.into(),
    );
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(root, &entry.unwrap().path(), names);
        }
    }
}

fn describe(name: &str, path: &Path, meta: &fs::Metadata) -> String {
    let kind = meta.file_type();
    let device = || {
        format!(
            " {}:{}",
            nix::sys::stat::major(meta.rdev()),
            nix::sys::stat::minor(meta.rdev())
        )
    };
    if kind.is_char_device() && meta.rdev() == 0 {
        return format!("whiteout {name}");
    }
    let mut line = match () {
        () if kind.is_dir() => format!("dir {name}"),
        () if kind.is_file() => format!("file {name}"),
        () if kind.is_symlink() => format!("symlink {name}"),
        () if kind.is_char_device() => format!("char {name}{}", device()),
        () if kind.is_block_device() => format!("block {name}{}", device()),
        () => format!("fifo {name}"),
    };
    let mode = meta.mode() & 0o7777;
    let usual = if kind.is_dir() { 0o755 } else { 0o644 };
    if mode != usual && !kind.is_symlink() {
        write!(line, " {mode:04o}").unwrap();
    }
    if (meta.uid(), meta.gid()) != (0, 0) {
        write!(line, " {}:{}", meta.uid(), meta.gid()).unwrap();
    }
    match (meta.mtime(), meta.mtime_nsec()) {
        (0, 0) => {}
        (seconds, 0) => write!(line, " @{seconds}").unwrap(),
        (seconds, nanoseconds) => write!(
            line,
            " @{seconds}.{}",
            format!("{nanoseconds:09}").trim_end_matches('0')
        )
        .unwrap(),
    }
    line.push_str(&xattrs(path));
    if kind.is_symlink() {
        write!(
            line,
            " -> {}",
            escape(fs::read_link(path).unwrap().as_os_str().as_bytes())
        )
        .unwrap();
    } else if kind.is_file() && meta.len() > 0 {
        write!(line, " \"{}\"", content(path, meta)).unwrap();
    }
    line
}

/// Large files as their size and what isn't zero in them.
fn content(path: &Path, meta: &fs::Metadata) -> String {
    let bytes = fs::read(path).unwrap();
    if bytes.len() <= 512 {
        return escape(&bytes);
    }
    let holes = if meta.blocks() * 512 < meta.len() {
        "sparse"
    } else {
        "full"
    };
    let text: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0).take(64).collect();
    format!("{} {holes} {}", meta.len(), escape(&text))
}

fn xattrs(path: &Path) -> String {
    let parent = open_root(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().as_bytes();
    let mut names = xattr::list_at(&parent, name).unwrap();
    names.sort();
    let mut out = String::new();
    for key in names {
        let value = xattr::get_at(&parent, name, &key).unwrap().unwrap();
        match (key.as_c_str(), value.as_slice()) {
            (key, b"y") if key == OPAQUE_XATTR => out.push_str(" opaque"),
            (key, b"") if key == ORIGIN_XATTR => {}
            (key, value) => {
                write!(out, " {{{}={}}}", escape_word(key.to_bytes()), escape_word(value)).unwrap()
            }
        }
    }
    out
}
