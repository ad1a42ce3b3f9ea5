#![no_main]

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/boot_entry");

libfuzzer_sys::fuzz_target!(init: landfall::fuzz::plant("boot_entry", CORPUS), |data: &[u8]| landfall::fuzz::boot_entry(data));
