//! Directories like those of sysfs, and disks, for tests.

use std::fs;

use super::discover::BlockDevice;
use super::hints::Candidate;

/// A directory with these files: names and contents.
pub fn sysfs(files: &[(&str, impl AsRef<[u8]>)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    directory
}

/// A disk that has nothing but a name and a size.
pub fn disk(name: &str, size_bytes: u64) -> BlockDevice {
    let disk = Candidate {
        name: name.into(),
        size_bytes,
        ..Candidate::default()
    };
    BlockDevice {
        disk,
        by_id: Vec::new(),
        sector_bytes: 512,
        removable: false,
        excluded: None,
    }
}
