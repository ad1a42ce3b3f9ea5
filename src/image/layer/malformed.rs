//! What can be wrong with an archive.

/// The largest extended header, long name or sparse map, in bytes; as in Go's `archive/tar`.
pub const MAX_SPECIAL_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a header's checksum is wrong")]
    Checksum,
    #[error("a field of a header is not a number")]
    Number,
    #[error("a number in a header is out of range")]
    Range,
    #[error("an extended header is malformed")]
    Pax,
    #[error("a sparse file's map is malformed")]
    Sparse,
    #[error("an extended header, a long name or a sparse map is larger than {MAX_SPECIAL_BYTES} bytes")]
    TooLarge,
    #[error("the archive ends in the middle of an entry")]
    Cut,
    #[error("a lone block of zeros is followed by something")]
    LoneZeros,
    #[error("an extended header is followed by no entry")]
    NoEntry,
}
