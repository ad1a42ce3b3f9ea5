#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/manifest");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("manifest", CORPUS), |data: &[u8]| landfall::fuzz::manifest(data));
