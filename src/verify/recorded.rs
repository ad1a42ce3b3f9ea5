//! Which image boots: the manifest's digest, as bootc records it for each deployment (a system that a boot
//! entry can start).
//!
//! What bootc notes of the installation itself (`.bootc-aleph.json`) is history as soon as the system is
//! upgraded.

use anyhow::Result;
use serde_json::Value;

use super::check::Outcome;
use super::entries::Entry;
use crate::console::text::printable;
use crate::image::rootfs::Rootfs;

const ALEPH: &str = ".bootc-aleph.json";
const OSTREE_DEPLOYMENTS: &str = "ostree/deploy";
const COMPOSEFS_DEPLOYMENTS: &str = "state/deploy";
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug)]
struct Deployment {
    /// What boot entries call it.
    name: String,
    /// The digest of its image, where it is recorded.
    digest: Option<String>,
}

impl Deployment {
    fn describe(&self) -> String {
        self.digest.clone().unwrap_or_else(|| printable(&self.name))
    }
}

/// What a root file system holds.
#[derive(Debug)]
struct Systems {
    deployments: Vec<Deployment>,
    /// Which of them boots by default, as far as that can be told.
    default: Option<usize>,
    /// The digest that was installed.
    installed: Option<String>,
}

/// What boots, which must be `expected` if something was installed just now; `default` is the boot entry that
/// comes first.
pub(super) fn outcome(root: &Rootfs, default: Option<&Entry>, expected: Option<&str>) -> Outcome {
    match Systems::read(root, default) {
        Ok(systems) => systems.compare(expected),
        Err(error) => Outcome::NotChecked(format!("{error:#}")),
    }
}

impl Systems {
    fn read(root: &Rootfs, entry: Option<&Entry>) -> Result<Self> {
        let mut deployments = ostree_deployments(root)?;
        deployments.extend(composefs_deployments(root)?);
        let default = entry.map(|entry| started_by(entry, root, &deployments));
        let default = default.transpose()?.flatten();
        Ok(Self {
            default: default.or((deployments.len() == 1).then_some(0)),
            deployments,
            installed: aleph(root)?,
        })
    }

    fn compare(&self, expected: Option<&str>) -> Outcome {
        if self.deployments.is_empty() {
            return self.compare_without_deployments(expected);
        }
        let Some(default) = self.default else {
            let all: Vec<_> = self.deployments.iter().map(Deployment::describe).collect();
            return Outcome::NotChecked(format!("cannot tell which of these boots: {}", all.join(", ")));
        };
        let Deployment { name, digest } = &self.deployments[default];
        let also = self.others(default);
        let Some(boots) = digest else {
            let name = printable(name);
            return Outcome::NotChecked(format!(
                "the deployment {name} boots, but no digest is recorded for it{also}"
            ));
        };
        match expected {
            Some(ours) if ours != boots => {
                Outcome::Failed(format!("{boots} boots, but {ours} was installed{also}"))
            }
            Some(_) => Outcome::Passed(format!("{boots}{also}")),
            None => {
                let upgraded = self.installed.as_ref().filter(|installed| *installed != boots);
                let upgraded = upgraded.map(|installed| format!("; {installed} was installed first"));
                let upgraded = upgraded.unwrap_or_default();
                Outcome::Passed(format!("{boots} boots{upgraded}{also}"))
            }
        }
    }

    /// A disk that was installed just now may only say what was.
    fn compare_without_deployments(&self, expected: Option<&str>) -> Outcome {
        match (&self.installed, expected) {
            (None, _) => Outcome::NotChecked("no digest is recorded".into()),
            (Some(installed), Some(ours)) if installed == ours => Outcome::Passed(ours.into()),
            (Some(installed), Some(ours)) => {
                Outcome::Failed(format!("{installed} is recorded, but {ours} was installed"))
            }
            (Some(installed), None) => Outcome::NotChecked(format!(
                "{installed} was installed, but no deployment shows what boots now"
            )),
        }
    }

    fn others(&self, default: usize) -> String {
        let mut others: Vec<_> = self.deployments.iter().map(Deployment::describe).collect();
        others.remove(default);
        match &others[..] {
            [] => String::new(),
            others => format!(" ({} is there too)", others.join(", ")),
        }
    }
}

/// The index of the deployment that a boot entry starts.
fn started_by(entry: &Entry, root: &Rootfs, deployments: &[Deployment]) -> Result<Option<usize>> {
    if let Some(link) = &entry.ostree {
        let target = root.read_link(link.trim_start_matches('/'))?;
        let target = target.map(|target| target.to_string_lossy().into_owned());
        let name = target.as_deref().and_then(|target| target.rsplit('/').next());
        return Ok(deployments.iter().position(|each| Some(&*each.name) == name));
    }
    // As kernel argument, or in the name of the unified kernel image or of the kernel's directory.
    let words = entry.files.iter().chain(&entry.composefs);
    let is_started = |each: &Deployment| words.clone().any(|word| word.contains(&each.name));
    Ok(deployments.iter().position(is_started))
}

