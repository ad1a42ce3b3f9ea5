//! What the installed system records of the image that it was made from: the manifest's digest, wherever bootc keeps it.

use serde_json::Value;

use super::Outcome;
use crate::rootfs::Rootfs;

const ALEPH: &str = ".bootc-aleph.json";
const DEPLOYMENTS: &str = "ostree/deploy";
const COMPOSEFS_STATE: &str = "state/deploy";
const MAX_BYTES: u64 = 4 << 20;

/// Compares the digests that are recorded with `ours`.
pub(super) fn outcome(root: &Rootfs, ours: Option<&str>) -> Outcome {
    let found = digests(root);
    let Some(ours) = ours else {
        return if found.is_empty() {
            Outcome::NotChecked("no digest is recorded, and none was given: --report".into())
        } else {
            Outcome::NotChecked(format!(
                "{} is recorded; give --report to compare it",
                found.join(" and ")
            ))
        };
    };
    if found.is_empty() {
        Outcome::NotChecked("no digest is recorded".into())
    } else if found.iter().any(|digest| digest == ours) {
        Outcome::Passed(ours.into())
    } else {
        Outcome::Failed(format!(
            "{} is recorded, and {ours} was installed",
            found.join(" and ")
        ))
    }
}

/// The digests of manifests that are recorded, the surest place first.
fn digests(root: &Rootfs) -> Vec<String> {
    let places: [fn(&Rootfs) -> Vec<String>; 3] = [aleph, ostree_commits, composefs_origins];
    let mut found = places.iter().map(|place| place(root));
    found.find(|found| !found.is_empty()).unwrap_or_default()
}

/// What bootc notes of the installation itself.
fn aleph(root: &Rootfs) -> Vec<String> {
    let text = root.read(ALEPH, MAX_BYTES).unwrap_or_default();
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    digests_in(json["digest"].as_str().unwrap_or_default().as_bytes())
}

/// ostree keeps the image's manifest and its digest in the metadata of the deployment's commit, as they are.
fn ostree_commits(root: &Rootfs) -> Vec<String> {
    const KEY: &[u8] = b"ostree.manifest-digest\0";
    let mut found = Vec::new();
    for stateroot in names(root, DEPLOYMENTS) {
        for deployment in names(root, &format!("{DEPLOYMENTS}/{stateroot}/deploy")) {
            let checksum = deployment.split('.').next().unwrap_or_default();
            let Some((directory, file)) = checksum.split_at_checked(2) else {
                continue;
            };
            let commit = root
                .read(
                    &format!("ostree/repo/objects/{directory}/{file}.commit"),
                    MAX_BYTES,
                )
                .unwrap_or_default();
            if let Some(at) = commit.windows(KEY.len()).position(|window| window == KEY) {
                found.extend(digests_in(&commit[at..]).into_iter().next());
            }
        }
    }
    found
}

/// With composefs, each deployment has a file that says where it comes from.
fn composefs_origins(root: &Rootfs) -> Vec<String> {
    let mut found = Vec::new();
    for deployment in names(root, COMPOSEFS_STATE) {
        let directory = format!("{COMPOSEFS_STATE}/{deployment}");
        for name in names(root, &directory) {
            if name.ends_with(".origin") {
                let text = root
                    .read(&format!("{directory}/{name}"), MAX_BYTES)
                    .unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let line = text.lines().find(|line| line.starts_with("manifest_digest"));
                found.extend(digests_in(line.unwrap_or_default().as_bytes()));
            }
        }
    }
    found
}

fn names(root: &Rootfs, directory: &str) -> Vec<String> {
    let names = root.list(directory).unwrap_or_default().into_iter();
    names.filter_map(|name| name.into_string().ok()).collect()
}

/// Everything in `bytes` that is written as a digest.
fn digests_in(bytes: &[u8]) -> Vec<String> {
    const PREFIX: &[u8] = b"sha256:";
    const DIGITS: usize = 64;
    bytes
        .windows(PREFIX.len() + DIGITS)
        .filter(|window| window.starts_with(PREFIX))
        .filter_map(|window| std::str::from_utf8(window).ok())
        .filter(|digest| {
            digest[PREFIX.len()..]
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
        })
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn digest(digit: char) -> String {
        format!("sha256:{}", String::from(digit).repeat(64))
    }

    fn outcome_of(files: &[(&str, Vec<u8>)], ours: Option<&str>) -> Outcome {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        outcome(&Rootfs::open(directory.path()).unwrap(), ours)
    }

    #[test]
    fn each_place_is_found() {
        let (ours, other) = (digest('a'), digest('b'));
        let aleph = |digest: &str| {
            (
                ".bootc-aleph.json",
                format!("{{\"digest\": \"{digest}\"}}").into_bytes(),
            )
        };
        let commit = |digest: &str| {
            let noise = [
                &b"\0\x01sha256:zz ostree.manifest-digest\0"[..],
                digest.as_bytes(),
                b"\0\xff",
            ]
            .concat();
            ("ostree/repo/objects/cd/ef01.commit", noise)
        };
        let deployment = ("ostree/deploy/default/deploy/cdef01.0/etc/os", Vec::new());
        let origin = |digest: &str| {
            let text = format!("[origin]\nx=sha256:1\n[image]\nmanifest_digest={digest}\n");
            ("state/deploy/12ab/12ab.origin", text.into_bytes())
        };
        let passed = Outcome::Passed(ours.clone());
        assert_eq!(outcome_of(&[aleph(&ours)], Some(&ours)), passed);
        assert_eq!(
            outcome_of(&[commit(&ours), deployment.clone()], Some(&ours)),
            passed
        );
        assert_eq!(outcome_of(&[origin(&ours)], Some(&ours)), passed);
        for files in [
            vec![aleph(&other)],
            vec![commit(&other), deployment],
            vec![origin(&other)],
        ] {
            let failed = format!("{other} is recorded, and {ours} was installed");
            assert_eq!(outcome_of(&files, Some(&ours)), Outcome::Failed(failed));
        }
        assert!(matches!(outcome_of(&[], Some(&ours)), Outcome::NotChecked(_)));
        assert!(matches!(outcome_of(&[aleph(&ours)], None), Outcome::NotChecked(why) if why.contains(&ours)));
        assert!(matches!(
            outcome_of(&[aleph("sha256:12")], Some(&ours)),
            Outcome::NotChecked(_)
        ));
    }
}
