//! The binary as it goes into ramdisks: static, stripped, small.

mod support;

use std::fs;

use support::LANDFALL;
use support::disk::run;

const MAX_BYTES: u64 = 14_620_000;

#[test]
fn it_needs_no_loader_no_library_and_little_room() {
    let segments = run("readelf", &["--wide", "--program-headers", "--dynamic", LANDFALL]);
    for forbidden in ["INTERP", "(NEEDED)"] {
        assert!(!segments.contains(forbidden), "{segments}");
    }
    let sections = run("readelf", &["--wide", "--sections", LANDFALL]);
    assert!(!sections.contains(".symtab"), "{sections}");
    let size = fs::metadata(LANDFALL).unwrap().len();
    assert!(size <= MAX_BYTES, "{size} bytes");
}