/// What bootc notes of the installation.
fn aleph(root: &Rootfs) -> Result<Option<String>> {
    let Some(text) = root.read_if_there(ALEPH, MAX_BYTES)? else {
        return Ok(None);
    };
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    Ok(json["digest"]
        .as_str()
        .and_then(|digest| first_digest(digest.as_bytes())))
}

/// ostree keeps the image's manifest and its digest in the metadata of the deployment's commit, as they are.
fn ostree_deployments(root: &Rootfs) -> Result<Vec<Deployment>> {
    const KEY: &[u8] = b"ostree.manifest-digest\0";
    let mut found = Vec::new();
    for stateroot in names(root, OSTREE_DEPLOYMENTS)? {
        for name in names(root, &format!("{OSTREE_DEPLOYMENTS}/{stateroot}/deploy"))? {
            let Some((checksum, serial)) = name.split_once('.') else {
                continue;
            };
            // Beside `CHECKSUM.SERIAL` there is `CHECKSUM.SERIAL.origin`.
            if !serial.bytes().all(|byte| byte.is_ascii_digit()) || !checksum.is_char_boundary(2) {
                continue;
            }
            let (directory, file) = checksum.split_at(2);
            let commit = format!("ostree/repo/objects/{directory}/{file}.commit");
            let commit = root.read_if_there(&commit, MAX_BYTES)?.unwrap_or_default();
            let at = commit.windows(KEY.len()).position(|window| window == KEY);
            let digest = at.and_then(|at| first_digest(&commit[at..]));
            found.push(Deployment { name, digest });
        }
    }
    Ok(found)
}

/// With composefs, each deployment has a file that says where it comes from.
fn composefs_deployments(root: &Rootfs) -> Result<Vec<Deployment>> {
    let mut found = Vec::new();
    for name in names(root, COMPOSEFS_DEPLOYMENTS)? {
        let origin = format!("{COMPOSEFS_DEPLOYMENTS}/{name}/{name}.origin");
        let Some(origin) = root.read_if_there(&origin, MAX_BYTES)? else {
            continue;
        };
        let origin = String::from_utf8_lossy(&origin);
        let line = origin.lines().find(|line| line.starts_with("manifest_digest"));
        let digest = line.and_then(|line| first_digest(line.as_bytes()));
        found.push(Deployment { name, digest });
    }
    Ok(found)
}

