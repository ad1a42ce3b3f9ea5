#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/error_body");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("error_body", CORPUS), |data: &[u8]| landfall::fuzz::error_body(data));
