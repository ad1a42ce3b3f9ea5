//! How far the interfaces of a ramdisk are.

use std::fmt;

/// How far an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    NotWanted,
    NoLink,
    Asking,
    Ready(String),
    Failed(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("not asked for"),
            Self::NoLink => f.write_str("no link: is the cable plugged in?"),
            Self::Asking => f.write_str("link is up, but no DHCP server answers"),
            Self::Ready(how) | Self::Failed(how) => f.write_str(how),
        }
    }
}
