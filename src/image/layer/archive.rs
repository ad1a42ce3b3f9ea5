//! A layer's archive as a sequence of entries (image-spec `layer.md`; POSIX pax, GNU and older tar formats).
//!
//! Parses what Go's `archive/tar` parses, so that what podman and umoci unpack is understood the same way here; it
//! knows nothing of file systems. Everything that an archive can make large is bounded before it is read.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::chunks::{ChunkReader, Chunks};
use super::header::{BLOCK_BYTES, Header, text};
use super::pax::Pax;
use super::sparse::{self, Extent};

/// The largest extended header, long name or sparse map, in bytes; as in Go's `archive/tar`.
pub const MAX_SPECIAL_BYTES: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A header's checksum is wrong.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A number is none, or out of range.
    #[error("a header has a field that is no number")]
    Number,
    /// A number cannot be what it stands for.
    #[error("a header has a number that is out of range")]
    Range,
    /// An extended header cannot be read.
    #[error("an extended header is malformed")]
    Pax,
    /// A sparse map cannot be read, or does not fit its data.
    #[error("a sparse file's map is malformed")]
    Sparse,
    /// An extended header, a long name or a sparse map is too large.
    #[error("an extended header, a long name or a sparse map is larger than {MAX_SPECIAL_BYTES} bytes")]
    TooLarge,
    /// The archive ends in the middle of an entry.
    #[error("the archive ends in the middle of an entry")]
    Cut,
    /// A block of zeros is neither the end nor part of an entry.
    #[error("a lone block of zeros is followed by something")]
    LoneZeros,
    /// Extended headers describe an entry that doesn't follow.
    #[error("an extended header is followed by no entry")]
    NoEntry,
}

