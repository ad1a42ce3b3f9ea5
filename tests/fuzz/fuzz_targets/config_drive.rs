#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/config_drive");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("config_drive", CORPUS), |data: &[u8]| landfall::fuzz::config_drive(data));
