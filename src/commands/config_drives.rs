//! `landfall config-drive`: config drives apart from an installation, and where config drives come from.

mod show;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::config_drive::{self, ConfigDrive, Kind, MAX_INPUT_BYTES};
use crate::console::progress::{Event, Phase, Progress, Wait};
use crate::console::text::size;
use crate::image::root;
use crate::image::source::registry;
use crate::image::source::url;
use crate::machine::disk::chosen::{Disk, stale_config_drives};
use crate::machine::disk::installed::Origin;
use crate::report::DiskState;
use crate::sys::blocking::{apart, pause};
use crate::sys::heap::Wiping;

pub use show::show;

/// Reads the config drive at `place`: a directory, a file, `-` for standard input, or an address.
pub async fn read(place: &Path, options: &registry::Options, progress: &Progress) -> Result<ConfigDrive> {
    let _wiping = Wiping::start();
    let _reading = progress.waiting(Wait::new("reading the config drive"));
    if let Some(url) = place.to_str().and_then(url::parse) {
        let describe = || format!("config drive {}", url::shown(&url));
        let body = url::fetch(&url, &options.telling(progress), MAX_INPUT_BYTES)
            .await
            .with_context(describe)?;
        return ConfigDrive::read(&body[..]).with_context(describe);
    }
    let place = place.to_owned();
    apart(move || read_here(&place)).await
}

/// Reads the config drive at `place`, as [`read`] does, but no address.
fn read_here(place: &Path) -> Result<ConfigDrive> {
    let read = || -> Result<ConfigDrive> {
        if place == Path::new("-") {
            // Not through the buffer that standard input has: it is never wiped.
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            return Ok(ConfigDrive::read(File::from(stdin))?);
        }
        if place.is_dir() {
            return Ok(ConfigDrive::from_directory(place)?);
        }
        Ok(ConfigDrive::read(File::open(place)?)?)
    };
    read().with_context(|| format!("config drive {}", place.display()))
}

/// The same files in a filesystem that can live on `disk`, with a warning when that is another one.
pub fn fit(config_drive: ConfigDrive, disk: &Disk, progress: &Progress) -> Result<ConfigDrive> {
    fit_sectors(config_drive, disk.geometry.sector_bytes, progress)
}

fn fit_sectors(config_drive: ConfigDrive, sector_bytes: u64, progress: &Progress) -> Result<ConfigDrive> {
    let before = config_drive.kind();
    let fitting = config_drive.for_sectors(sector_bytes)?;
    if before == Kind::Iso9660 && fitting.kind() == Kind::Vfat {
        progress.warn(format!(
            "ISO 9660 can't be read on a disk with sectors of {sector_bytes} bytes: the config drive becomes FAT; cloud-init and \
             Ignition read that, afterburn does not"
        ));
    }
    Ok(fitting)
}

/// Warns of config drives on other disks than `target`; where they are to be removed, makes sure that they can be.
pub async fn look_for_stale(target: &Disk, clear: bool, progress: &Progress) -> Result<()> {
    let target = target.clone();
    let _looking = progress.waiting(Wait::new("looking for config drives on other disks"));
    let found = apart(move || stale_config_drives(&target)).await;
    for stale in found? {
        if clear {
            stale.refuse_if_fixed()?;
            continue;
        }
        progress.warn(format!(
            "an old config drive is on {stale}, and readers take the first they find: --clear-stale-config-drives removes it"
        ));
    }
    Ok(())
}

/// Removes the config drives on other disks than `target`.
pub fn clear_stale(target: &Disk, progress: &Progress) -> Result<()> {
    for stale in stale_config_drives(target)? {
        stale.clear()?;
        progress.note(format!("removed the old config drive on {stale}"));
    }
    Ok(())
}

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
    let read = read(source, fetch, progress).await?;
    let config_drive = fit(read, &disk, progress)?;
    look_for_stale(&disk, clear_stale_config_drives, progress).await?;
    let path = disk.path.clone();
    let room = disk.clone().room_for_config_drive(config_drive.size_bytes())?;
    pause().await;

    if clear_stale_config_drives {
        clear_stale(&disk, progress)?;
    }
    progress.tell(Event::Phase(Phase::ConfigDrive));
    *state = DiskState::Changed;
    let written = config_drive::write(&config_drive, &mut room.region()).await?;
    let taken = room.take()?;
    let how = match taken.origin {
        Origin::Existing => "used again",
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
    let built = fit_sectors(read_here(source)?, sector_bytes, progress)
        .with_context(|| format!("config drive {}", source.display()))?;
    let shown = output.display();
    put(built.content(), output).with_context(|| format!("writing {shown}"))?;
    let (kind, bytes) = (built.kind(), size(built.size_bytes()));
    progress.tell(Event::Done(format!(
        "made the config drive {shown} ({kind}, {bytes})"
    )));
    Ok(())
}

/// Writes a file that only its owner can read: it may hold secrets.
fn put(content: &[u8], path: &Path) -> Result<()> {
    // A file that is there may be anybody's: it goes, so that nobody has it open. A device would be missed.
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => fs::remove_file(path)?,
        Ok(_) => bail!("it is there already, and no plain file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