impl From<Malformed> for io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A point in time: nanoseconds count up from the second, before 1970 too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: i64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: its size with holes, in bytes, and where its data lies if it has any holes.
    File {
        /// The size, in bytes.
        size: u64,
        /// Where the data lies.
        extents: Option<Vec<Extent>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link to any bytes.
    Symlink(Vec<u8>),
    /// One more name for an earlier entry.
    Hardlink(Vec<u8>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry: everything but its data.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name as it stands in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change.
    pub mtime: Time,
    /// Extended attributes: name and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads entries, and the data of each file before the next entry.
pub struct Archive<C> {
    input: ChunkReader<C>,
    /// Of the current entry, how much data and padding has not been read yet.
    data_bytes: u64,
    padding_bytes: u64,
}

impl<C: Chunks> Archive<C> {
    /// Reads the archive that `chunks` are.
    pub fn new(chunks: C) -> Self {
        Self {
            input: ChunkReader::new(chunks),
            data_bytes: 0,
            padding_bytes: 0,
        }
    }

    /// The next entry; `None` at the archive's end.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pax = None;
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                return match (pax, long_name, long_link) {
                    (None, None, None) => Ok(None),
                    _ => Err(Malformed::NoEntry.into()),
                };
            };
            let header = Header::parse(&block)?;
            match header.type_flag() {
                b'x' => pax = Some(Pax::parse(&self.special_data(&header)?)?),
                // Global records would change all later entries; neither podman nor umoci lets them.
                b'g' => drop(Pax::parse(&self.special_data(&header)?)?),
                b'L' => long_name = Some(text(&self.special_data(&header)?).to_vec()),
                b'K' => long_link = Some(text(&self.special_data(&header)?).to_vec()),
                _ => {
                    let names = (long_name, long_link);
                    return self.entry(&header, pax.unwrap_or_default(), names).map(Some);
                }
            }
        }
    }

    /// The next piece of the current entry's data, empty at its end. Holes are not in it.
    pub fn next_data(&mut self) -> io::Result<Bytes> {
        self.data_up_to(u64::MAX)
    }

    /// As [`Archive::next_data`], and never more than `limit` bytes.
    pub fn data_up_to(&mut self, limit: u64) -> io::Result<Bytes> {
        let wanted = self.data_bytes.min(limit);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let piece = self.input_up_to(wanted)?;
        self.data_bytes -= piece.len() as u64;
        Ok(piece)
    }

    /// The stage before, wherever the archive is.
    pub fn into_inner(self) -> C {
        self.input.into_inner()
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        (long_name, long_link): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> io::Result<Entry> {
        let size = size(pax.size.map_or_else(|| header.size(), Ok)?)?;
        let mut path = long_name.or(pax.path).unwrap_or_else(|| header.name());
        let link = long_link.or(pax.link_path);
        let link = link.unwrap_or_else(|| header.link_name().to_vec());
        let kind = match header.type_flag() {
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => {
                self.begin_data(size)?;
                let file = sparse::of(header, &pax.sparse, size, self)?;
                path = file.name.unwrap_or(path);
                Kind::File {
                    size: file.size,
                    extents: file.extents,
                }
            }
            b'1' => Kind::Hardlink(link),
            b'2' => Kind::Symlink(link),
            b'3' => character(header)?,
            b'4' => block(header)?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(unsupported(other, &path)),
        };
        let seconds = Time {
            seconds: header.mtime()?,
            nanoseconds: 0,
        };
        Ok(Entry {
            path,
            kind,
            // Only these bits; the mask makes the cast exact.
            mode: u32::try_from(header.mode()? & 0o7777).map_err(|_| Malformed::Range)?,
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: pax.mtime.unwrap_or(seconds),
            xattrs: pax.xattrs,
        })
    }

    /// Says that `size` bytes of data follow, and their padding.
    fn begin_data(&mut self, size: u64) -> io::Result<()> {
        self.data_bytes = size;
        self.padding_bytes = size
            .checked_next_multiple_of(BLOCK_BYTES as u64)
            .ok_or(Malformed::Range)?
            - size;
        Ok(())
    }

    fn skip_data(&mut self) -> io::Result<()> {
        while !self.next_data()?.is_empty() {}
        while self.padding_bytes > 0 {
            let piece = self.input_up_to(self.padding_bytes)?;
            self.padding_bytes -= piece.len() as u64;
        }
        Ok(())
    }

    fn special_data(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = size(header.size()?)?;
        if size > MAX_SPECIAL_BYTES {
            return Err(Malformed::TooLarge.into());
        }
        self.begin_data(size)?;
        let mut data = Vec::new();
        loop {
            let piece = self.next_data()?;
            if piece.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(&piece);
        }
    }

    /// The next header; `None` where two blocks of zeros, or the end of the input, end the archive.
    fn header_block(&mut self) -> io::Result<Option<[u8; BLOCK_BYTES]>> {
        let Some(first) = self.block()? else {
            return Ok(None);
        };
        if first != [0; BLOCK_BYTES] {
            return Ok(Some(first));
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK_BYTES] => Ok(None),
            Some(_) => Err(Malformed::LoneZeros.into()),
        }
    }

    /// The next block; `None` if the input ends before it.
    pub(super) fn block(&mut self) -> io::Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let chunk = self.input.chunk()?;
            let count = chunk.len().min(BLOCK_BYTES - filled);
            match (count, filled) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(Malformed::Cut.into()),
                _ => {}
            }
            block[filled..filled + count].copy_from_slice(&chunk.split_to(count));
            filled += count;
        }
        Ok(Some(block))
    }

    fn input_up_to(&mut self, limit: u64) -> io::Result<Bytes> {
        let chunk = self.input.chunk()?;
        if chunk.is_empty() {
            return Err(Malformed::Cut.into());
        }
        let count = usize::try_from(limit).map_or(chunk.len(), |limit| limit.min(chunk.len()));
        Ok(chunk.split_to(count))
    }

    /// How much of the current entry's data has not been read yet, in bytes.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

fn size(number: i64) -> Result<u64, Malformed> {
    u64::try_from(number).map_err(|_| Malformed::Range)
}

/// An owner; the highest number is none, it means "don't change" to the kernel.
fn id(number: i64) -> Result<u32, Malformed> {
    match u32::try_from(number) {
        Ok(u32::MAX) | Err(_) => Err(Malformed::Range),
        Ok(id) => Ok(id),
    }
}

fn device(header: &Header) -> Result<(u32, u32), Malformed> {
    let (major, minor) = header.device()?;
    // The kernel's own sizes: 12 and 20 bits.
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major @ 0..0x1000), Ok(minor @ 0..0x10_0000)) => Ok((major, minor)),
        _ => Err(Malformed::Range),
    }
}

fn character(header: &Header) -> Result<Kind, Malformed> {
    device(header).map(|(major, minor)| Kind::Character(major, minor))
}

fn block(header: &Header) -> Result<Kind, Malformed> {
    device(header).map(|(major, minor)| Kind::Block(major, minor))
}

fn unsupported(flag: u8, path: &[u8]) -> io::Error {
    let text = format!(
        "{:?} is of type {:?}, which no layer can hold",
        path.escape_ascii().to_string(),
        char::from(flag)
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}
