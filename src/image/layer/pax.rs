//! PAX extended headers (POSIX.1-2001, `pax`): `length key=value\n`, again and again. Values are any bytes.

use std::collections::BTreeMap;

use super::entry::Time;
use super::malformed::Malformed;

/// What stands before the name of an extended attribute.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The records that mean something here; the last of a kind counts, and an empty value leaves the header's.
#[derive(Debug, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: SparseRecords,
}

/// GNU tar's records of a sparse file.
#[derive(Debug, Default)]
pub struct SparseRecords {
    /// The format's version, major and minor.
    pub version: (Vec<u8>, Vec<u8>),
    pub name: Option<Vec<u8>>,
    /// The size with the holes, in bytes.
    pub size: Option<i64>,
    /// The same in another version.
    pub real_size: Option<i64>,
    /// Offsets and lengths in turn, of versions 0.0 and 0.1.
    pub map: Vec<u64>,
}

impl Pax {
    /// Parses the data of one extended header.
    pub fn parse(mut data: &[u8]) -> Result<Self, Malformed> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or(Malformed::Pax)?;
            pax.add(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if name.is_empty() || name.contains(&0) {
                return Err(Malformed::Pax);
            }
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        match key {
            b"path" => self.path = bytes(value)?,
            b"linkpath" => self.link_path = bytes(value)?,
            b"size" => self.size = integer(value)?,
            b"uid" => self.uid = integer(value)?,
            b"gid" => self.gid = integer(value)?,
            b"mtime" => self.mtime = time(value)?,
            _ => self.sparse.add(key, value)?,
        }
        Ok(())
    }
}

impl SparseRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        match key {
            b"GNU.sparse.major" => self.version.0 = value.to_vec(),
            b"GNU.sparse.minor" => self.version.1 = value.to_vec(),
            b"GNU.sparse.name" => self.name = bytes(value)?,
            b"GNU.sparse.size" => self.size = integer(value)?,
            b"GNU.sparse.realsize" => self.real_size = integer(value)?,
            b"GNU.sparse.map" => self.map = list(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let an_offset_is_due = self.map.len().is_multiple_of(2);
                if (key == b"GNU.sparse.offset") != an_offset_is_due {
                    return Err(Malformed::Sparse);
                }
                self.map.push(unsigned(value).ok_or(Malformed::Sparse)?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = data.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(unsigned(&data[..digits])?).ok()?;
    if length <= digits || length > data.len() {
        return None;
    }
    let (record, rest) = data.split_at(length);
    let record = record[digits + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (&record[..equals], &record[equals + 1..], rest))
}

fn bytes(value: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    if value.contains(&0) {
        return Err(Malformed::Pax);
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn integer(value: &[u8]) -> Result<Option<i64>, Malformed> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| Malformed::Pax)?;
    text.parse().map(Some).map_err(|_| Malformed::Pax)
}

/// Digits and nothing else; no sign.
pub fn unsigned(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn list(value: &[u8]) -> Result<Vec<u64>, Malformed> {
    let numbers = value.split(|byte| *byte == b',').map(unsigned);
    numbers.collect::<Option<_>>().ok_or(Malformed::Sparse)
}

/// Seconds with an optional sign and fraction; digits beyond nanoseconds are cut off.
fn time(value: &[u8]) -> Result<Option<Time>, Malformed> {
    if value.is_empty() {
        return Ok(None);
    }
    parse_time(value).map(Some).ok_or(Malformed::Pax)
}

fn parse_time(value: &[u8]) -> Option<Time> {
    let (negative, digits) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(unsigned(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = fraction
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds: 0,
        },
        // Before 1970: the seconds go down, the nanoseconds still count up.
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key, b"=", value, b"\n"].concat();
        let digits = if rest.len() + 1 < 10 { 1 } else { 2 };
        [(rest.len() + digits).to_string().as_bytes(), &rest].concat()
    }

    #[test]
    fn records_hold_any_bytes() {
        let data = [
            record(b"path", b"a\nb"),
            record(b"SCHILY.xattr.user.x", b"1\n=\0\xff2"),
            record(b"SCHILY.xattr.user.e", b""),
            record(b"uid", b"1"),
            record(b"uid", b"4321"),
            record(b"linkpath", b""),
        ];
        let pax = Pax::parse(&data.concat()).unwrap();
        assert_eq!(pax.path.as_deref(), Some(b"a\nb".as_slice()));
        assert_eq!(pax.xattrs[b"user.x".as_slice()], b"1\n=\0\xff2");
        assert_eq!(pax.xattrs[b"user.e".as_slice()], b"");
        assert_eq!((pax.uid, pax.link_path), (Some(4321), None));
    }

    #[test]
    fn malformed_records_are_errors() {
        for data in [
            b"".as_slice(),
            b"x",
            b"8 a=b\n",
            b"5 a=b\n",
            b"6 a=bc",
            b"5 =b\n",
            b"4 ab\n",
            b"+6 a=b\n",
            b"99999999999999999999 a=b\n",
            b"10 path=\0\n",
            b"8 uid=x\n",
            b"24 SCHILY.xattr.\0user=x\n",
        ] {
            assert_eq!(Pax::parse(data).is_ok(), data.is_empty(), "{data:?}");
        }
    }

    #[test]
    fn times_keep_their_nanoseconds_on_both_sides_of_1970() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("1.5e3", None),
            ("--1", None),
            (".5", None),
        ] {
            let time = parse_time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(time, expected, "{text}");
        }
    }
}
