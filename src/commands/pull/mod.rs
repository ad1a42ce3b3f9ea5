//! `landfall pull`: an image as an OCI image layout (image-spec `image-layout.md`), for a USB stick that brings it to a
//! place without a network, or for a mirror.
//!
//! Every blob is compared with its digest; manifest and config are kept to the byte, so the image keeps its digest. A
//! pull that was stopped goes on where it was, also inside a layer.

mod archive;
mod directory;
mod fetch;
mod index;

use std::io;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::sys::statfs::{FsType, MSDOS_SUPER_MAGIC, statfs};
use tokio::task::spawn_blocking;

use crate::cli::{self, Destination, DestinationForm};
use crate::console::progress::{Event, Phase, Progress, Wait};
use crate::console::text::size;
use crate::image::oci::{Descriptor, Image};
use crate::image::root;
use crate::image::source::file::Named;
use crate::machine::labelled::Stick;
use crate::machine::private_mount::Access;

/// The largest file on FAT, in bytes: sizes have 32 bits there.
const FAT_FILE_BYTES: u64 = u32::MAX as u64;

/// Pulls the image that was typed to `to`.
pub async fn save(typed: &cli::Image, to: &Destination, progress: &Progress) -> Result<()> {
    let (at, stick) = root::plug_in(&to.path, Access::Write, progress).await?;
    let mut target = Named::plain(&to.path);
    target.path = at.unwrap_or(target.path);
    if let Some(stick) = &stick {
        progress.note(format!("mounted {stick} to write to it"));
    }
    let found = root::find(typed, progress).await?;
    let image = &*found.image;
    progress.tell(Event::Phase(Phase::Save));
    let layers = layers(image);
    progress.tell(Event::PullStarted {
        layers: layers.len(),
        compressed_bytes: layers.iter().map(|(_, blob)| blob.size()).sum(),
    });
    let name = to.name.clone().unwrap_or_else(|| image.reference.update_name());
    let written = match to.form {
        DestinationForm::Directory => directory::write(&found, &target, &name, progress).await,
        DestinationForm::Archive => archive::write(&found, &target, &name, progress).await,
    };
    written.map_err(explain)?;
    if let Some(stick) = stick {
        unplug(stick, progress).await?;
    }
    let (digest, path) = (image.name_by_digest(), to.path.display());
    progress.tell(Event::Done(format!("saved {digest} to {path} as {name}")));
    Ok(())
}

/// The layers of `image`, each blob once, with the number of its layer.
fn layers(image: &Image) -> Vec<(usize, &Descriptor)> {
    let mut layers: Vec<(usize, &Descriptor)> = Vec::new();
    for layer in &image.layers {
        if !layers
            .iter()
            .any(|(_, blob)| blob.digest() == layer.blob.digest())
        {
            layers.push((layer.index, &layer.blob));
        }
    }
    layers
}

/// Sees to it that everything is on the stick, which takes a while.
async fn unplug(stick: Stick, progress: &Progress) -> Result<()> {
    let shown = stick.to_string();
    progress.note(format!("writing everything out to {shown}"));
    let _writing = progress.waiting(Wait::new(format!("writing everything out to {shown}")));
    let alone = spawn_blocking(|| stick.close())
        .await
        .context("a thread panicked")??;
    progress.note(if alone {
        format!("{shown} is unmounted: it can be unplugged")
    } else {
        format!(
            "{shown} is written; someone else has it mounted as well: unmount it there before it is unplugged"
        )
    });
    Ok(())
}

/// What to do about the failures of file systems that need it said.
fn explain(error: Error) -> Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    if kind == Some(io::ErrorKind::FileTooLarge) {
        return error.context(
            "the file system there does not take files of this size: use another, such as ext4 or exFAT",
        );
    }
    error
}

/// Why `target` could not be made.
fn not_made(error: io::Error, target: &Named) -> Error {
    let parent = Path::new(&target.shown).parent().unwrap_or(Path::new("/"));
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "there is no directory {}: make it first, or mount what belongs there",
            parent.display()
        ),
        io::ErrorKind::InvalidInput => anyhow!("the file system there does not allow this name ({error})"),
        _ => error.into(),
    }
}

/// An error when the file system of `directory` takes no file of so many bytes.
fn refuse_too_large(directory: &Path, file_bytes: u64) -> Result<()> {
    let kind = statfs(directory).context("statfs")?.filesystem_type();
    match largest_file(kind) {
        Some(limit) if file_bytes > limit => bail!(
            "a file of {} is needed there, and FAT has none larger than 4 GiB: use another file system, such as ext4 or exFAT",
            size(file_bytes)
        ),
        _ => Ok(()),
    }
}

/// The largest file that a file system of this kind takes, where that matters.
fn largest_file(kind: FsType) -> Option<u64> {
    (kind == MSDOS_SUPER_MAGIC).then_some(FAT_FILE_BYTES)
}

#[cfg(test)]
mod tests {
    use nix::libc;
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC};

    use super::*;

    #[test]
    fn fat_takes_less_than_4_gib() {
        for (kind, limit) in [
            (MSDOS_SUPER_MAGIC, Some((4 << 30) - 1)),
            (EXT4_SUPER_MAGIC, None),
            (TMPFS_MAGIC, None),
        ] {
            assert_eq!(largest_file(kind), limit);
        }
    }

    #[test]
    fn what_a_file_system_refuses_is_said_with_what_to_do() {
        let too_large = Error::new(io::Error::from_raw_os_error(libc::EFBIG)).context("write");
        assert!(format!("{:#}", explain(too_large)).contains("such as ext4 or exFAT"));
        let target = Named {
            path: "/run/x/a/b".into(),
            shown: "LABEL=STICK/a/b".into(),
        };
        for (errno, expected) in [
            (libc::ENOENT, "there is no directory LABEL=STICK/a: make it first"),
            (libc::EINVAL, "does not allow this name"),
            (libc::EACCES, "Permission denied"),
        ] {
            let error = not_made(io::Error::from_raw_os_error(errno), &target);
            assert!(error.to_string().contains(expected), "{error:#}");
        }
    }
}
