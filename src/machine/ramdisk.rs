//! The ramdisk that this program is the first process of, and what it should not keep.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Removes the file or the directory at `path`, as far as it is in the root's own file system: what was put
/// into a ramdisk is a copy, on a stick or a disk it is not. Nothing there is fine.
pub fn remove(path: &Path) -> Result<()> {
    let root = fs::metadata("/").context("stat(/)")?;
    remove_on(root.dev(), path).with_context(|| format!("removing {} from the ramdisk", path.display()))
}

fn remove_on(device: u64, path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        metadata => metadata?,
    };
    if metadata.is_symlink() {
        // What it leads to is what holds something.
        return match fs::canonicalize(path) {
            Ok(end) => remove_on(device, &end),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    if metadata.dev() != device {
        return Ok(());
    }
    if !metadata.is_dir() {
        return Ok(fs::remove_file(path)?);
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if !path.is_symlink() {
            remove_on(device, &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::enter_private_mounts;
    use nix::mount::{MsFlags, mount};
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_is_in_the_same_file_system_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let device = fs::metadata(directory.path()).unwrap().dev();
        std::thread::scope(|scope| {
            let work = || {
                enter_private_mounts().unwrap();
                for name in ["drive/openstack", "drive/mounted"] {
                    fs::create_dir_all(at(name)).unwrap();
                }
                let stick = at("drive/mounted");
                mount(Some("x"), &stick, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
                for name in ["file", "other", "drive/openstack/secret", "drive/mounted/kept"] {
                    fs::write(at(name), "").unwrap();
                }
                symlink("file", at("link")).unwrap();
                symlink("../other", at("drive/link")).unwrap();
                symlink("nowhere", at("broken")).unwrap();
                for name in [
                    "none",
                    "file/none",
                    "link",
                    "broken",
                    "drive",
                    "drive/mounted/kept",
                ] {
                    remove_on(device, &at(name)).unwrap();
                }
                for (name, is_left) in [
                    ("file", false),
                    ("other", true),
                    ("drive/openstack/secret", false),
                    ("drive/mounted/kept", true),
                ] {
                    assert_eq!(at(name).exists(), is_left, "{name}");
                }
            };
            scope.spawn(work).join().unwrap();
        });
    }
}
