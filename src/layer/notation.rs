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
//! Left out: mode 0755 of a directory and 0644 of all else, owner 0:0, time 0. Bytes that aren't printable are `\xNN`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::directory::open_root;
use super::whiteout::{OPAQUE_XATTR, ORIGIN_XATTR};
use crate::sys::xattr;

/// Archives `lines`; a `whiteout` becomes a `.wh.` name and `opaque` a `.wh..wh..opq`.
pub fn archive(lines: &str) -> Vec<u8> {
    let entries = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut bytes: Vec<u8> = entries.flat_map(|line| Line::parse(line).archived()).collect();
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
        let mut pax: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        for (name, value) in &self.xattrs {
            pax.extend(record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value));
        }
        let mut header = tar::Header::new_ustar();
        if self.path.len() > 100 {
            pax.extend(record(b"path", &self.path));
        }
        if self.link.len() > 100 {
            pax.extend(record(b"linkpath", &self.link));
        }
        match self.time.parse() {
            Ok(seconds) => header.set_mtime(seconds),
            Err(_) if self.time.is_empty() => header.set_mtime(0),
            Err(_) => pax.extend(record(b"mtime", self.time.as_bytes())),
        }
        let bytes = header.as_mut_bytes();
        let count = self.path.len().min(100);
        bytes[..count].copy_from_slice(&self.path[..count]);
        let count = self.link.len().min(100);
        bytes[157..157 + count].copy_from_slice(&self.link[..count]);
        bytes[156] = kind;
        header.set_mode(self.mode.unwrap_or(if kind == b'5' { 0o755 } else { 0o644 }));
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_size(self.data.len() as u64);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        let mut blocks = Vec::new();
        if !pax.is_empty() {
            blocks.extend(entry(b'x', b"pax", b"", &pax, &[]));
        }
        blocks.extend_from_slice(header.as_bytes());
        blocks.extend_from_slice(&self.data);
        blocks.resize(blocks.len().next_multiple_of(512), 0);
        blocks
    }
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
