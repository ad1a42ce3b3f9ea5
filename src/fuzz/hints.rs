//! The target `hints`: root device hints, one or as JSON, against disks.

use crate::machine::disk::find::{Candidate, Hints};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(hints) = text.parse::<Hints>() else {
        return;
    };
    let named = Candidate {
        name: "/dev/sda".into(),
        size_bytes: 100 << 30,
        model: Some(text.into()),
        serial: vec![text.into(), "A".into()],
        wwn: vec!["0x5000c500a1b2c3d4".into()],
        ..Candidate::default()
    };
    for disk in [Candidate::default(), named] {
        // Why not goes to a terminal.
        if let Some(mismatch) = hints.mismatch(&disk) {
            assert!(!mismatch.contains(char::is_control), "{mismatch:?}");
        }
    }
}

pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("a size", "size=>= 100"),
        ("several serials", "serial=<or> a <or> B\u{1b}[2J <or>"),
        ("a part", "model=<in> samsung"),
        (
            "JSON",
            r#"{"size": 100, "rotational": "yes", "wwn": "s== 0x5000"}"#,
        ),
        ("numbers as text", "hctl=!= nan"),
    ];
    texts
        .map(|(name, text)| (name, text.as_bytes().to_vec()))
        .to_vec()
}
