//! One tar header: 512 bytes, in any of its dialects (V7, ustar, GNU, star; POSIX.1-1988 and `tar.h`).
//!
//! Reads what Go's `archive/tar` reads, which podman and umoci use: the same fields from the same dialects.

use super::malformed::Malformed;

/// The size of a header and of every other unit of an archive, in bytes.
pub const BLOCK_BYTES: usize = 512;

/// The dialects that differ in what follows the link name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing lies there.
    V7,
    /// A prefix for the name; PAX archives are of this kind.
    Ustar,
    /// A shorter prefix.
    Star,
    /// No prefix, but a sparse map.
    Gnu,
}

/// A header whose checksum is right.
pub struct Header<'a> {
    block: &'a [u8; BLOCK_BYTES],
    pub dialect: Dialect,
}

impl<'a> Header<'a> {
    pub fn parse(block: &'a [u8; BLOCK_BYTES]) -> Result<Self, Malformed> {
        let said = number(&block[148..156])?;
        let bytes = || block[..148].iter().chain(b"        ").chain(&block[156..]);
        // Some old programs summed signed bytes.
        let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if said != unsigned && said != signed {
            return Err(Malformed::Checksum);
        }
        let dialect = match (&block[257..265], &block[508..512]) {
            (b"ustar  \0", _) => Dialect::Gnu,
            ([b'u', b's', b't', b'a', b'r', 0, ..], b"tar\0") => Dialect::Star,
            ([b'u', b's', b't', b'a', b'r', 0, ..], _) => Dialect::Ustar,
            _ => Dialect::V7,
        };
        Ok(Self { block, dialect })
    }

    pub fn type_flag(&self) -> u8 {
        self.block[156]
    }

    /// The name, with its prefix.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.block[345..500]),
            Dialect::Star => text(&self.block[345..476]),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub fn link_name(&self) -> &'a [u8] {
        text(&self.block[157..257])
    }

    /// The mode; everything but the twelve permission bits is noise.
    pub fn mode(&self) -> Result<i64, Malformed> {
        number(&self.block[100..108])
    }

    pub fn uid(&self) -> Result<i64, Malformed> {
        number(&self.block[108..116])
    }

    pub fn gid(&self) -> Result<i64, Malformed> {
        number(&self.block[116..124])
    }

    /// How many bytes follow the header.
    pub fn size(&self) -> Result<i64, Malformed> {
        number(&self.block[124..136])
    }

    /// The time of the last change, in seconds since 1970.
    pub fn mtime(&self) -> Result<i64, Malformed> {
        number(&self.block[136..148])
    }

    /// A device's major and minor number.
    pub fn device(&self) -> Result<(i64, i64), Malformed> {
        match self.dialect {
            Dialect::V7 => Ok((0, 0)),
            _ => Ok((number(&self.block[329..337])?, number(&self.block[337..345])?)),
        }
    }

    /// The part of an old GNU sparse file's map that is in the header, and whether more of it follows.
    pub fn sparse_map(&self) -> (&'a [u8], bool) {
        (&self.block[386..482], self.block[482] != 0)
    }

    /// The size of an old GNU sparse file with its holes, in bytes.
    pub fn sparse_size(&self) -> Result<i64, Malformed> {
        number(&self.block[483..495])
    }
}

/// A text field: up to its first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// A numeric field: octal digits between blanks and NULs, or a big-endian two's complement number marked by
/// the top bit.
pub fn number(field: &[u8]) -> Result<i64, Malformed> {
    if field[0] & 0x80 != 0 {
        return binary(field);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !blank(byte)) else {
        return Ok(0);
    };
    field[start..]
        .iter()
        .take_while(|byte| !blank(byte))
        .try_fold(0i64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(digit - b'0')),
            _ => None,
        })
        .ok_or(Malformed::Number)
}

fn binary(field: &[u8]) -> Result<i64, Malformed> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let start = first.cast_signed();
    field[1..]
        .iter()
        .try_fold(i64::from(start), |value, byte| {
            value.checked_mul(256).map(|value| value + i64::from(*byte))
        })
        .ok_or(Malformed::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_notations() {
        for (field, value) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"7777777", Some(0o7777777)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"644x\0\0\0\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"0000008\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\x00", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field).ok(), value, "{field:?}");
        }
    }

    #[test]
    fn the_checksum_counts_itself_as_blanks() {
        let mut header = tar::Header::new_ustar();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(Header::parse(header.as_bytes()).is_ok());
        header.as_mut_bytes()[0] ^= 1;
        assert!(matches!(
            Header::parse(header.as_bytes()),
            Err(Malformed::Checksum)
        ));
    }
}
