//! Our trees against umoci's, on stacks of layers made at random: whatever umoci unpacks is the same here.
//!
//! The stacks keep out of places where podman and umoci themselves differ: names below a symbolic link of a lower layer,
//! hard links to files of a lower layer, directories that no layer describes, and directories that a layer first fills
//! and then hides the layers below of (umoci leaves the time at which it ran, or an owner of the hidden layer).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::notation::{archive, list};
use super::tests::{Place, unpack_archive};
use super::*;
use crate::oci::digest::sha256;

/// How many stacks; each takes some tens of milliseconds. `LANDFALL_STACKS` asks for more.
const STACKS: u64 = 40;

#[test]
fn umoci_unpacks_the_same() {
    let stacks = std::env::var("LANDFALL_STACKS").map_or(STACKS, |text| text.parse().unwrap());
    for seed in 1..=stacks {
        let stack = Stack::random(seed);
        let place = Place::new();
        let layers: Vec<_> = (stack.layers.iter().enumerate())
            .map(|(index, text)| {
                unpack_archive(archive(text), index, &place)
                    .unwrap_or_else(|error| panic!("{seed}: {error:#}\n{text}"))
            })
            .collect();
        settle(&layers).unwrap();
        let ours = place.path("ours");
        fs::create_dir(&ours).unwrap();
        merge(layers, &ours).unwrap();
        let theirs = umoci(&stack.layers, &place);
        assert_eq!(
            list(&ours),
            list(&theirs),
            "seed {seed}\n{}",
            stack.layers.join("\n---\n")
        );
    }
}

/// What umoci makes of the layers.
fn umoci(layers: &[String], place: &Place) -> PathBuf {
    let layout = place.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8], kind: &str| {
        let digest = sha256(bytes).to_string();
        fs::write(layout.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{}}}"#,
            bytes.len()
        )
    };
    let archives: Vec<_> = layers.iter().map(|text| archive(text)).collect();
    let blobs: Vec<_> = archives.iter().map(|bytes| put(bytes, "layer.v1.tar")).collect();
    let ids: Vec<_> = archives
        .iter()
        .map(|bytes| format!("\"{}\"", sha256(bytes)))
        .collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let config = put(config.as_bytes(), "config.v1+json");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
        blobs.join(",")
    );
    let manifest = put(manifest.as_bytes(), "manifest.v1+json");
    let named = manifest.replace(
        '}',
        r#","annotations":{"org.opencontainers.image.ref.name":"x"}}"#,
    );
    fs::write(
        layout.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#),
    )
    .unwrap();
    let target = place.path("theirs");
    let output = Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:x", layout.display()))
        .arg(&target)
        .output();
    let output = output.expect("`cargo xtask setup` installs umoci");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        layers.join("\n---\n")
    );
    target
}

/// What a merged tree has at a path.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Directory,
    Other,
}

struct Stack {
    layers: Vec<String>,
    random: Random,
    /// The merged tree so far.
    merged: BTreeMap<String, Is>,
    /// The directories of the current layer.
    own: Vec<String>,
}

impl Stack {
    fn random(seed: u64) -> Self {
        let mut stack = Self {
            layers: vec![],
            random: Random(seed),
            merged: BTreeMap::new(),
            own: vec![],
        };
        for _ in 0..2 + stack.random.below(4) {
            let layer = stack.layer();
            stack.layers.push(layer);
        }
        stack
    }

    fn layer(&mut self) -> String {
        // Every root is described: umoci leaves the one that it made itself otherwise.
        let mut text = String::from("dir . @1\n");
        let mut files: Vec<String> = vec![];
        self.own.clear();
        for _ in 0..1 + self.random.below(12) {
            let path = self.path();
            match self.random.below(10) {
                0 | 1 => self.whiteout(&path, &mut text),
                2 => self.opaque(&path, &mut text),
                kind => {
                    self.parents(&path, &mut text);
                    // What is replaced takes the names in it along.
                    let inside = format!("{path}/");
                    files.retain(|file| *file != path && !file.starts_with(&inside));
                    // So do directories that had to be put above it.
                    files.retain(|file| self.merged.get(file) == Some(&Is::Other));
                    let line = self.entry(kind, &path, &mut files);
                    writeln!(text, "{line}").unwrap();
                    self.put(
                        &path,
                        if line.starts_with("dir") {
                            Is::Directory
                        } else {
                            Is::Other
                        },
                    );
                }
            }
        }
        text
    }

