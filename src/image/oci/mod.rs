//! Words and rules of the OCI specifications, without any I/O.
//!
//! Everything here takes bytes and gives types: names ([`Reference`]), hashes ([`digest`]), documents
//! ([`manifest`]), and finally the [`Image`], which exists only when its manifest and its config match their
//! digests and agree with each other.

pub(crate) mod blob;
pub mod digest;
pub(crate) mod image;
pub(crate) mod manifest;
pub(crate) mod media_type;
pub(crate) mod platform;
pub(crate) mod reference;

pub use image::{Image, Layer};
pub use oci_spec::image::{Descriptor, Digest};
pub use platform::Platform;
pub use reference::Reference;

/// What a stranger's document says, or a parser that quotes it, fit for one line: control characters become
/// blanks.
pub fn one_line(text: impl std::fmt::Display) -> String {
    text.to_string().replace(char::is_control, " ")
}
