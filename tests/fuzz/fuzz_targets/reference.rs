#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/reference");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("reference", CORPUS), |data: &[u8]| landfall::fuzz::reference(data));
