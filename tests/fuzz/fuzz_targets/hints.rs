#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/hints");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("hints", CORPUS), |data: &[u8]| landfall::fuzz::hints(data));
