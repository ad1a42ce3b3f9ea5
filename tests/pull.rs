//! `landfall pull` and `landfall inspect`: images on their way to a place without a network, and what they
//! are.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lab::image::{self, Entry, Flavor, Layer};
use serde_json::Value;
use support::pull::{lab, layer, pull, sample, skopeo_digest, stopped_half_way};
use support::{landfall, output};

const UNTOUCHED: Option<i32> = Some(3);

#[test]
fn a_layout_has_the_very_image_that_the_registry_has() {
    let (lab, name) = lab();
    let digest = lab.layout.resolve("1").unwrap().to_string();
    let directory = lab.directory.path().join("stick");
    let place = format!("oci:{}", directory.display());

    let ran = pull(&name, &place);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(skopeo_digest(&format!("{place}:{name}")), digest);
    // The same again changes nothing, a second image and a second name are beside the first.
    lab.layout
        .derive("1", &[Layer::new([Entry::whiteout("word")])], "2")
        .unwrap();
    let second = lab.place("2");
    for (image, to) in [
        (&name, place.clone()),
        (&second, place.clone()),
        (&name, format!("{place}:stable")),
    ] {
        let ran = pull(image, &to);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
    }
    let index: Value = serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3, "{index}");
    assert_eq!(skopeo_digest(&format!("{place}:stable")), digest);
    let left: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");

    // What is on the stick is the image, by its own name and digest; it can be passed on from there.
    let root = lab.directory.path().join("root");
    let ran = landfall([
        "unpack",
        &format!("{place}:{second}"),
        "--to",
        root.to_str().unwrap(),
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(root.join("noise").exists() && !root.join("word").exists());
    let archive = lab.directory.path().join("os.tar");
    let ran = pull(
        &format!("{place}:{name}"),
        &format!("oci-archive:{}", archive.display()),
    );
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(
        skopeo_digest(&format!("oci-archive:{}:{name}", archive.display())),
        digest
    );
    let ran = pull(&name, &format!("oci-archive:{}", archive.display()));
    assert_eq!(ran.code, UNTOUCHED);
    assert!(ran.error().contains("os.tar: it exists: remove it"), "{ran:#?}");
}

#[test]
fn a_pull_goes_on_where_it_was_stopped() {
    let (lab, name) = lab();
    let layer = layer(&lab, 0);
    let hex = layer.hex();
    for damaged in [false, true] {
        let directory = lab.directory.path().join(format!("stick-{damaged}"));
        let place = format!("oci:{}", directory.display());
        let partial = directory.join(".landfall-partial").join(hex);
        stopped_half_way(&lab, &place, || Some(partial.clone()));
        assert!(
            !directory.join("index.json").exists(),
            "an image that isn't complete has a name"
        );
        if damaged {
            image::flip_byte(&partial, 7).unwrap();
        }
        lab.registry.let_it_log();
        let log = lab.registry.log();
        let ran = pull(&name, &place);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(
            ran.stderr.contains("is damaged; pulling it again"),
            damaged,
            "{ran:#?}"
        );
        lab.registry.let_it_log();
        let now = lab.registry.log();
        let asked_whole = now[log.len()..].lines().any(|line| {
            line.contains(&format!("blobs/{layer}\"")) && line.contains("http.response.status=200")
        });
        assert_eq!(asked_whole, damaged, "{}", &now[log.len()..]);
        let bytes = fs::read(directory.join("blobs/sha256").join(hex)).unwrap();
        assert_eq!(bytes, fs::read(lab.registry.blob(&layer)).unwrap());
    }
}

#[test]
fn an_archive_is_the_same_whether_it_was_stopped_or_not() {
    let (lab, name) = lab();
    let file = |name: &str| lab.directory.path().join(name);
    let to = |path: &Path| format!("oci-archive:{}:os", path.display());
    let (whole, stopped) = (file("whole.tar"), file("stopped.tar"));
    let ran = pull(&name, &to(&whole));
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    stopped_half_way(&lab, &to(&stopped), || Some(file("stopped.tar.partial")));
    assert!(!stopped.exists());
    let ran = pull(&name, &to(&stopped));
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(
        fs::read(&whole).unwrap() == fs::read(&stopped).unwrap(),
        "the archives differ"
    );
    output(Command::new("tar").arg("-tf").arg(&whole));
}

#[test]
fn what_cannot_be_written_is_said() {
    let (lab, name) = lab();
    let other = lab.directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "").unwrap();
    let odd = lab.directory.path().join("odd");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("oci-layout"), "{}").unwrap();
    fs::write(odd.join("index.json"), r#"{"schemaVersion":1}"#).unwrap();
    for (to, code, expected) in [
        (
            format!("oci:{}", other.display()),
            UNTOUCHED,
            "neither empty nor an OCI image layout",
        ),
        (
            format!("oci:{}", odd.display()),
            UNTOUCHED,
            "index.json has schemaVersion 1, not 2",
        ),
        (
            format!("oci:{}/file/x", other.display()),
            UNTOUCHED,
            "Not a directory",
        ),
        // What would be mounted there isn't, perhaps.
        (
            format!("oci:{}/nope/x", other.display()),
            UNTOUCHED,
            "other/nope does not exist: create it, or mount what belongs there",
        ),
        (
            format!("oci-archive:{}/nope/x.tar", other.display()),
            UNTOUCHED,
            "other/nope does not exist: create it, or mount what belongs there",
        ),
        (
            "docker-archive:x.tar".into(),
            Some(2),
            "write oci:DIR[:NAME] or oci-archive:FILE[:NAME]",
        ),
        (
            "/mnt".into(),
            Some(2),
            "write oci:DIR[:NAME] or oci-archive:FILE[:NAME]",
        ),
    ] {
        let ran = pull(&name, &to);
        assert_eq!(ran.code, code, "{to}: {ran:#?}");
        assert!(ran.stderr.contains(expected), "{to}: {ran:#?}");
    }
    assert!(!other.join("nope").exists());
    let layer = layer(&lab, 1);
    image::flip_byte(&lab.registry.blob(&layer), 5).unwrap();
    let place = lab.directory.path().join("stick");
    let ran = pull(&name, &format!("oci:{}", place.display()));
    assert_eq!(ran.code, UNTOUCHED);
    assert!(
        ran.error().contains("pulling layer 2") && ran.error().contains("the blob's digest is"),
        "{ran:#?}"
    );
    assert!(!place.join("index.json").exists() && !place.join("blobs/sha256").join(layer.hex()).exists());
}