fn names(root: &Rootfs, directory: &str) -> Result<Vec<String>> {
    let names = root.list(directory)?.into_iter();
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

/// What in `bytes` is first written as a digest.
fn first_digest(bytes: &[u8]) -> Option<String> {
    const PREFIX: &[u8] = b"sha256:";
    const DIGITS: usize = 64;
    bytes
        .windows(PREFIX.len() + DIGITS)
        .filter(|window| window.starts_with(PREFIX))
        .filter_map(|window| std::str::from_utf8(window).ok())
        .find(|digest| {
            digest
                .bytes()
                .skip(PREFIX.len())
                .all(|byte| byte.is_ascii_hexdigit())
        })
        .map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::machine::disk::installed::BootPath;
    use crate::verify::entries::Entries;

    fn digest(digit: char) -> String {
        format!("sha256:{}", String::from(digit).repeat(64))
    }

    fn write(root: &Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn aleph(root: &Path, digest: &str) {
        let json = format!("{{\"digest\": \"{digest}\"}}");
        write(root, ALEPH, json.as_bytes());
    }

    /// A deployment of ostree, as its checksum's first letters and the digest of its image.
    fn ostree(root: &Path, checksum: &str, digest: &str) {
        let name = format!("{OSTREE_DEPLOYMENTS}/default/deploy/{checksum}.0");
        write(root, &format!("{name}/etc/os"), b"");
        write(root, &format!("{name}.origin"), b"");
        let (directory, file) = checksum.split_at(2);
        let noise = [
            &b"\0\x01sha256:zz ostree.manifest-digest\0"[..],
            digest.as_bytes(),
            b"\0\xff",
        ]
        .concat();
        write(
            root,
            &format!("ostree/repo/objects/{directory}/{file}.commit"),
            &noise,
        );
    }

    /// A boot entry for such a deployment.
    fn ostree_entry(root: &Path, number: u32, checksum: &str) {
        let link = format!("ostree/boot.1/default/kernel-{checksum}/0");
        fs::create_dir_all(root.join(&link).parent().unwrap()).unwrap();
        symlink(
            format!("../../../deploy/default/deploy/{checksum}.0"),
            root.join(&link),
        )
        .unwrap();
        let entry = format!("version {number}\noptions rw ostree=/{link}\nlinux /boot/vmlinuz\n");
        write(
            root,
            &format!("boot/loader/entries/ostree-{number}.conf"),
            entry.as_bytes(),
        );
        write(root, "boot/vmlinuz", b"kernel");
    }

    fn composefs(root: &Path, name: &str, digest: &str) {
        let text = format!("[origin]\nx=sha256:1\n[image]\nmanifest_digest={digest}\n");
        write(
            root,
            &format!("{COMPOSEFS_DEPLOYMENTS}/{name}/{name}.origin"),
            text.as_bytes(),
        );
    }

    /// What comes of a root as it is mounted.
    fn outcome_of(root: &Path, expected: Option<&str>) -> Outcome {
        let root = Rootfs::open(root).unwrap();
        let mut entries = Entries::default();
        entries.add_root(&root);
        assert!(!matches!(entries.outcome(BootPath::Foreign), Outcome::Failed(_)));
        outcome(&root, entries.first(), expected)
    }

    #[test]
    fn each_place_is_found() {
        let (ours, other) = (digest('a'), digest('b'));
        let makers: [fn(&Path, &str); 3] = [
            aleph,
            |root, digest| ostree(root, "cdef01", digest),
            |root, digest| composefs(root, "12ab", digest),
        ];
        for make in makers {
            let directory = tempfile::tempdir().unwrap();
            make(directory.path(), &ours);
            let outcome = |expected| outcome_of(directory.path(), expected);
            assert_eq!(outcome(Some(&ours)), Outcome::Passed(ours.clone()));
            assert!(matches!(outcome(Some(&other)), Outcome::Failed(why) if why.contains(&ours)));
            assert!(matches!(
                outcome(None),
                Outcome::Passed(what) | Outcome::NotChecked(what) if what.contains(&ours)
            ));
        }
        let directory = tempfile::tempdir().unwrap();
        let outcome = |expected| outcome_of(directory.path(), expected);
        assert_eq!(
            outcome(Some(&ours)),
            Outcome::NotChecked("no digest is recorded".into())
        );
        aleph(directory.path(), "sha256:12");
        assert_eq!(
            outcome(Some(&ours)),
            Outcome::NotChecked("no digest is recorded".into())
        );
    }

    #[test]
    fn after_an_upgrade_it_is_the_deployment_that_boots_and_not_the_one_that_was_installed() {
        let [old, new] = ['a', 'b'].map(digest);
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        aleph(root, &old);
        ostree(root, "1111", &old);
        ostree_entry(root, 1, "1111");
        assert_eq!(outcome_of(root, None), Outcome::Passed(format!("{old} boots")));

        ostree(root, "0222", &new);
        ostree_entry(root, 2, "0222");
        let too = format!("({old} is there too)");
        assert_eq!(
            outcome_of(root, Some(&new)),
            Outcome::Passed(format!("{new} {too}"))
        );
        assert_eq!(
            outcome_of(root, None),
            Outcome::Passed(format!("{new} boots; {old} was installed first {too}"))
        );
        // Just after its installation it may not boot another.
        assert!(matches!(outcome_of(root, Some(&old)), Outcome::Failed(_)));

        // And back.
        fs::remove_file(root.join("boot/loader/entries/ostree-2.conf")).unwrap();
        let too = format!("({new} is there too)");
        assert_eq!(
            outcome_of(root, None),
            Outcome::Passed(format!("{old} boots {too}"))
        );
        fs::remove_file(root.join("boot/loader/entries/ostree-1.conf")).unwrap();
        assert!(
            matches!(outcome_of(root, None), Outcome::NotChecked(why) if why.starts_with("cannot tell which"))
        );
    }

    #[test]
    fn deployments_of_composefs_are_told_apart_by_what_their_entries_name() {
        let [old, new] = ['a', 'b'].map(digest);
        for new_entry in [
            "options rw composefs=?22ee\nlinux /boot/vmlinuz\n",
            "linux /boot/bootc_composefs-22ee/vmlinuz\n",
            "uki /boot/bootc_composefs-22ee.efi\n",
        ] {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path();
            for path in [
                "boot/vmlinuz",
                "boot/bootc_composefs-22ee/vmlinuz",
                "boot/bootc_composefs-22ee.efi",
            ] {
                write(root, path, b"kernel");
            }
            composefs(root, "11ee", &old);
            composefs(root, "22ee", &new);
            let entries = "boot/loader/entries";
            let old_entry = b"options composefs=11ee\nlinux /boot/vmlinuz\n";
            write(root, &format!("{entries}/bootc_fedora-43-0.conf"), old_entry);
            write(
                root,
                &format!("{entries}/bootc_fedora-43-1.conf"),
                new_entry.as_bytes(),
            );
            let passed = Outcome::Passed(format!("{new} ({old} is there too)"));
            assert_eq!(outcome_of(root, Some(&new)), passed, "{new_entry}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_checked() {
        let ours = digest('a');
        let directory = tempfile::tempdir().unwrap();
        aleph(directory.path(), &ours);
        symlink("deploy", directory.path().join("ostree")).unwrap();
        symlink("ostree", directory.path().join("deploy")).unwrap();
        let outcome = outcome_of(directory.path(), Some(&ours));
        assert!(
            matches!(&outcome, Outcome::NotChecked(why) if why.contains("ELOOP")),
            "{outcome:?}"
        );
    }
}
