//! A growing buffer that leaves no copies behind.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

/// Bytes that are wiped when they are no longer needed, also those that growing leaves behind. Holds a bounded amount.
///
/// Has no `Debug`: what it holds is nobody's to see.
pub(super) struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

/// More came than the buffer may hold.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
pub(super) struct Full(usize);

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
    pub(super) fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        match io::copy(from, self) {
            Ok(_) => Ok(true),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Full>()) => Ok(false),
            Err(error) => Err(error),
        }
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

impl std::ops::Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write for Secret {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::Error::other(Full(self.limit)));
        }
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            assert_eq!(secret.len(), if fits { length } else { 0 });
        }
    }

    #[test]
    fn growing_keeps_the_content() {
        let content: Vec<u8> = (0..50_000).map(|number| number as u8).collect();
        let mut secret = Secret::with_limit(60_000);
        for chunk in content.chunks(777) {
            secret.write_all(chunk).unwrap();
        }
        assert_eq!(&secret[..], content);
        assert!(secret.bytes.capacity() <= 60_000);
    }
}
