//! Config drives against the programs that everyone else uses: xorriso, mkfs, mtools, blkid, sfdisk,
//! cloud-init. Needs root and those programs; a missing one is a failure that names it.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use landfall::config_drive::{self, ConfigDrive};
use landfall::{MIB, Volume};
use support::disk::{blkid, image, open, run, text};
use tempfile::TempDir;

#[test]
fn config_drives_of_xorriso_and_mkfs_are_recognised() {
    let directory = tempfile::tempdir().unwrap();
    let iso = directory.path().join("drive.iso");
    lab::config_drive::create(&iso, &[("openstack/latest/meta_data.json", "{}")]).unwrap();
    let drive = ConfigDrive::read(File::open(&iso).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (drive.kind(), drive.label()),
        (config_drive::Kind::Iso9660, "config-2")
    );
    let fat = image(&directory, 4 * MIB);
    run("mkfs.fat", &["-n", "config-2", text(&fat)]);
    let drive = ConfigDrive::read(File::open(&fat).unwrap()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (drive.kind(), drive.label()),
        (config_drive::Kind::Vfat, "config-2")
    );
}

#[test]
fn files_that_mtools_writes_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..70_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let source = directory.path().join("source");
    fs::write(&source, &content).unwrap();
    for arguments in [
        &["-F", "12", "-s", "64"][..],
        &["-F", "16"],
        &["-F", "32"],
        &["-S", "4096", "-F", "16"],
    ] {
        let path = image(&directory, 64 * MIB);
        run("mkfs.fat", &[arguments, &[text(&path)]].concat());
        let on_image = |program: &str, rest: &[&str]| run(program, &[&["-i", text(&path)], rest].concat());
        on_image("mmd", &["::EFI", "::EFI/Linux"]);
        for number in 0..40 {
            let name = format!("::EFI/Linux/a long name with ünïcode {number}.efi");
            on_image("mcopy", &[text(&source), &name]);
            if number % 3 == 0 {
                on_image("mdel", &[&name]);
            }
        }
        on_image("mcopy", &[text(&source), "::PLAIN.TXT"]);
        let mut volume = Volume::open(open(&path)).unwrap();
        let names: Vec<_> = volume
            .list("/efi/linux")
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names.len(), 26, "{arguments:?}: {names:?}");
        for number in (0..40).filter(|number| number % 3 != 0) {
            let entry = volume
                .find(&format!("EFI/linux/A LONG NAME WITH ÜNÏCODE {number}.EFI"))
                .unwrap()
                .unwrap();
            assert_eq!(volume.read(&entry, u64::MAX).unwrap(), content);
            assert_eq!(volume.read(&entry, 3).unwrap(), content[..3]);
        }
        assert_eq!(
            volume.find("plain.txt").unwrap().unwrap().size_bytes,
            content.len() as u64
        );
        for absent in ["EFI/Linux/none.efi", "PLAIN.TXT/below", "none/none"] {
            assert_eq!(volume.find(absent).unwrap(), None);
        }
    }
}

const JSON: &str = r#"{
    "meta_data": {"uuid": "11111111-2222-3333-4444-555555555555", "name": "web-1", "hostname": "web-1"},
    "user_data": "\u0023cloud-config\nhostname: web-1\n",
    "network_data": {"links": [], "networks": [], "services": []},
    "vendor_data": {"site": "lab"}
}"#;

/// The config drive as an image file.
fn image_of(drive: &ConfigDrive, directory: &TempDir) -> PathBuf {
    let path = directory.path().join("built.img");
    let file = File::create(&path).unwrap();
    file.set_len(drive.size_bytes()).unwrap();
    let file = open(&path);
    let mut region = landfall::Region::new(&file, 0, drive.size_bytes());
    support::block_on(config_drive::write(drive, &mut region)).unwrap();
    path
}

fn read_drive(input: &[u8]) -> ConfigDrive {
    ConfigDrive::read(input).unwrap_or_else(|error| panic!("{error}"))
}

/// Takes the files out of an ISO image with xorriso, by the names of Rock Ridge, or by those of Joliet
/// (`norock`).
fn extract_iso(iso: &Path, names: &str, directory: &TempDir) -> PathBuf {
    let target = directory.path().join("extracted");
    let _ = fs::remove_dir_all(&target);
    run(
        "xorriso",
        &[
            "-osirrox",
            "on",
            "-read_fs",
            names,
            "-indev",
            text(iso),
            "-extract",
            "/",
            text(&target),
        ],
    );
    target
}

#[test]
fn ironics_json_becomes_a_drive_that_others_read() {
    let directory = tempfile::tempdir().unwrap();
    let drive = read_drive(JSON.as_bytes());
    assert_eq!(
        (drive.kind(), drive.label()),
        (config_drive::Kind::Iso9660, "config-2")
    );
    let iso = image_of(&drive, &directory);
    let (kind, label, _) = blkid(&iso);
    assert_eq!((kind.as_str(), label.as_deref()), ("iso9660", Some("config-2")));
    let tree = extract_iso(&iso, "any", &directory);
    for version in ["latest", "2012-08-10"] {
        let read = |name: &str| fs::read_to_string(tree.join("openstack").join(version).join(name)).unwrap();
        let json = |name: &str| serde_json::from_str::<serde_json::Value>(&read(name)).unwrap();
        let given: serde_json::Value = serde_json::from_str(JSON).unwrap();
        assert_eq!(json("meta_data.json"), given["meta_data"]);
        assert_eq!(json("network_data.json"), given["network_data"]);
        assert_eq!(json("vendor_data2.json"), given["vendor_data"]);
        assert_eq!(read("user_data"), "#cloud-config\nhostname: web-1\n");
    }
}

