#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/gpt");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("gpt", CORPUS), |data: &[u8]| landfall::fuzz::gpt(data));