#[test]
fn an_image_is_shown_without_being_pulled() {
    let (lab, _) = lab();
    let labelled = sample().label("containers.bootc", "1").label("evil", "\x1b[31m");
    lab.layout
        .add_index(
            &[labelled.clone().architecture("arm64"), labelled],
            Flavor::Oci,
            "all",
        )
        .unwrap();
    let name = lab.place("all");
    let inspect = |arguments: &[&str]| {
        let ran = landfall([&["inspect", &name, "--tls-verify=false"], arguments].concat());
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran.stdout
    };
    let table = inspect(&[]);
    for expected in [
        "platforms   linux/arm64, linux/amd64",
        "bootable    yes",
        "label       evil=\n",
    ] {
        assert!(table.contains(expected), "{table}");
    }
    let shown: Value = serde_json::from_str(&inspect(&["--json", "--platform", "linux/arm64"])).unwrap();
    assert_eq!(
        (&shown["platform"], &shown["bootable"]),
        (&"linux/arm64".into(), &true.into()),
        "{shown}"
    );
    assert_eq!(shown["layers"].as_array().unwrap().len(), 2);
    let ran = landfall([
        "inspect",
        &name,
        "--tls-verify=false",
        "--platform",
        "linux/s390x",
    ]);
    assert_eq!(ran.code, UNTOUCHED);
    assert!(
        ran.error()
            .contains("it has linux/arm64, linux/amd64: choose one with --platform"),
        "{ran:#?}"
    );
}

/// HOME may be another user's, or not be there.
#[test]
fn an_image_is_shown_to_who_is_not_root() {
    let (lab, name) = lab();
    let folder = lab.directory.path();
    let program = folder.join("landfall");
    fs::copy(support::LANDFALL, &program).unwrap();
    let home = folder.join("home");
    let auth = home.join(".config/containers/auth.json");
    fs::create_dir_all(auth.parent().unwrap()).unwrap();
    fs::write(&auth, r#"{"auths":{}}"#).unwrap();
    let locked = folder.join("locked");
    fs::create_dir(&locked).unwrap();
    for (path, mode) in [(folder, 0o755), (&locked, 0o700), (&auth, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let inspect = |home: &Path, more: &[&str]| -> support::Ran {
        let mut command = Command::new(&program);
        command.args(["inspect", &name, "--tls-verify=false"]).args(more);
        command.env_clear().env("HOME", home).uid(65534).gid(65534);
        command.output().unwrap().into()
    };
    let left_out = format!("warning: skipping {}", auth.display());
    for (home, warns) in [(Path::new(""), false), (&locked, false), (&home, true)] {
        let ran = inspect(home, &[]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(ran.stdout.contains("digest      sha256:"), "{ran:#?}");
        assert_eq!(ran.stderr.contains(&left_out), warns, "{ran:#?}");
    }
    // What the user names is another matter.
    let ran = inspect(&home, &["--authfile", auth.to_str().unwrap()]);
    assert_eq!(ran.code, UNTOUCHED, "{ran:#?}");
    assert!(ran.error().contains("Permission denied"), "{ran:#?}");
}
