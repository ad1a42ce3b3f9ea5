//! The target `boot_entry`: boot entries as firmware keeps them.

use uuid::Uuid;

use crate::machine::firmware::{EspPath, LoadOption};

pub fn run(data: &[u8]) {
    if let Some(option) = LoadOption::parse(data) {
        let _ = option.partition();
        assert_eq!(LoadOption::parse(&option.to_bytes()), Some(option));
    }
}

pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let own = EspPath {
        partition_number: 2,
        partition_uuid: Uuid::from_u128(7),
        start_lba: 4096,
        sectors: 1 << 20,
        path: "EFI/BOOT/BOOTX64.EFI".into(),
    };
    let own = own.load_option().to_bytes();
    let data = [&own[..], b"more data"].concat();
    vec![("an entry", own), ("an entry with data", data)]
}
