#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/registries_conf");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("registries_conf", CORPUS), |data: &[u8]| landfall::fuzz::registries_conf(data));