/// As openstacksdk has it, which builds config drives for Ironic: what is empty makes no file. cloud-init
/// would configure no network at all by an empty `network_data.json`.
#[test]
fn what_is_empty_in_ironics_json_makes_no_file() {
    let names = |json: &str| {
        let files = read_drive(json.as_bytes()).files().unwrap();
        let latest = files
            .iter()
            .filter_map(|file| file.path.strip_prefix("openstack/latest/"));
        latest.map(String::from).collect::<Vec<_>>()
    };
    let empty = r#"{"meta_data": {}, "network_data": {}, "vendor_data": {}, "user_data": ""}"#;
    let null = r#"{"meta_data": null, "network_data": null, "vendor_data": null, "user_data": null}"#;
    for json in ["{}", empty, null] {
        assert_eq!(names(json), ["meta_data.json"], "{json}");
    }
    for (data, expected) in [("{}", "{}"), ("[1]", "[1]"), (r#"{"a": "b"}"#, r#"{"a":"b"}"#)] {
        let files = read_drive(format!("{{\"user_data\": {data}}}").as_bytes())
            .files()
            .unwrap();
        let found = files
            .iter()
            .find(|file| file.path == "openstack/latest/user_data");
        assert_eq!(&found.unwrap().content[..], expected.as_bytes());
    }
}

#[test]
fn what_links_name_is_there_on_fat_too() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let version = tree.join("openstack/2018-08-27");
    fs::create_dir_all(&version).unwrap();
    fs::write(version.join("meta_data.json"), "{}").unwrap();
    fs::write(version.join("user_data"), "text").unwrap();
    for (target, link) in [
        ("2018-08-27", "openstack/latest"),
        ("./latest", "openstack/newest"),
        ("../openstack/2018-08-27/../latest/user_data", "openstack/user"),
        ("../../etc/passwd", "openstack/outside"),
        ("/etc/passwd", "openstack/absolute"),
        ("nothing", "openstack/dangling"),
        ("..", "openstack/loop"),
        ("itself", "openstack/itself"),
    ] {
        std::os::unix::fs::symlink(target, tree.join(link)).unwrap();
    }
    let iso = directory.path().join("links.iso");
    let fixed = ["-as", "mkisofs", "-quiet", "-J", "-r", "-V", "config-2", "-o"];
    run("xorriso", &[&fixed[..], &[text(&iso), text(&tree)]].concat());
    let fat = read_drive(&fs::read(&iso).unwrap()).for_sectors(4096);
    let files = fat.unwrap_or_else(|error| panic!("{error}")).files().unwrap();
    let mut found: Vec<String> = files
        .iter()
        .map(|file| format!("{}: {}", file.path, String::from_utf8_lossy(&file.content)))
        .collect();
    found.sort();
    let mut expected = vec!["openstack/user: text".to_string()];
    for name in ["2018-08-27", "latest", "newest"] {
        expected.push(format!("openstack/{name}/meta_data.json: {{}}"));
        expected.push(format!("openstack/{name}/user_data: text"));
    }
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_directory_becomes_a_drive_and_an_iso_becomes_fat() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    let long = format!("a long name with ünïcode {}.json", "x".repeat(200));
    let files: Vec<(String, Vec<u8>)> = (0..150_u32)
        .map(|number| {
            (
                format!("content/{number:04}"),
                vec![number as u8; (number * 37) as usize],
            )
        })
        .chain([
            (format!("openstack/latest/{long}"), b"long".to_vec()),
            (
                "openstack/latest/meta_data.json".into(),
                b"{\"uuid\": \"x\"}".to_vec(),
            ),
            ("empty".into(), Vec::new()),
            ("a/b/c/d/e/f/g/deep".into(), vec![1; 5000]),
        ])
        .collect();
    for (name, content) in &files {
        let path = source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let drive = ConfigDrive::from_directory(&source).unwrap_or_else(|error| panic!("{error}"));
    let iso = image_of(&drive, &directory);
    for names in ["any", "norock"] {
        let tree = extract_iso(&iso, names, &directory);
        // Joliet cuts a name after 64 letters.
        if names == "norock" {
            let version = tree.join("openstack/latest");
            let cut: String = long.chars().take(64).collect();
            fs::rename(version.join(cut), version.join(&long)).unwrap();
        }
        run("diff", &["-r", "--brief", text(&source), text(&tree)]);
    }
    let version = [
        "--probe",
        "--output",
        "value",
        "--match-tag",
        "VERSION",
        text(&iso),
    ];
    assert_eq!(run("blkid", &version).trim(), "Joliet Extension");

    // Images as others make them: Rock Ridge, Joliet alone, neither.
    let makers: [(&[&str], bool); 4] = [
        (&["-J", "-r"], true),
        (&["-r"], true),
        (&["-J", "-joliet-long"], true),
        (
            &["-iso-level", "3", "-allow-lowercase", "-full-iso9660-filenames"],
            false,
        ),
    ];
    for (arguments, has_long_names) in makers {
        let foreign = directory.path().join("foreign.iso");
        let _ = fs::remove_file(&foreign);
        let fixed = ["-as", "mkisofs", "-quiet", "-V", "config-2", "-o", text(&foreign)];
        run("xorriso", &[&fixed[..], arguments, &[text(&source)]].concat());
        check_as_fat(
            &directory,
            &fs::read(&foreign).unwrap(),
            &files,
            has_long_names,
            &long,
        );
    }
    check_as_fat(&directory, &fs::read(&iso).unwrap(), &files, true, &long);
}

/// Makes FAT for 4096-byte sectors of an ISO, has fsck and mtools look at it, and compares every file.
fn check_as_fat(
    directory: &TempDir,
    iso: &[u8],
    files: &[(String, Vec<u8>)],
    has_long_names: bool,
    long: &str,
) {
    let drive = read_drive(iso)
        .for_sectors(4096)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (drive.kind(), drive.label()),
        (config_drive::Kind::Vfat, "config-2")
    );
    assert!(drive.check_sector_bytes(4096).is_ok());
    let fat = image_of(&drive, directory);
    // As Nova writes it.
    assert_eq!(blkid(&fat).1.as_deref(), Some("config-2"));
    let head = run("blkid", &["--probe", "--match-tag", "LABEL_FATBOOT", text(&fat)]);
    assert!(head.contains("LABEL_FATBOOT=\"config-2\""), "{head}");
    let label = run("mlabel", &["-s", "-i", text(&fat), "::"]);
    assert_eq!(label.trim(), "Volume label is config-2");
    run("fsck.fat", &["-n", text(&fat)]);
    let mut volume = Volume::open(open(&fat)).unwrap();
    for (name, content) in files {
        if !has_long_names && name.contains(long) {
            continue;
        }
        let entry = volume
            .find(name)
            .unwrap()
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(&volume.read(&entry, u64::MAX).unwrap(), content, "{name}");
    }
    let listed = run("mdir", &["-i", text(&fat), "-b", "::content"]);
    assert_eq!(listed.lines().count(), 150);
}

