//! The target `config_drive`: everything that a config drive may be packed in, and its way to another file
//! system.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config_drive::{ConfigDrive, MAX_BYTES};

pub fn run(data: &[u8]) {
    let Ok(drive) = ConfigDrive::read(data) else {
        return;
    };
    assert!(drive.size_bytes() <= MAX_BYTES);
    assert!(drive.label().eq_ignore_ascii_case("config-2"));
    let Ok(files) = drive.files() else {
        return;
    };
    // Where it can be built for large sectors, nothing is lost on the way.
    if let Ok(fat) = drive.for_sectors(4096) {
        let again = fat
            .files()
            .unwrap_or_else(|error| panic!("what was built cannot be read: {error}"));
        let same = |(one, other): (&_, &_)| {
            let (one, other): (
                &crate::machine::filesystem::NamedFile,
                &crate::machine::filesystem::NamedFile,
            ) = (one, other);
            one.path == other.path && one.content == other.content
        };
        assert!(files.len() == again.len() && files.iter().zip(&again).all(same));
    }
}

pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let json =
        br#"{"meta_data": {"uuid": "u"}, "user_data": "text", "network_data": {}, "vendor_data": {"k": [1]}}"#;
    let iso = ConfigDrive::read(&json[..])
        .map(|drive| drive.content().to_vec())
        .unwrap_or_default();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder
        .write_all(&iso)
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    let base64 = STANDARD.encode(&packed).into_bytes();
    vec![
        ("JSON", json.to_vec()),
        ("ISO 9660", iso),
        ("gzip", packed),
        ("base64 of gzip", base64),
    ]
}
