//! Boot entries and their order against efibootmgr, on files that stand for the firmware's variables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall::{BootEntry, EspPath, Firmware, Target, Variables};
use uuid::Uuid;

fn efibootmgr(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("efibootmgr")
        .args(arguments)
        // It takes the path as a prefix.
        .env("EFIVARFS_PATH", format!("{}/", directory.display()))
        .output()
        .unwrap_or_else(|error| panic!("efibootmgr cannot be started ({error}): run `cargo xtask setup`"));
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

/// The bytes with one text of theirs changed into another one as long, in UTF-16.
fn with_text(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let [from, to] =
        [from, to].map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let at = bytes.windows(from.len()).position(|found| found == from).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + from.len()].copy_from_slice(&to);
    bytes
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

/// Every file of a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn what_efibootmgr_changed_is_put_back_but_for_the_entry_of_the_installed_disk() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let variables = Variables::in_directory(directory);
    let write = |number: u16, partition: u32| {
        let name = format!("Boot{number:04X}");
        let option = loader(partition).load_option();
        variables.write(&name, &option.to_bytes()).unwrap();
    };
    (1..=3).for_each(|number| write(number, number.into()));
    efibootmgr(directory, &["--bootorder", "3,1,2"]);
    efibootmgr(directory, &["--timeout", "5"]);
    let setup = directory.join("Setup-ec87d643-eba4-4bb5-a1e5-3f3e36b20da9");
    fs::write(&setup, b"\x07\0\0\0settings").unwrap();
    let before = files(directory);

    let firmware = Firmware::remember(variables.clone()).unwrap();
    let put_back = || {
        let put_back = firmware.put_back(&Target {
            partitions: &[loader(9).partition_uuid],
            replaced: &[],
            is_elsewhere: &|_| true,
        });
        put_back.unwrap()
    };
    assert!(put_back().is_empty());
    // As a hostile image would.
    efibootmgr(directory, &["--bootnum", "0001", "--delete-bootnum"]);
    efibootmgr(directory, &["--timeout", "99"]);
    efibootmgr(directory, &["--bootnext", "0002"]);
    fs::remove_file(&setup).unwrap();
    let done = put_back();
    let setup_name = setup.file_name().unwrap().to_str().unwrap();
    assert_eq!(done.restored, ["Boot0001", "BootOrder", setup_name, "Timeout"]);
    assert_eq!(
        (done.removed, done.failed),
        (vec!["BootNext".to_string()], vec![])
    );
    assert_eq!(files(directory), before);

    // As an installation does.
    write(0, 9);
    efibootmgr(directory, &["--bootorder", "0,3,1"]);
    efibootmgr(directory, &["--bootnum", "0002", "--delete-bootnum"]);
    assert_eq!(put_back().restored, ["Boot0002", "BootOrder"]);
    let seen = efibootmgr(directory, &[]);
    assert!(seen.contains("BootOrder: 0000,0003,0001,0002\n"), "{seen}");
    assert!(put_back().is_empty());
}

#[test]
fn entries_of_installations_that_are_gone_are_removed_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let variables = Variables::in_directory(directory);
    for number in [1_u16, 2, 4] {
        let name = format!("Boot{number:04X}");
        let option = loader(number.into()).load_option();
        variables.write(&name, &option.to_bytes()).unwrap();
    }
    // Somebody else's, for a partition that is gone, and one that makes no sense.
    let other = with_text(&loader(5).load_option().to_bytes(), "Landfall", "Somebody");
    variables.write("Boot0000", &other).unwrap();
    variables.write("Boot0003", b"garbage").unwrap();
    efibootmgr(directory, &["--bootorder", "4,0,2"]);

    let firmware = Firmware::remember(variables.clone()).unwrap();
    let gone = [1, 4, 5].map(|number| loader(number).partition_uuid);
    assert_eq!(firmware.forget(&gone).unwrap(), [1, 4]);
    assert!(firmware.forget(&gone).unwrap().is_empty());
    // The next one takes a number that has become free, and its place in the order is its own.
    let arranged = firmware.arrange(BootEntry::Keep, &loader(9)).unwrap();
    assert_eq!((arranged.order, arranged.own), (vec![0, 2, 1], vec![1]));
    let seen = efibootmgr(directory, &[]);
    assert!(seen.contains("Boot0000* Installed by Somebody"), "{seen}");
}
