//! Partition tables made at random, in both directions: what sfdisk writes is read as sfdisk reads it; and
//! after a config drive's partition was added, sfdisk reads the same partitions and that one, and sgdisk
//! finds nothing wrong.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::room::{CONFIG_DRIVE_NAME, NoRoom, Place};
use crate::machine::disk::layout::{CONFIG_DRIVE_MIB, LINUX_TYPE};
use crate::machine::disk::table::geometry::{Extent, Geometry, MIB};
use crate::machine::disk::table::gpt::Table;
use crate::machine::disk::table::mbr;
use crate::sys::random::Random;

/// How many tables of each kind; each takes some tens of milliseconds. `LANDFALL_TABLES` asks for more.
const TABLES: u64 = 60;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let asked = std::env::var("LANDFALL_TABLES").ok();
    1..=asked.map_or(TABLES, |count| {
        count.parse().expect("LANDFALL_TABLES is a number")
    })
}

/// A disk's file, and what was told to sfdisk.
struct Made {
    _directory: TempDir,
    path: PathBuf,
    file: File,
    geometry: Geometry,
    script: String,
}

impl Made {
    fn new(random: &mut Random, script: impl FnOnce(&mut Random, &Geometry) -> String) -> Self {
        let sector_bytes = *random.pick(&[512, 4096]);
        let size_bytes = (20 + random.below(200)) * MIB + random.below(300) * sector_bytes;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(size_bytes).unwrap();
        let geometry = Geometry::plain(size_bytes, sector_bytes);
        let script = script(random, &geometry);
        let mut made = Self {
            _directory: directory,
            path,
            file,
            geometry,
            script,
        };
        made.boot_code(random);
        made.sfdisk(&["--quiet", "--wipe=never"], Some(&made.script));
        made
    }

    /// What a boot loader has before the table.
    fn boot_code(&mut self, random: &mut Random) {
        let code: Vec<u8> = (0..440).map(|_| random.below(256) as u8).collect();
        self.file.write_all_at(&code, 0).unwrap();
    }

