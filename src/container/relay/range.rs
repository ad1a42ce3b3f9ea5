//! The `Range` header of a request (RFC 9110, section 14): one range of bytes.

use std::ops::Range;

/// What a request wants of a blob.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    /// These bytes; never none.
    Part(Range<u64>),
    Unsatisfiable,
}

/// What `header` wants of `size` bytes. What isn't understood, several ranges included, is ignored, as the
/// RFC allows.
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let range = header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|text| text.split_once('-'));
    let Some((first, last)) = range else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (number(first), number(last)) {
        (Some(first), _) if first >= size => Wanted::Unsatisfiable,
        (Some(first), None) if last.trim().is_empty() => Wanted::Part(first..size),
        (Some(first), Some(last)) if last >= first => Wanted::Part(first..size.min(last.saturating_add(1))),
        (None, Some(suffix)) if first.trim().is_empty() => match suffix.min(size) {
            0 => Wanted::Unsatisfiable,
            suffix => Wanted::Part(size - suffix..size),
        },
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_at_their_bounds() {
        use Wanted::*;
        for (header, expected) in [
            (None, Whole),
            (Some("bytes=0-"), Part(0..10)),
            (Some("bytes=9-"), Part(9..10)),
            (Some("bytes=10-"), Unsatisfiable),
            (Some("bytes=0-0"), Part(0..1)),
            (Some("bytes=3-99"), Part(3..10)),
            (Some("bytes=3-18446744073709551615"), Part(3..10)),
            (Some("bytes=5-4"), Whole),
            (Some("bytes=-3"), Part(7..10)),
            (Some("bytes=-99"), Part(0..10)),
            (Some("bytes=-0"), Unsatisfiable),
            (Some("bytes=0-1,4-5"), Whole),
            (Some("bytes=a-b"), Whole),
            (Some("bytes=-"), Whole),
            (Some("lines=1-2"), Whole),
        ] {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Unsatisfiable);
    }
}
