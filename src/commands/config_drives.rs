//! `landfall config-drive`: config drives apart from an installation.

mod show;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::config_drive;
use crate::console::progress::{Event, Phase, Progress, Wait};
use crate::console::text::size;
use crate::image::root;
use crate::image::source::registry;
use crate::machine::disk::chosen::{Decided, Disk};
use crate::machine::disk::installed::Origin;
use crate::report::DiskState;
use crate::sys::blocking::{apart, pause};

pub use show::show;

/// Writes a config drive to a disk that has a system on it.
pub async fn write(
    source: &Path,
    device: PathBuf,
    fetch: &registry::Options,
    clear_stale_config_drives: bool,
    progress: &Progress,
    state: &mut DiskState,
) -> Result<()> {
    root::check_root()?;
    let looking = progress.waiting(Wait::new(format!("looking at {}", device.display())));
    let disk = apart(move || Disk::probe(&device)).await?;
    drop(looking);
    let config_drive = config_drive::read(source, fetch, progress).await?;
    let config_drive = config_drive::fit(config_drive, disk.geometry.sector_bytes, progress)?;
    disk.look_for_stale_config_drives(clear_stale_config_drives, progress)
        .await?;
    let path = disk.path.clone();
    let room = disk.room_for_config_drive(config_drive.size_bytes())?;
    pause().await;

    if clear_stale_config_drives {
        room.clear_stale_config_drives(progress)?;
    }
    progress.enter(Phase::ConfigDrive);
    *state = DiskState::Changed;
    let written = config_drive::write(&config_drive, &mut room.region()).await?;
    let taken = room.take()?;
    let how = match taken.origin {
        Origin::Existing => "reused",
        Origin::Gpt | Origin::Mbr => "new",
    };
    progress.tell(Event::Done(format!(
        "wrote the config drive ({}, {}, {}) to partition {} of {} ({}, {how})",
        written.kind,
        size(written.size_bytes),
        written.digest,
        taken.number,
        path.display(),
        size(taken.size_bytes),
    )));
    Ok(())
}

/// Makes a config drive's image.
pub fn build(source: &Path, output: &Path, sector_bytes: u64, progress: &Progress) -> Result<()> {
    let built = config_drive::fit(config_drive::read_here(source)?, sector_bytes, progress)
        .with_context(|| format!("config drive {}", source.display()))?;
    let shown = output.display();
    put(built.content(), output).with_context(|| format!("writing {shown}"))?;
    let (kind, bytes) = (built.kind(), size(built.size_bytes()));
    progress.tell(Event::Done(format!(
        "wrote the config drive {shown} ({kind}, {bytes})"
    )));
    Ok(())
}

/// Writes a file that only its owner can read: it may hold secrets.
fn put(content: &[u8], path: &Path) -> Result<()> {
    // An existing file may be open elsewhere, so it is removed first. A device must not be.
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => fs::remove_file(path)?,
        Ok(_) => bail!("it exists and is not a regular file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
