//! What every target asks of what is shown.

use std::fmt::Display;

/// An error or anything else that is shown has one line.
pub(crate) fn one_line(shown: &dyn Display) {
    let text = shown.to_string();
    assert!(!text.contains(['\n', '\r']), "several lines: {text}");
}
