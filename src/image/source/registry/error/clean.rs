//! Strangers' text, capped and redacted.

use crate::image::oci::one_line;

/// How much of an error's text is shown, in characters.
pub(super) const MAX_SHOWN: usize = 300;

/// Untrusted text made fit to be shown: one line, short, without what may be a secret (credentials, tokens,
/// the query of a signed URL).
pub fn clean(text: &str) -> String {
    let printable = one_line(text);
    let mut shown: Vec<&str> = Vec::new();
    let mut after_scheme = false;
    for word in printable.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let secret = after_scheme || bare.starts_with("eyJ");
        let url_query = word.split_once(['?', '#']).filter(|_| word.contains("://"));
        match (secret, url_query) {
            (true, _) => shown.push("[redacted]"),
            (false, Some((address, _))) => shown.extend([address, "[redacted]"]),
            (false, None) => shown.push(word),
        }
        after_scheme = ["bearer", "basic"].contains(&bare.to_ascii_lowercase().as_str());
    }
    let line = shown.join(" ");
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
