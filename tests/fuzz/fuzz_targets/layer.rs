#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/layer");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("layer", CORPUS), |data: &[u8]| landfall::fuzz::layer(data));
