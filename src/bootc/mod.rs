//! What we know of bootc, the program in the image that installs it: what it needs, what it can, how to ask
//! it.
//!
//! Read in bootc's source, 1.1 to 1.16: what is missing or unknown is noticed there only after the disk has
//! been wiped. So all of it is checked here, before the wipe.

pub mod arguments;
pub mod messages;
pub mod options;
pub mod probe;
pub mod requirements;
pub mod uki;

pub use options::Options;
