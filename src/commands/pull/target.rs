//! What an image is saved to, and the errors of the file system there.

use std::io;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::sys::statfs::{MSDOS_SUPER_MAGIC, statfs};

use crate::console::text::size;
use crate::image::oci::{Descriptor, Image};
use crate::image::source::file::Named;

/// The largest file on FAT, in bytes: sizes have 32 bits there.
const FAT_FILE_BYTES: u64 = u32::MAX as u64;

/// The layers of `image`, each blob once, with the number of its layer.
pub fn layers(image: &Image) -> Vec<(usize, &Descriptor)> {
    let mut layers: Vec<(usize, &Descriptor)> = Vec::new();
    for layer in &image.layers {
        let blob = &layer.blob;
        if layers.iter().all(|(_, seen)| seen.digest() != blob.digest()) {
            layers.push((layer.index, blob));
        }
    }
    layers
}

/// Why `target` could not be made.
pub fn not_made(error: io::Error, target: &Named) -> Error {
    let parent = Path::new(&target.shown).parent().unwrap_or(Path::new("/"));
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "directory {} does not exist: create it, or mount what belongs there",
            parent.display()
        ),
        io::ErrorKind::InvalidInput => anyhow!("the file system there does not allow this name ({error})"),
        _ => error.into(),
    }
}

/// An error when the file system of `directory` can't hold a file of `file_bytes`.
pub fn refuse_too_large(directory: &Path, file_bytes: u64) -> Result<()> {
    let is_fat = statfs(directory).context("statfs")?.filesystem_type() == MSDOS_SUPER_MAGIC;
    ensure!(
        !is_fat || file_bytes <= FAT_FILE_BYTES,
        "a file of {} is needed there, but files on FAT are smaller than 4 GiB: use another file system, \
         such as ext4 or exFAT",
        size(file_bytes)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn what_a_file_system_refuses_is_said_with_what_to_do() {
        let target = Named {
            path: "/run/x/a/b".into(),
            shown: "LABEL=STICK/a/b".into(),
        };
        for (errno, expected) in [
            (libc::ENOENT, "directory LABEL=STICK/a does not exist: create it"),
            (libc::EINVAL, "does not allow this name"),
            (libc::EACCES, "Permission denied"),
        ] {
            let error = not_made(io::Error::from_raw_os_error(errno), &target);
            assert!(error.to_string().contains(expected), "{error:#}");
        }
    }
}
