//! Words and rules of the OCI specifications, without any I/O.
//!
//! Everything here takes bytes and gives types: names ([`Reference`]), hashes ([`digest`]), documents
//! ([`manifest`]), and at last the [`Image`], which exists only when its manifest and its config match their
//! digests and agree with each other.

pub mod blob;
pub mod digest;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use image::{Image, Layer};
pub use oci_spec::image::{Descriptor, Digest};
pub use platform::Platform;
pub use reference::Reference;

/// What a stranger's document says, or a parser that quotes it, fit for one line: control characters become blanks.
pub fn one_line(text: impl std::fmt::Display) -> String {
    text.to_string().replace(char::is_control, " ")
}
