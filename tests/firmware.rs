//! Boot entries and their order against efibootmgr, on files that stand for the firmware's variables.

use std::path::Path;
use std::process::Command;

use landfall::firmware::{BootEntry, EspPath, Firmware, Variables};
use uuid::Uuid;

fn efibootmgr(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("efibootmgr")
        .args(arguments)
        // It takes the path as a prefix.
        .env("EFIVARFS_PATH", format!("{}/", directory.display()))
        .output()
        .unwrap_or_else(|error| panic!("efibootmgr can't be started ({error}): run `cargo xtask setup`"));
    assert!(
        output.status.success(),
        "efibootmgr {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn loader(number: u32) -> EspPath {
    EspPath {
        partition_number: number,
        partition_uuid: Uuid::from_u128(0x00112233_4455_6677_8899_aabbccddee00 + u128::from(number)),
        start_lba: 4096,
        sectors: 1_048_576,
        path: "EFI/BOOT/BOOTX64.EFI".into(),
    }
}

#[test]
fn efibootmgr_sees_what_was_arranged_and_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let variables = Variables::in_directory(directory);
    for number in [1_u16, 2, 3] {
        let name = format!("Boot{number:04X}");
        variables
            .write(&name, &loader(number.into()).load_option().to_bytes())
            .unwrap();
    }
    efibootmgr(directory, &["--bootorder", "3,1,2"]);
    let firmware = Firmware::remember(variables.clone()).unwrap();
    // The installed disk has no entry: one is made.
    let arranged = firmware.arrange(BootEntry::Next, &loader(9)).unwrap();
    assert_eq!((arranged.order, arranged.own), (vec![3, 1, 2, 0], vec![0]));
    let seen = efibootmgr(directory, &["--verbose"]);
    for expected in [
        "BootNext: 0000\n",
        "BootOrder: 0003,0001,0002,0000\n",
        "Boot0000* Installed by Landfall\tHD(9,GPT,00112233-4455-6677-8899-aabbccddee09,0x1000,0x100000)/\
         File(\\EFI\\BOOT\\BOOTX64.EFI)",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen}");
    }
    let arranged = firmware.arrange(BootEntry::First, &loader(2)).unwrap();
    assert_eq!(arranged.order, [2, 3, 1, 0]);
}
