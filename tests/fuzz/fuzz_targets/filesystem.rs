#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/filesystem");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("filesystem", CORPUS), |data: &[u8]| landfall::fuzz::filesystem(data));
