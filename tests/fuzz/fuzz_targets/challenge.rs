#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/challenge");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("challenge", CORPUS), |data: &[u8]| landfall::fuzz::challenge(data));
