//! A layer's archive as a sequence of entries (image-spec `layer.md`; POSIX pax, GNU and older tar formats).
//!
//! Parses what Go's `archive/tar` parses, so that what podman and umoci unpack is understood the same way
//! here; it knows nothing of file systems. Everything that an archive can make large is bounded before it is
//! read.

use super::blocks::Archive;
use super::chunks::Chunks;
use super::entry::{Entry, Kind, Time};
use super::error::{LayerError, Result, malformed};
use super::header::{BLOCK_BYTES, Header, text};
use super::malformed::{MAX_SPECIAL_BYTES, Malformed};
use super::pax::Pax;
use super::sparse;

impl<C: Chunks> Archive<C> {
    /// The next entry; `None` at the archive's end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
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

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        (long_name, long_link): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> Result<Entry> {
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
            b'3' => device(header).map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device(header).map(|(major, minor)| Kind::Block(major, minor))?,
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

    fn special_data(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = size(header.size()?)?;
        if size > MAX_SPECIAL_BYTES {
            return Err(Malformed::TooLarge.into());
        }
        self.begin_data(size)?;
        let mut data = Vec::new();
        loop {
            let piece = self.data_up_to(u64::MAX)?;
            if piece.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(&piece);
        }
    }

    /// The next header; `None` where two blocks of zeros, or the end of the input, end the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
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

fn unsupported(flag: u8, path: &[u8]) -> LayerError {
    malformed(format!(
        "{:?} has type {:?}, which is not allowed in a layer",
        path.escape_ascii().to_string(),
        char::from(flag)
    ))
}
