//! Directories like those of sysfs, for tests.

use std::fs;

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