    fn entry(&mut self, kind: u64, path: &str, files: &mut Vec<String>) -> String {
        let attributes = self.attributes();
        match kind {
            3 | 4 => format!("dir {path}{attributes}"),
            5 if !files.is_empty() => {
                let target = files[self.random.below(files.len() as u64) as usize].clone();
                files.push(path.into());
                format!("hard {path} = {target}")
            }
            6 => format!(
                "symlink {path} 3:4 @7 -> {}",
                ["a", "/b/c", "../..", "\\xff"][self.random.below(4) as usize]
            ),
            7 => format!(
                "{} {path} {}:{}{attributes}",
                ["char", "block"][self.random.below(2) as usize],
                1 + self.random.below(9),
                self.random.below(999)
            ),
            8 => format!("fifo {path}{attributes}"),
            _ => {
                files.push(path.into());
                format!("file {path}{attributes} \"{}\"", self.random.below(1 << 40))
            }
        }
    }

    fn attributes(&mut self) -> String {
        let mut text = format!(
            " {:04o}",
            [0o755, 0o644, 0o4711, 0o2750, 0o1777, 0][self.random.below(6) as usize]
        );
        if self.random.below(3) == 0 {
            write!(text, " {}:{}", self.random.below(5000), self.random.below(5000)).unwrap();
        }
        write!(
            text,
            " @{}.{:09}",
            self.random.below(1 << 31),
            1 + self.random.below(999_999_999)
        )
        .unwrap();
        if self.random.below(4) == 0 {
            write!(
                text,
                " {{trusted.t{}={}}}",
                self.random.below(3),
                self.random.below(100)
            )
            .unwrap();
        }
        text
    }

    /// One to three components of few names, so that paths meet.
    fn path(&mut self) -> String {
        let names = ["a", "b", "c\\xe9", "d\\n"];
        let depth = 1 + self.random.below(3);
        (0..depth)
            .map(|_| names[self.random.below(4) as usize])
            .collect::<Vec<_>>()
            .join("/")
    }

    /// Describes parents that aren't directories yet, and some that are.
    fn parents(&mut self, path: &str, text: &mut String) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if self.merged.get(parent) != Some(&Is::Directory) || self.random.below(4) == 0 {
                let attributes = self.attributes();
                writeln!(text, "dir {parent}{attributes}").unwrap();
                self.put(parent, Is::Directory);
            }
            self.own.push(parent.into());
        }
    }

    fn put(&mut self, path: &str, is: Is) {
        if is == Is::Other || self.merged.get(path) == Some(&Is::Other) {
            self.remove(path);
        }
        if is == Is::Directory {
            self.own.push(path.into());
        }
        self.merged.insert(path.into(), is);
    }

    fn remove(&mut self, path: &str) {
        let inside = format!("{path}/");
        self.merged
            .retain(|known, _| known != path && !known.starts_with(&inside));
    }

    fn whiteout(&mut self, path: &str, text: &mut String) {
        if self.may_hide(path) && !self.own.iter().any(|own| own == path) {
            writeln!(text, "whiteout {path}").unwrap();
            // It may survive, if it is of this layer: then it's described once more, which does no harm.
            self.remove(path);
        }
    }

    fn opaque(&mut self, path: &str, text: &mut String) {
        if self.may_hide(path) && self.merged.get(path) == Some(&Is::Directory) {
            writeln!(text, "opaque {path}").unwrap();
            let inside = format!("{path}/");
            self.merged.retain(|known, _| !known.starts_with(&inside));
        }
    }

    fn may_hide(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        let is_directory = |(slash, _)| self.merged.get(&path[..slash]) == Some(&Is::Directory);
        path.match_indices('/').all(is_directory) && !self.own.iter().any(|own| own.starts_with(&inside))
    }
}

/// Knuth's linear congruential generator: the same stacks everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