#[test]
fn what_makes_no_drive_is_said_without_repeating_it() {
    let error = |json: &str| ConfigDrive::read(json.as_bytes()).err().unwrap().to_string();
    assert!(error("{\"meta\": {}}").contains("unknown key \"meta\""));
    assert!(error("{\"meta_data\": []}").contains("meta_data is not an object"));
    assert!(error("{\"network_data\": \"{}\"}").contains("network_data is not an object"));
    assert!(error("{\"vendor_data\": [1]}").contains("vendor_data is not an object"));
    assert!(error("{\"user_data\": 5}").contains("user_data is neither"));
    let broken = error("{\"user_data\": \"hunter2\", }");
    assert!(
        broken.contains("line 1") && !broken.contains("hunter2"),
        "{broken}"
    );
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("1/2/3/4/5/6/7/8")).unwrap();
    let error = ConfigDrive::from_directory(directory.path()).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("1/2/3/4/5/6/7/8: config drives have at most 7"),
        "{error}"
    );
    for (names, expected) in [
        (&["a?b"][..], "the name \"a?b\" cannot be written"),
        (&["content/Same", "content/same"], "differ only in case"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        for name in names.iter().chain(&["openstack/latest/meta_data.json"]) {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "hunter2").unwrap();
        }
        let iso = ConfigDrive::from_directory(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        let error = iso.for_sectors(4096).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    for number in 0..=2000 {
        fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    let error = ConfigDrive::from_directory(directory.path()).err().unwrap();
    assert!(error.to_string().contains("more than 2000 files"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    run("mkfifo", &[text(&directory.path().join("pipe"))]);
    let error = ConfigDrive::from_directory(directory.path())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("pipe: it is not a regular file"), "{error}");
    // The directory below the one that was meant.
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("latest")).unwrap();
    fs::write(directory.path().join("latest/meta_data.json"), "{}").unwrap();
    let error = ConfigDrive::from_directory(directory.path()).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("give the directory that contains openstack"),
        "{error}"
    );
    // What a file says of its size, and what is around the files.
    for size_bytes in [64 * MIB + 1, 64 * MIB - 1] {
        let directory = tempfile::tempdir().unwrap();
        image(&directory, size_bytes);
        fs::create_dir(directory.path().join("openstack")).unwrap();
        fs::write(directory.path().join("openstack/user_data"), "x").unwrap();
        let error = ConfigDrive::from_directory(directory.path()).err().unwrap();
        assert!(
            error.to_string().contains("larger than 64 MiB"),
            "{size_bytes}: {error}"
        );
    }
}
