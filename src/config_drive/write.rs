//! Writing a config drive into its partition, and proving that it is there.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use super::decode::ConfigDrive;
use super::form::{Kind, LABEL};
use crate::image::oci::digest::Hasher;
use crate::machine::filesystem::identify;
use crate::sys::block::{Durable, Region};
use crate::sys::blocking::pause;

const BUFFER_BYTES: usize = 1 << 20;
/// How much is written at a time.
const STEP_BYTES: usize = 4 << 20;
/// As far as the boot sectors of FAT and the volume descriptors of ISO 9660 can reach.
const HEAD_BYTES: usize = 64 << 10;

/// What was written, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The hash of the file system's bytes, as read back: `sha256:…`.
    pub digest: String,
    /// The size of the file system in bytes.
    pub size_bytes: u64,
    /// The file system.
    pub kind: Kind,
    /// Its label.
    pub label: String,
}

/// Why the config drive is not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the config drive has {drive} bytes, but its partition only {partition}")]
    NoRoom { drive: u64, partition: u64 },
    #[error("{doing} the config drive: {error}")]
    Io { doing: &'static str, error: io::Error },
    #[error(
        "the config drive read back from the disk differs from what was written ({found}, not {written})"
    )]
    Differs { found: String, written: String },
    #[error("the config drive's partition is not recognised as \"{LABEL}\" after it was written")]
    NotRecognised,
}

/// Writes `drive` to the start of `partition` and zeros after it, then reads it back from the disk and
/// compares.
///
/// It can be stopped between its steps.
///
/// The zeros are for old superblocks at the partition's end: they would contradict the label.
pub async fn write(drive: &ConfigDrive, partition: &mut Region<'_>) -> Result<Written, WriteError> {
    let room = partition.length_bytes();
    if drive.size_bytes() > room {
        return Err(WriteError::NoRoom {
            drive: drive.size_bytes(),
            partition: room,
        });
    }
    let doing = |doing| move |error| WriteError::Io { doing, error };
    put(drive, partition).await.map_err(doing("writing"))?;
    pause().await;
    partition.forget_cache().map_err(doing("reading back"))?;
    let found = digest_of(partition, drive.size_bytes()).map_err(doing("reading back"))?;
    let mut hasher = Hasher::sha256();
    hasher.update(drive.content());
    let written = hasher.finish().to_string();
    if found != written {
        return Err(WriteError::Differs { found, written });
    }
    let seen = identify(partition, room).map_err(doing("reading back"))?;
    let mut labels = seen.iter().filter_map(|signature| signature.label.as_ref());
    if !labels.any(|label| label.eq_ignore_ascii_case(LABEL)) {
        return Err(WriteError::NotRecognised);
    }
    Ok(Written {
        digest: found,
        size_bytes: drive.size_bytes(),
        kind: drive.kind(),
        label: drive.label().to_string(),
    })
}

/// What makes it a file system goes first of an old one and comes last of the new one: if this is
/// interrupted, no reader takes a mix of both for a config drive.
async fn put(drive: &ConfigDrive, partition: &mut Region<'_>) -> io::Result<()> {
    let head_bytes = HEAD_BYTES.min(drive.content().len());
    let (head, rest) = drive.content().split_at(head_bytes);
    let behind = partition.length_bytes() - drive.size_bytes();
    partition.seek(SeekFrom::Start(0))?;
    partition.write_all(&vec![0; head_bytes])?;
    partition.make_durable()?;
    for step in rest.chunks(STEP_BYTES) {
        pause().await;
        partition.write_all(step)?;
        // Also a slow disk is done with it soon.
        partition.make_durable()?;
    }
    pause().await;
    io::copy(&mut io::repeat(0).take(behind), partition)?;
    partition.make_durable()?;
    pause().await;
    partition.seek(SeekFrom::Start(0))?;
    partition.write_all(head)?;
    partition.make_durable()
}

/// The hash of the first `length` bytes.
fn digest_of(partition: &mut Region<'_>, length: u64) -> io::Result<String> {
    partition.seek(SeekFrom::Start(0))?;
    let mut reader = partition.take(length);
    let mut buffer = Zeroizing::new(vec![0; BUFFER_BYTES]);
    let mut hasher = Hasher::sha256();
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish().to_string()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const START: u64 = 4096;
    const ROOM: u64 = 1 << 20;

    fn drive() -> ConfigDrive {
        let mut image = vec![0; 40_960];
        image[0x8000..0x8006].copy_from_slice(b"\x01CD001");
        image[0x8028..0x8030].copy_from_slice(b"config-2");
        ConfigDrive::read(&image[..]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn what_is_written_stays_inside_and_old_bytes_behind_it_go() {
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&vec![0xee; (START + ROOM + START) as usize], 0)
            .unwrap();
        let written = write(&drive(), &mut Region::new(&disk, START, ROOM))
            .await
            .unwrap();
        assert_eq!((written.size_bytes, written.label.as_str()), (40_960, "config-2"));
        assert!(written.digest.starts_with("sha256:"));
        let mut bytes = vec![0; (START + ROOM + START) as usize];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        let (before, rest) = bytes.split_at(START as usize);
        let (partition, after) = rest.split_at(ROOM as usize);
        assert!(before.iter().chain(after).all(|byte| *byte == 0xee));
        assert!(partition[..40_960] == *drive().content());
        assert!(partition[40_960..].iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn one_that_is_longer_than_its_head_is_written_whole() {
        let mut image = drive().content().to_vec();
        image.extend((0..100_000).map(|number: u32| number as u8));
        let drive = ConfigDrive::read(&image[..]).unwrap_or_else(|error| panic!("{error}"));
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&vec![0xee; ROOM as usize], 0).unwrap();
        write(&drive, &mut Region::new(&disk, 0, ROOM)).await.unwrap();
        let mut bytes = vec![0xee; ROOM as usize];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        let (written, behind) = bytes.split_at(image.len());
        assert!(written == image && behind.iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn a_partition_that_is_too_small_is_not_touched() {
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&[0xee; 40_959], 0).unwrap();
        let error = write(&drive(), &mut Region::new(&disk, 0, 40_959))
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            WriteError::NoRoom {
                drive: 40_960,
                partition: 40_959
            }
        ));
        let mut first = [0];
        disk.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, [0xee]);
    }
}
