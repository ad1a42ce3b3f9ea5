//! The target `gpt`: partition tables of both kinds, and what is added to them.

use std::io::Cursor;

use uuid::uuid;

use crate::machine::disk::chosen::Contents;
use crate::machine::disk::table::{Extent, Geometry, Table};

const SECTOR_BYTES: u64 = 512;
const SECTORS: u64 = 512;

/// The bytes as they are, and with checksums that fit: else a table that is only a little wrong is seldom
/// seen.
pub fn run(data: &[u8]) {
    for sector_bytes in [512, 4096] {
        let mut mended = data.to_vec();
        mend(&mut mended, sector_bytes as usize);
        look(data.to_vec(), sector_bytes);
        look(mended, sector_bytes);
    }
}

fn look(data: Vec<u8>, sector_bytes: u64) {
    let geometry = Geometry::plain(data.len() as u64, sector_bytes);
    let mut disk = Cursor::new(data);
    let contents = Contents::read(&mut disk, geometry).expect("memory can be read");
    // What is shown goes to a terminal.
    assert!(!contents.to_string().contains(char::is_control));
    if let Ok(Some(table)) = Table::read(&mut disk, geometry) {
        extend(table, disk, geometry);
    }
}

/// Writes the checksums of what looks like a header at either end, where there is room for what they are of.
fn mend(disk: &mut [u8], sector_bytes: usize) {
    for start in [sector_bytes, disk.len().saturating_sub(sector_bytes)] {
        let Some(header) = disk
            .get(start..start + 92)
            .filter(|it| it.starts_with(b"EFI PART"))
        else {
            continue;
        };
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte])) as usize;
        let (length, array, array_length) = (number(12), number(72), number(80).checked_mul(number(84)));
        let array_checksum = (array.checked_mul(sector_bytes))
            .and_then(|array| disk.get(array..array.checked_add(array_length?)?))
            .map(checksum);
        disk[start + 16..start + 20].fill(0);
        if let Some(array_checksum) = array_checksum {
            disk[start + 88..start + 92].copy_from_slice(&array_checksum);
        }
        if let Some(header_checksum) = disk.get(start..start + length).map(checksum) {
            disk[start + 16..start + 20].copy_from_slice(&header_checksum);
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Whatever table was read can be added to and written, stays on the disk and loses nothing.
fn extend(mut table: Table, mut disk: Cursor<Vec<u8>>, geometry: Geometry) {
    let length = disk.get_ref().len();
    table.relocate_backup();
    let before: Vec<_> = table.partitions().collect();
    let extent = Extent {
        start_lba: table.last_usable_lba(),
        sectors: 1,
    };
    let added = table.add("added", uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), extent);
    table.write(&mut disk).expect("memory can be written");
    assert_eq!(disk.get_ref().len(), length, "it was written beyond the disk");
    let again = Table::read(&mut disk, geometry).expect("what was written is sound");
    let again = again.expect("what was written is there");
    assert!(again.is_in_order());
    let (new, old): (Vec<_>, Vec<_>) = again
        .partitions()
        .partition(|each| added.as_ref().is_ok_and(|added| added == each));
    assert_eq!(old, before);
    assert_eq!(new.len(), usize::from(added.is_ok()));
}

pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let empty = vec![0; (SECTORS * SECTOR_BYTES) as usize];
    let mut disk = Cursor::new(empty.clone());
    let table = gptman::GPT::new_from(&mut disk, SECTOR_BYTES, [7; 16]).and_then(|mut gpt| {
        gpt[1] = gptman::GPTPartitionEntry {
            partition_type_guid: [1; 16],
            unique_partition_guid: [2; 16],
            starting_lba: 100,
            ending_lba: 199,
            attribute_bits: 0,
            partition_name: "root\u{1b}[2J".into(),
        };
        gpt.write_into(&mut disk)
    });
    table.expect("memory can be written");
    let gpt = disk.into_inner();
    let mut grown = gpt.clone();
    grown.resize(gpt.len() + 4096, 0);
    let mut backup_only = gpt.clone();
    backup_only[512..1024].fill(0);
    let mut mbr = empty.clone();
    mbr[450] = 0x05;
    mbr[454] = 8;
    mbr[458] = 100;
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    // An extended partition whose chain leads back to itself.
    let extended = 8 * 512;
    mbr[extended + 450] = 0x83;
    mbr[extended + 454] = 1;
    mbr[extended + 458] = 1;
    mbr[extended + 466] = 0x05;
    mbr[extended + 474] = 1;
    mbr[extended + 510..extended + 512].copy_from_slice(&[0x55, 0xaa]);
    vec![
        ("empty", empty),
        ("a table", gpt),
        ("a disk that grew", grown),
        ("the backup alone", backup_only),
        ("an extended partition", mbr),
    ]
}
