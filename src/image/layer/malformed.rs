//! What can be wrong with an archive.

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
