//! Where config drives come from, and whether they can live where they go.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::decode::ConfigDrive;
use super::form::{Kind, MAX_INPUT_BYTES};
use crate::console::progress::{Progress, Wait};
use crate::image::source::registry;
use crate::image::source::url;
use crate::sys::blocking::apart;
use crate::sys::start;

/// Reads the config drive at `place`: a directory, a file, `-` for standard input, or an address. That may be
/// a secret; it is not shown among this process's arguments any longer.
pub async fn read(place: &Path, options: &registry::Options, progress: &Progress) -> Result<ConfigDrive> {
    let _reading = progress.waiting(Wait::new("reading the config drive"));
    if let Some(url) = place.to_str().and_then(url::parse) {
        let describe = || format!("config drive {}", url::shown(&url));
        let body = url::fetch(&url, &options.telling(progress), MAX_INPUT_BYTES)
            .await
            .with_context(describe)?;
        start::overwrite(place.as_os_str().as_bytes()).with_context(describe)?;
        return ConfigDrive::read(&body[..]).with_context(describe);
    }
    let place = place.to_owned();
    apart(move || read_here(&place)).await
}

/// Reads the config drive at `place`, as [`read`] does, but no address.
pub fn read_here(place: &Path) -> Result<ConfigDrive> {
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

/// The same files in a file system that can live on a disk with such sectors, with a warning when that is
/// another one.
pub fn fit(config_drive: ConfigDrive, sector_bytes: u64, progress: &Progress) -> Result<ConfigDrive> {
    let before = config_drive.kind();
    let fitting = config_drive.for_sectors(sector_bytes)?;
    if before == Kind::Iso9660 && fitting.kind() == Kind::Vfat {
        progress.warn(format!(
            "ISO 9660 cannot be read on a disk with sectors of {sector_bytes} bytes: the config drive \
             becomes FAT; cloud-init and Ignition read that, afterburn does not"
        ));
    }
    Ok(fitting)
}
