#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/auth_file");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("auth_file", CORPUS), |data: &[u8]| landfall::fuzz::auth_file(data));
