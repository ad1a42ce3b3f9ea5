//! The target `filesystem`: everything that reads a stranger's file system from its bytes.

use std::io::Cursor;

use crate::config_drive::ConfigDrive;
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::luks::Header;
use crate::machine::filesystem::{NamedFile, condition, identify, iso9660};

const LIMIT_BYTES: u64 = 1 << 20;

pub fn run(data: &[u8]) {
    let mut device = Cursor::new(data);
    let found = identify(&mut device, data.len() as u64).expect("memory can be read");
    for signature in &found {
        assert!(!signature.to_string().contains(char::is_control));
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let _ = condition(&mut device, kind);
    }
    let _ = Header::read(&mut device).map(|header| header.has_tpm2_token());
    if let Ok(files) = iso9660::read_files(data, LIMIT_BYTES) {
        check(&files);
    }
    if let Ok(mut volume) = Volume::open(device) {
        let _ = volume.find("EFI/BOOT/BOOTX64.EFI");
        if let Ok(files) = volume.read_files(LIMIT_BYTES) {
            check(&files);
        }
    }
}

fn check(files: &[NamedFile]) {
    let total: usize = files.iter().map(|file| file.content.len()).sum();
    assert!(total as u64 <= LIMIT_BYTES, "{total} bytes were read");
}

pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let json = br#"{"meta_data": {"uuid": "u"}, "user_data": "text"}"#;
    let drive = |sector_bytes| {
        let drive = ConfigDrive::read(&json[..]).and_then(|drive| drive.for_sectors(sector_bytes));
        // An error of it says nothing secret, but it has no `Debug` to unwrap.
        drive.map(|drive| drive.content().to_vec()).unwrap_or_default()
    };
    let mut luks = vec![0; 8192];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    luks[14] = 0x20;
    luks[72..78].copy_from_slice(b"sha256");
    let mut xfs = vec![0; 8192];
    xfs[..4].copy_from_slice(b"XFSB");
    vec![
        ("ISO 9660", drive(512)),
        ("FAT", fat()),
        ("LUKS", luks),
        ("XFS", xfs),
    ]
}

/// A small one with a boot loader: what a config drive has behind its files are zeros, and many.
fn fat() -> Vec<u8> {
    let mut tree = hadris_fs::Tree::new();
    let program = hadris_fs::Node::file(hadris_fs::Content::bytes("MZ"));
    tree.insert("EFI/BOOT/BOOTX64.EFI", program).expect("a name");
    let mut image = Vec::new();
    let options = hadris_fat::FatOptions::new().with_size(128 << 10);
    hadris_fat::sync::write(&mut image, &tree, &options).expect("there is room");
    image
}
