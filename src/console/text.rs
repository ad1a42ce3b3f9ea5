//! Untrusted text on its way to a terminal: nothing in it steers the terminal, is invisible, or changes the
//! order in which the rest is shown. Everything that Landfall prints goes through here, as late as can be.

use std::fmt::Write;

use serde::Serialize;

/// The text on one line: escape sequences are left out, what does not simply show itself becomes `?`.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // A control sequence: its parameters, and its final byte from @ to ~ (ECMA-48 5.4).
                while chars.next_if(|char| (' '..='?').contains(char)).is_some() {}
                chars.next_if(|char| ('@'..='~').contains(char));
            }
            '\t' => out.push(' '),
            char if shows_itself(char) => out.push(char),
            _ => out.push('?'),
        }
    }
    out
}

/// The same of a text of our own with several lines. They may quote strangers: lines after the first are
/// indented, so that none of them passes for another message of ours.
pub fn printable_message(text: &str) -> String {
    let mut lines = text.lines().map(printable);
    let first = lines.next().unwrap_or_default();
    lines.fold(first, |text, line| {
        let indent = if line.starts_with("  ") { "" } else { "  " };
        text + "\n" + indent + &line
    })
}

/// The same of a table of our own, whose lines are as they should be.
pub fn printable_table(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// What [`shortened`] leaves, in characters.
pub const SHORT_CHARS: usize = 1000;

/// The beginning of a text that may be too long for an error.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHORT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// JSON, with what does not simply show itself as `\u…`, which means the same.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = String::new();
    for char in serde_json::to_string_pretty(value)?.chars() {
        if char == '\n' || shows_itself(char) {
            out.push(char);
        } else {
            // Outside its strings, JSON is ASCII.
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push('\n');
    Ok(out)
}

/// Whether a character is seen as what it is: control and format characters, unusual blanks and those that
/// nobody knows are not.
fn shows_itself(char: char) -> bool {
    if char.is_ascii() {
        return !char.is_ascii_control();
    }
    // These are what the standard library escapes. It would also escape a combining mark, but not after a
    // letter.
    let behind_a_letter: String = ['a', char].iter().collect();
    behind_a_letter.escape_debug().count() == 2
}

/// A size as people read it, e.g. `2.6 GiB`.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} bytes")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        for (given, shown) in [
            (
                "plain \"text\" \\ 'ünïcode', u\u{308}, 日本語 ✓",
                "plain \"text\" \\ 'ünïcode', u\u{308}, 日本語 ✓",
            ),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("50%\r100%", "50%?100%"),
            ("a\tb", "a b"),
            ("\x1b]0;title\x07", "?]0;title?"),
            ("\x1b[2", ""),
            ("\x1b[2\u{e9}ours", "\u{e9}ours"),
            ("\u{9b}31m", "?31m"),
            ("one\ntwo\u{2028}\u{2029}three", "one?two??three"),
            ("gpj.\u{202e}exe \u{2066}\u{2069}\u{61c}\u{200f}", "gpj.?exe ????"),
            (
                "\u{ad}\u{200b}\u{200d}\u{2060}\u{feff}\u{e0041}\u{180e}\u{fff9}",
                "????????",
            ),
            ("\u{7f}\0", "??"),
        ] {
            assert_eq!(printable(given), shown, "{given:?}");
        }
    }

    #[test]
    fn a_message_keeps_its_lines_and_none_passes_for_another() {
        let text = "it failed:\n  one\nlandfall: all is well\r\n\x1b[31mred";
        assert_eq!(
            printable_message(text),
            "it failed:\n  one\n  landfall: all is well\n  red"
        );
        assert_eq!(printable_message(""), "");
        assert_eq!(printable_table("a  b\n\u{202e}\n"), "a  b\n?\n");
    }

    #[test]
    fn json_means_what_it_meant() {
        let text = "a\u{9b}\u{202e}\x1b\n\u{e0041}\"ü";
        let json = json(&text).unwrap();
        assert_eq!(json, "\"a\\u009b\\u202e\\u001b\\n\\udb40\\udc41\\\"ü\"\n");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn sizes_as_people_read_them() {
        assert_eq!(
            [0, 1023, 1536, 64 << 20, 5 << 40].map(size),
            ["0 bytes", "1023 bytes", "1.5 KiB", "64.0 MiB", "5.0 TiB"]
        );
    }
}