    /// Runs sfdisk on the file, or on a loop device where it would take the sectors for smaller ones.
    fn sfdisk(&self, arguments: &[&str], input: Option<&str>) -> String {
        let device = (self.geometry.sector_bytes != 512).then(|| Loop::over(&self.path, &self.geometry));
        let target = device.as_ref().map_or(self.path.as_path(), |device| &device.0);
        let mut child = Command::new("sfdisk")
            .args(["--no-reread", "--no-tell-kernel"])
            .args(arguments)
            .arg(target)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("sfdisk cannot be started ({error}): install fdisk"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.unwrap_or_default().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{}\n{said}", self.script);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The table as sfdisk reads it.
    fn dump(&self) -> Value {
        let said = self.sfdisk(&["--json"], None);
        let dump: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        dump["partitiontable"].clone()
    }

    /// Finds the place for a config drive of `needed` bytes.
    fn place(&mut self, needed: u64) -> Result<Place, NoRoom> {
        Place::find(&mut self.file, self.geometry, needed)
    }
}

/// A loop device with large sectors; detached when this is dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, geometry: &Geometry) -> Self {
        let mut losetup = Command::new("losetup");
        losetup.args([
            "--find",
            "--show",
            "--sector-size",
            &geometry.sector_bytes.to_string(),
        ]);
        let output = losetup.arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "losetup (are you root?): {said}");
        Self(String::from_utf8_lossy(&output.stdout).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Pieces of `usable` in order, with gaps between some of them.
fn pieces(random: &mut Random, usable: Extent, count: u64) -> Vec<Extent> {
    let mut cuts: Vec<u64> = (0..2 * count)
        .map(|_| usable.start_lba + random.below(usable.sectors))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let pieces = cuts.chunks_exact(2).map(|cut| Extent {
        start_lba: cut[0],
        sectors: cut[1] - cut[0],
    });
    pieces.collect()
}

fn uuid(random: &mut Random) -> String {
    let mut part = |digits: usize| {
        let digit = |_| char::from_digit(random.below(16) as u32, 16).unwrap();
        (0..digits).map(digit).collect::<String>().to_uppercase()
    };
    [8, 4, 4, 4, 12].map(&mut part).join("-")
}

const NAMES: [&str; 7] = [
    "",
    "root",
    "EFI System Partition",
    "größer",
    "日本語の名前",
    "🦀 crab",
    "a name of thirty-six characters, all",
];
const TYPES: [&str; 4] = [
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "21686148-6449-6E6F-744E-656564454649",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
];
const ATTRIBUTES: [&str; 4] = [
    "",
    "RequiredPartition",
    "LegacyBIOSBootable",
    "RequiredPartition GUID:48,63",
];

/// A GPT of up to seven partitions, whose numbers need not be in order.
fn gpt_script(random: &mut Random, geometry: &Geometry) -> String {
    let mut script = format!("label: gpt\nlabel-id: {}\n", uuid(random));
    let length = *random.pick(&[128, 128, 8, 64, 256]);
    let array_sectors = (length * 128_u64).div_ceil(geometry.sector_bytes);
    let first = *random.pick(&[2 + array_sectors, 128, 2048]);
    script += &format!("table-length: {length}\nfirst-lba: {first}\n");
    let usable = Extent {
        start_lba: first,
        sectors: geometry.sectors() - first - array_sectors - 1,
    };
    let count = random.below(8);
    let mut numbers: Vec<u64> = (1..=8).collect();
    for piece in pieces(random, usable, count) {
        let number = numbers.remove(random.below(numbers.len() as u64) as usize);
        script += &format!(
            "{number} : start={}, size={}, type={}, uuid={}, name=\"{}\", attrs=\"{}\"\n",
            piece.start_lba,
            piece.sectors,
            random.pick(&TYPES),
            uuid(random),
            random.pick(&NAMES),
            random.pick(&ATTRIBUTES)
        );
    }
    script
}

/// What sfdisk and we say of a GPT's partitions: number, start, sectors, type, own GUID, name.
type Row = (u64, u64, u64, String, String, String);

fn rows_of_sfdisk(dump: &Value) -> Vec<Row> {
    let text = |partition: &Value, key: &str| partition[key].as_str().unwrap_or_default().to_string();
    let row = |partition: &Value| {
        let node = text(partition, "node");
        let number = node.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
        (
            number.parse().unwrap(),
            partition["start"].as_u64().unwrap(),
            partition["size"].as_u64().unwrap(),
            text(partition, "type").to_lowercase(),
            text(partition, "uuid").to_lowercase(),
            text(partition, "name"),
        )
    };
    let partitions = dump["partitions"].as_array();
    let mut rows: Vec<Row> = partitions.into_iter().flatten().map(row).collect();
    rows.sort();
    rows
}

fn rows_of_ours(table: &Table) -> Vec<Row> {
    let row = |partition: crate::machine::disk::table::gpt::Partition| {
        (
            partition.number.into(),
            partition.extent.start_lba,
            partition.extent.sectors,
            partition.type_guid.to_string(),
            partition.uuid.to_string(),
            partition.name,
        )
    };
    table.partitions().map(row).collect()
}

/// The attributes of each partition, by its own GUID: our type does not have them.
fn attributes(dump: &Value) -> Vec<(String, String)> {
    let partitions = dump["partitions"].as_array().into_iter().flatten();
    let of = |partition: &Value| {
        let text = |key: &str| partition[key].as_str().map(str::to_string);
        Some((text("uuid")?, text("attrs")?))
    };
    let mut all: Vec<_> = partitions.filter_map(of).collect();
    all.sort();
    all
}

/// Does to a disk what happens to disks; says what.
fn mishap(made: &mut Made, random: &mut Random) -> &'static str {
    let sector = made.geometry.sector_bytes;
    let zeros = vec![0; sector as usize];
    match random.below(6) {
        0 => {
            let size_bytes = made.geometry.size_bytes + (1 + random.below(50)) * MIB + sector;
            made.file.set_len(size_bytes).unwrap();
            made.geometry = Geometry::plain(size_bytes, sector);
            "it grew"
        }
        1 => {
            made.file.write_all_at(&zeros, sector).unwrap();
            "the first header is lost"
        }
        2 => {
            let last = made.geometry.size_bytes - sector;
            made.file.write_all_at(&zeros, last).unwrap();
            "the second header is lost"
        }
        3 => {
            made.file.write_all_at(&[0; 66], 446).unwrap();
            "the protective MBR is lost"
        }
        _ => "nothing happened",
    }
}

#[test]
fn random_gpts_of_sfdisk_are_read_and_ours_are_sound_to_sfdisk_and_sgdisk() {
    let mut added = 0;
    for seed in seeds() {
        let mut random = Random::new(seed);
        let mut made = Made::new(&mut random, gpt_script);
        let before = made.dump();
        let context = |more: &str| format!("seed {seed}: {more}\n");
        let table = Table::read(&mut made.file, made.geometry).unwrap().unwrap();
        assert!(table.is_in_order(), "{}{}", context("fresh"), made.script);
        let rows = rows_of_sfdisk(&before);
        assert_eq!(rows_of_ours(&table), rows, "{}", context(&made.script));
        let id = before["id"].as_str().unwrap().to_lowercase();
        assert_eq!(table.disk_guid().to_string(), id, "{}", context(&made.script));
        let usable = (table.first_usable_lba(), table.last_usable_lba());
        let theirs = |key: &str| before[key].as_u64().unwrap();
        assert_eq!(
            usable,
            (theirs("firstlba"), theirs("lastlba")),
            "{}",
            context(&made.script)
        );

        let mishap = mishap(&mut made, &mut random);
        let context = context(&format!("{mishap}\n{}", made.script));
        let needed = 1 + random.below(CONFIG_DRIVE_MIB * MIB);
        match made.place(needed) {
            Ok(Place::Gpt { mut table, extent }) => {
                assert!(extent.sectors * made.geometry.sector_bytes >= needed, "{context}");
                assert_eq!(extent.start_lba % made.geometry.sectors_per_mib(), 0, "{context}");
                let new = table.add(CONFIG_DRIVE_NAME, LINUX_TYPE, extent).unwrap();
                table.write(&mut made.file).unwrap();
                let after = made.dump();
                let mut expected = rows;
                expected.push((
                    new.number.into(),
                    extent.start_lba,
                    extent.sectors,
                    LINUX_TYPE.to_string(),
                    new.uuid.to_string(),
                    CONFIG_DRIVE_NAME.into(),
                ));
                expected.sort();
                assert_eq!(rows_of_sfdisk(&after), expected, "{context}");
                assert_eq!(attributes(&after), attributes(&before), "{context}");
                assert_eq!(after["id"], before["id"], "{context}");
                added += 1;
            }
            Ok(other) => panic!("{context}{other:?}"),
            Err(NoRoom::Full { .. }) => {
                let mut table = Table::read(&mut made.file, made.geometry).unwrap().unwrap();
                table.write(&mut made.file).unwrap();
                assert_eq!(rows_of_sfdisk(&made.dump()), rows, "{context}");
                assert_eq!(attributes(&made.dump()), attributes(&before), "{context}");
                let taken: Vec<_> = table.partitions().map(|each| each.extent).collect();
                let usable = table.first_usable_lba()..=table.last_usable_lba();
                refute_room(&made.geometry, usable, &taken, needed, &context);
            }
            // Eight partitions are all that the smallest table holds.
            Err(error) => panic!("{context}{error}"),
        }
        assert_sound(&made, &context);
    }
    assert!(added > 0, "no table had room for a config drive");
}

/// Looks at every mebibyte: none of them begins a free piece of `needed` bytes.
fn refute_room(
    geometry: &Geometry,
    usable: std::ops::RangeInclusive<u64>,
    taken: &[Extent],
    needed: u64,
    context: &str,
) {
    let sectors = needed.div_ceil(geometry.sector_bytes);
    let starts = (*usable.start()..=*usable.end()).filter(|lba| lba % geometry.sectors_per_mib() == 0);
    for start in starts {
        let end = start + sectors;
        let is_free = |each: &Extent| each.end_lba() <= start || end <= each.start_lba;
        let fits = end <= usable.end() + 1 && taken.iter().all(is_free);
        assert!(!fits, "{context}{needed} bytes fit at sector {start}");
    }
}

/// Both copies are right to sgdisk, which takes a file's sectors for 512 bytes, or to sfdisk; and the MBR is
/// protective.
fn assert_sound(made: &Made, context: &str) {
    let said = match made.geometry.sector_bytes {
        512 => {
            let output = Command::new("sgdisk").arg("--verify").arg(&made.path).output();
            let output = output.unwrap_or_else(|error| panic!("sgdisk: {error}: install gdisk"));
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => made.sfdisk(&["--verify"], None),
    };
    let is_content = said.contains("No problems found") || said.contains("No errors detected");
    assert!(is_content, "{context}{said}");
    let mut mbr = [0; 512];
    made.file.read_exact_at(&mut mbr, 0).unwrap();
    let rest = u32::try_from(made.geometry.sectors() - 1).unwrap();
    assert_eq!((mbr[450], &mbr[454..458]), (0xee, &[1, 0, 0, 0][..]), "{context}");
    assert_eq!(mbr[458..462], rest.to_le_bytes(), "{context}");
    assert_eq!(mbr[510..], [0x55, 0xaa], "{context}");
}

/// An MBR of up to four partitions; the last may be an extended one with logical ones in it.
fn mbr_script(random: &mut Random, geometry: &Geometry) -> String {
    let mut script = format!(
        "label: dos\nlabel-id: 0x{:08x}\n",
        1 + random.below(u32::MAX.into())
    );
    let usable = Extent {
        start_lba: 2048,
        sectors: geometry.sectors() - 2048,
    };
    let count = 1 + random.below(4);
    let parts = pieces(random, usable, count);
    let last = parts.len();
    for (number, part) in (1..).zip(parts) {
        let is_extended = number == last && part.sectors > 3 * 2048 && random.one_in(2);
        let kind = if is_extended {
            "f"
        } else {
            *random.pick(&["83", "c", "82", "7"])
        };
        let flag = if random.one_in(4) { ", bootable" } else { "" };
        let (start, size) = (part.start_lba, part.sectors);
        script += &format!("{number} : start={start}, size={size}, type={kind}{flag}\n");
        if is_extended {
            let size = part.sectors - 2048;
            script += &format!("5 : start={}, size={}, type=83\n", start + 64, size / 2);
            script += &format!(
                "6 : start={}, size={}, type=83\n",
                start + 64 + size / 2 + 64,
                size / 3
            );
        }
    }
    script
}

#[test]
fn random_mbrs_of_sfdisk_are_read_and_get_one_more_primary_partition() {
    let (mut added, mut full) = (0, 0);
    for seed in seeds() {
        let mut random = Random::new(seed);
        let mut made = Made::new(&mut random, mbr_script);
        let was_gpt = random.one_in(2);
        if was_gpt {
            leave_gpt(&mut made);
        }
        let before = made.dump();
        let context = format!("seed {seed}, on what was a GPT: {was_gpt}\n{}", made.script);
        assert_eq!(before["label"], "dos", "{context}");
        let known = mbr::partitions(&mut made.file, &made.geometry)
            .unwrap()
            .unwrap_or_default();
        let ours: Vec<_> = known
            .iter()
            .map(|each| {
                (
                    each.number.into(),
                    each.extent.start_lba,
                    each.extent.sectors,
                    format!("{:x}", each.kind),
                )
            })
            .collect();
        let theirs = |dump: &Value| -> Vec<(u64, u64, u64, String)> {
            let rows = rows_of_sfdisk(dump).into_iter();
            rows.map(|row| (row.0, row.1, row.2, row.3)).collect()
        };
        assert_eq!(ours, theirs(&before), "{context}");
        if ours.is_empty() {
            continue;
        }

        let bytes = fs::read(&made.path).unwrap();
        let needed = 1 + random.below(CONFIG_DRIVE_MIB * MIB);
        let primaries = known.iter().filter(|each| each.number <= 4).count();
        match made.place(needed) {
            Ok(Place::Mbr { mut mbr, extent }) => {
                assert!(extent.sectors * made.geometry.sector_bytes >= needed, "{context}");
                let number = mbr.add(extent).unwrap();
                mbr.write(&mut made.file).unwrap();
                let mut expected = theirs(&before);
                expected.push((number.into(), extent.start_lba, extent.sectors, "c".into()));
                expected.sort();
                assert_eq!(theirs(&made.dump()), expected, "{context}");
                assert_eq!(made.dump()["id"], before["id"], "{context}");
                let verdict = made.sfdisk(&["--verify"], None);
                assert!(
                    verdict.contains("No errors detected"),
                    "{context}verdict: {verdict}"
                );
                assert_only_a_record_changed(&bytes, &made.path, number, &context);
                added += 1;
            }
            Err(NoRoom::NoRecord) => {
                assert_eq!(primaries, 4, "{context}");
                full += 1;
            }
            Err(NoRoom::Full { .. }) => {
                let taken: Vec<_> = known
                    .iter()
                    .filter(|each| each.number <= 4)
                    .map(|each| each.extent)
                    .collect();
                let usable = 1..=made.geometry.sectors() - 1;
                refute_room(&made.geometry, usable, &taken, needed, &context);
                assert_eq!(fs::read(&made.path).unwrap(), bytes, "{context}");
            }
            other => panic!("{context}{other:?}"),
        }
    }
    assert!(
        added > 0 && full > 0,
        "{added} partitions added, {full} tables were full"
    );
}

/// Leaves both copies of a GPT beside the MBR, as an MBR's image does that is written over one.
fn leave_gpt(made: &mut Made) {
    let sector_bytes = made.geometry.sector_bytes;
    let gpt = gptman::GPT::new_from(&mut made.file, sector_bytes, [7; 16]);
    gpt.and_then(|mut gpt| gpt.write_into(&mut made.file)).unwrap();
}

fn assert_only_a_record_changed(before: &[u8], path: &Path, number: u32, context: &str) {
    let mut after = fs::read(path).unwrap();
    let at = 446 + 16 * (number as usize - 1);
    after[at..at + 16].copy_from_slice(&before[at..at + 16]);
    assert!(after == before, "{context}more than a record was changed");
}
