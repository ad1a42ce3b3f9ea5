//! A growing buffer that leaves no copies behind.

use std::io::{self, ErrorKind, Read};

use zeroize::Zeroizing;

const READ_BYTES: usize = 64 << 10;

/// Bytes that are wiped when they are no longer needed, also those that growing leaves behind. Holds a
/// bounded amount.
///
/// Has no `Debug`: what it holds is nobody's to see.
pub(super) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

impl Secret {
    /// An empty buffer for at most `limit` bytes.
    pub(super) fn with_limit(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            bytes: Zeroizing::new(Vec::new()),
            limit,
        }
    }

    /// Reads to the end. Returns whether everything fitted.
    ///
    /// Reads into the buffer itself: `io::copy` would leave the last bytes on the stack.
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        loop {
            let filled = self.bytes.len();
            if filled == self.limit {
                return Ok(read_some(from, &mut [0])? == 0);
            }
            let wanted = READ_BYTES.min(self.limit - filled);
            self.reserve(wanted);
            self.bytes.resize(filled + wanted, 0);
            let read = read_some(from, &mut self.bytes[filled..]);
            self.bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(true);
            }
        }
    }

    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }

    /// Keeps the bytes that `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(u8) -> bool) {
        self.bytes.retain(|byte| keep(*byte));
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return;
        }
        let capacity = needed.max(2 * self.bytes.capacity()).min(self.limit);
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }
}

/// Reads once, also when a signal comes.
fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            limit: bytes.len(),
            bytes: Zeroizing::new(bytes),
        }
    }
}

impl std::ops::Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_fits_and_not_a_byte_more() {
        for (length, fits) in [
            (0, true),
            (999, true),
            (1000, true),
            (1001, false),
            (100_000, false),
        ] {
            let mut secret = Secret::with_limit(1000);
            assert_eq!(secret.fill(&mut &vec![7; length][..]).unwrap(), fits, "{length}");
            assert_eq!(secret.len(), length.min(1000));
        }
    }

    #[test]
    fn growing_keeps_the_content() {
        let content: Vec<u8> = (0..500_000).map(|number| number as u8).collect();
        let mut secret = Secret::with_limit(600_000);
        assert!(secret.fill(&mut &content[..]).unwrap());
        assert_eq!(&secret[..], content);
        assert!(secret.bytes.capacity() <= 600_000);
    }
}
