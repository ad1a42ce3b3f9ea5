//! Files with holes, in GNU tar's four formats: old GNU (type `S`), and PAX 0.0, 0.1 and 1.0.

use super::blocks::Archive;
use super::chunks::Chunks;
use super::entry::Extent;
use super::error::Result;
use super::header::{BLOCK_BYTES, Dialect, Header, number};
use super::malformed::{MAX_SPECIAL_BYTES, Malformed};
use super::pax::{SparseRecords, unsigned};

/// A file as its header and its sparse map describe it.
pub struct File {
    /// The name, where the map says another one than the header.
    pub name: Option<Vec<u8>>,
    /// The size with the holes, in bytes.
    pub size: u64,
    /// Where the data lies, in order and without overlap; `None` for a file without a map.
    pub extents: Option<Vec<Extent>>,
}

/// The entry's sparse map, if it has one. `stored` is the size of its data in the archive.
pub fn of<C: Chunks>(
    header: &Header,
    records: &SparseRecords,
    stored: u64,
    archive: &mut Archive<C>,
) -> Result<File> {
    let pax_size = records.size.or(records.real_size);
    let pax_size = || {
        pax_size.map_or(Ok(stored), |size| {
            u64::try_from(size).map_err(|_| Malformed::Sparse)
        })
    };
    let (name, size, extents) = match (header.type_flag(), format(records)) {
        (b'S', _) => {
            let size = u64::try_from(header.sparse_size()?).map_err(|_| Malformed::Sparse)?;
            (None, size, old_gnu(header, archive)?)
        }
        (_, Some(Format::Inline)) => (records.name.clone(), pax_size()?, inline(archive)?),
        (_, Some(Format::Records)) => (records.name.clone(), pax_size()?, pairs(&records.map)?),
        (_, None) => {
            return Ok(File {
                name: None,
                size: stored,
                extents: None,
            });
        }
    };
    check(&extents, size, archive.data_bytes())?;
    Ok(File {
        name,
        size,
        extents: Some(extents),
    })
}

enum Format {
    /// 0.0 and 0.1: the map is in the records.
    Records,
    /// 1.0: the map stands before the data.
    Inline,
}

fn format(records: &SparseRecords) -> Option<Format> {
    match (records.version.0.as_slice(), records.version.1.as_slice()) {
        (b"0", b"0" | b"1") => Some(Format::Records),
        (b"1", b"0") => Some(Format::Inline),
        // The oldest had no version.
        (b"", b"") if !records.map.is_empty() => Some(Format::Records),
        _ => None,
    }
}

fn old_gnu<C: Chunks>(header: &Header, archive: &mut Archive<C>) -> Result<Vec<Extent>> {
    if header.dialect != Dialect::Gnu {
        return Err(Malformed::Sparse.into());
    }
    let (map, mut more) = header.sparse_map();
    let mut extents = Vec::new();
    add_old_gnu(map, &mut extents)?;
    let mut more_bytes = 0;
    while more {
        more_bytes += BLOCK_BYTES as u64;
        if more_bytes > MAX_SPECIAL_BYTES {
            return Err(Malformed::TooLarge.into());
        }
        // These blocks lie between the header and the data, which does not count them.
        let block = archive.block()?.ok_or(Malformed::Cut)?;
        add_old_gnu(&block[..504], &mut extents)?;
        more = block[504] != 0;
    }
    Ok(extents)
}

/// Pairs of twelve-byte numbers, up to the first empty one.
fn add_old_gnu(map: &[u8], extents: &mut Vec<Extent>) -> Result<(), Malformed> {
    let unsigned = |field| u64::try_from(number(field)?).map_err(|_| Malformed::Sparse);
    for pair in map.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        extents.push(Extent {
            offset: unsigned(&pair[..12])?,
            length: unsigned(&pair[12..])?,
        });
    }
    Ok(())
}

fn pairs(map: &[u64]) -> Result<Vec<Extent>, Malformed> {
    if !map.len().is_multiple_of(2) {
        return Err(Malformed::Sparse);
    }
    let extent = |pair: &[u64]| Extent {
        offset: pair[0],
        length: pair[1],
    };
    Ok(map.chunks_exact(2).map(extent).collect())
}

/// Version 1.0: a count, then that many pairs, each number on a line, padded to whole blocks.
fn inline<C: Chunks>(archive: &mut Archive<C>) -> Result<Vec<Extent>> {
    let mut lines = Lines {
        archive,
        block: Vec::new(),
        read_bytes: 0,
    };
    let count = lines.number()?;
    if count > MAX_SPECIAL_BYTES {
        return Err(Malformed::TooLarge.into());
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        extents.push(Extent {
            offset: lines.number()?,
            length: lines.number()?,
        });
    }
    Ok(extents)
}

struct Lines<'a, C> {
    archive: &'a mut Archive<C>,
    /// What is left of the current block.
    block: Vec<u8>,
    read_bytes: u64,
}

impl<C: Chunks> Lines<'_, C> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if let Some(end) = self.block.iter().position(|byte| *byte == b'\n') {
                digits.extend_from_slice(&self.block[..end]);
                self.block.drain(..=end);
                return Ok(unsigned(&digits).ok_or(Malformed::Sparse)?);
            }
            digits.append(&mut self.block);
            if digits.len() > BLOCK_BYTES {
                return Err(Malformed::Sparse.into());
            }
            self.next_block()?;
        }
    }

    fn next_block(&mut self) -> Result<()> {
        self.read_bytes += BLOCK_BYTES as u64;
        if self.read_bytes > MAX_SPECIAL_BYTES {
            return Err(Malformed::TooLarge.into());
        }
        while self.block.len() < BLOCK_BYTES {
            let missing = (BLOCK_BYTES - self.block.len()) as u64;
            let piece = self.archive.data_up_to(missing)?;
            if piece.is_empty() {
                return Err(Malformed::Sparse.into());
            }
            self.block.extend_from_slice(&piece);
        }
        Ok(())
    }
}

/// In order, apart, within the file, and together as long as the data that is there.
fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), Malformed> {
    let mut end = 0;
    let mut sum: u64 = 0;
    for extent in extents {
        if extent.offset < end {
            return Err(Malformed::Sparse);
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .filter(|end| *end <= size)
            .ok_or(Malformed::Sparse)?;
        sum += extent.length;
    }
    if sum == stored {
        Ok(())
    } else {
        Err(Malformed::Sparse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_in_order_apart_and_as_long_as_the_data() {
        let check = |map: &[u64], size, stored| check(&pairs(map).unwrap(), size, stored).is_ok();
        assert!(check(&[], 0, 0));
        assert!(check(&[], 1 << 40, 0));
        assert!(check(&[0, 5, 5, 5], 10, 10));
        assert!(check(&[2, 3, 10, 0], 10, 3));
        assert!(!check(&[2, 3, 11, 0], 10, 3), "beyond the end");
        assert!(!check(&[0, 5, 4, 5], 10, 10), "overlap");
        assert!(!check(&[5, 5, 0, 5], 10, 10), "out of order");
        assert!(!check(&[0, 11], 10, 11), "longer than the file");
        assert!(!check(&[0, 5], 10, 6), "data left over");
        assert!(!check(&[0, 5], 10, 4), "data missing");
        assert!(!check(&[u64::MAX, 2], u64::MAX, 2), "overflow");
        assert!(pairs(&[1]).is_err());
    }
}
