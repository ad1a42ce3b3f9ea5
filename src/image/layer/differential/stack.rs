//! Layers made at random: the same ones for a seed everywhere.
//!
//! They keep out of places where podman and umoci themselves differ: names below a symbolic link of a lower
//! layer, hard links to files of a lower layer, directories that no layer describes, and directories that a
//! layer first fills and then hides the layers below of (umoci leaves the time at which it ran, or an owner
//! of the hidden layer).

use crate::sys::random::Random;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::image::layer::notation::Dialect;

/// What a merged tree has at a path.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Directory,
    Other,
}

/// A layer in the notation, and how it is archived.
pub type Text = (Dialect, String);

/// Layers, the lowest first, and what they come to.
pub struct Stack {
    pub layers: Vec<Text>,
    random: Random,
    /// The merged tree so far.
    merged: BTreeMap<String, Is>,
    /// The directories of the current layer.
    own: Vec<String>,
    /// Those of them that are described when all that is in them is there.
    late: Vec<(String, String)>,
    /// What was removed: what is of the same layer survives that.
    doubtful: Vec<String>,
    is_alone: bool,
}

impl Stack {
    /// Two to five layers.
    pub fn random(seed: u64) -> Self {
        let mut stack = Self::empty(seed, false);
        for _ in 0..2 + stack.random.below(4) {
            let layer = stack.text();
            stack.layers.push(layer);
        }
        stack
    }

    /// A layer that is alone: nothing to remove, and no directory in the place of something else, which tar
    /// refuses.
    pub fn alone(seed: u64) -> Text {
        Self::empty(seed, true).text()
    }

    fn empty(seed: u64, is_alone: bool) -> Self {
        Self {
            layers: vec![],
            random: Random::new(seed),
            merged: BTreeMap::new(),
            own: vec![],
            late: vec![],
            doubtful: vec![],
            is_alone,
        }
    }

    fn text(&mut self) -> Text {
        let dialects = [Dialect::Ustar, Dialect::Pax, Dialect::Gnu, Dialect::Old];
        let dialect = dialects[self.random.below(4) as usize];
        (dialect, self.layer())
    }

    fn layer(&mut self) -> String {
        // Every root is described: umoci leaves the one that it made itself otherwise.
        let mut text = String::from("dir . @1\n");
        let mut files: Vec<String> = vec![];
        self.own.clear();
        for _ in 0..1 + self.random.below(12) {
            let path = self.path();
            if self.is_alone && self.is_in_the_way(&path) {
                continue;
            }
            match self.random.below(10) {
                0..3 if self.is_alone => {}
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
        self.late(&mut text);
        text
    }

    /// Describes the directories that were left for later, and those above them: umoci leaves the time at
    /// which it made something in them otherwise.
    fn late(&mut self, text: &mut String) {
        for (path, line) in std::mem::take(&mut self.late) {
            // Something else may have taken its place, and that of those above it.
            let is_directory = |path: &str| self.merged.get(path) == Some(&Is::Directory);
            if is_directory(&path) {
                text.push_str(&line);
            }
            let above = path.match_indices('/').map(|(slash, _)| &path[..slash]);
            let above: Vec<_> = above.filter(|path| is_directory(path)).collect();
            for path in above {
                let attributes = self.attributes();
                writeln!(text, "dir {path}{attributes}").unwrap();
            }
            text.push_str("dir . @1\n");
        }
    }

    /// Whether there is a directory at the path, or something else above it.
    fn is_in_the_way(&self, path: &str) -> bool {
        let above = |(slash, _)| self.merged.get(&path[..slash]) == Some(&Is::Other);
        self.merged.get(path) == Some(&Is::Directory) || path.match_indices('/').any(above)
    }

    fn entry(&mut self, kind: u64, path: &str, files: &mut Vec<String>) -> String {
        let attributes = self.attributes();
        // Users give attributes to files and directories only.
        let inert = attributes.replace("{user.", "{trusted.");
        match kind {
            3 | 4 => format!("dir {path}{attributes}"),
            5 if !files.is_empty() => {
                let target = files[self.random.below(files.len() as u64) as usize].clone();
                files.push(path.into());
                format!("hard {path} = {target}")
            }
            6 => format!(
                "symlink {path} 3:4 @7 -> {}",
                ["a", "/b/c", "../..", "\\xff", &"t".repeat(300)][self.random.below(5) as usize]
            ),
            7 => format!(
                "{} {path} {}:{}{inert}",
                ["char", "block"][self.random.below(2) as usize],
                1 + self.random.below(9),
                self.random.below(999)
            ),
            8 => format!("fifo {path}{inert}"),
            _ => {
                files.push(path.into());
                format!("file {path}{attributes} \"{}\"", self.random.below(1 << 40))
            }
        }
    }

    fn attributes(&mut self) -> String {
        let modes = [0o755, 0o644, 0o4711, 0o2750, 0o1777, 0];
        let mut mode = modes[self.random.below(6) as usize];
        let xattr = match self.random.below(12) {
            0..3 => format!(
                " {{{}={}}}",
                [
                    "trusted.t1",
                    "trusted.t2",
                    "trusted.overlay.t",
                    "trusted.overlay.overlay.t",
                    "user.overlay.t"
                ][self.random.below(5) as usize],
                self.random.below(100)
            ),
            3 => format!(" {{security.capability={CAPABILITY}}}"),
            4 => {
                // A mode that is another than the list's is the last to be set for some, and the first for
                // others.
                mode = 0o754;
                format!(" {{system.posix_acl_access={ACL}}}")
            }
            _ => String::new(),
        };
        let owner = match self.random.below(3) {
            0 => format!(" {}:{}", self.random.below(5000), self.random.below(5000)),
            _ => String::new(),
        };
        let (seconds, nanoseconds) = (self.random.below(1 << 31), 1 + self.random.below(999_999_999));
        format!(" {mode:04o}{owner} @{seconds}.{nanoseconds:09}{xattr}")
    }

    /// One to three components of few names, so that paths meet.
    fn path(&mut self) -> String {
        let long = "e".repeat(255);
        let names = ["a", "b", "a", "b", "a", "c\\xe9", "d\\n", &long];
        let depth = 1 + self.random.below(3);
        // Almost as long as a path may be in one call, below a directory that has a name itself.
        let deep = if self.random.below(40) == 0 { 12 } else { 0 };
        let deep = std::iter::repeat_n(long.as_str(), deep);
        let components = deep.chain((0..depth).map(|_| names[self.random.below(8) as usize]));
        components.collect::<Vec<_>>().join("/")
    }

    /// Describes parents that aren't directories yet, and some that are.
    fn parents(&mut self, path: &str, text: &mut String) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if self.merged.get(parent) != Some(&Is::Directory)
                || (!self.is_alone && self.random.below(4) == 0)
            {
                let line = format!("dir {parent}{}\n", self.attributes());
                let is_new =
                    !self.merged.contains_key(parent) && !self.doubtful.iter().any(|path| path == parent);
                if is_new && self.random.below(3) == 0 {
                    self.late.push((parent.into(), line));
                } else {
                    text.push_str(&line);
                }
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
            self.doubtful.push(path.into());
            self.remove(path);
        }
    }

    fn opaque(&mut self, path: &str, text: &mut String) {
        if self.may_hide(path) && self.merged.get(path) == Some(&Is::Directory) {
            writeln!(text, "opaque {path}").unwrap();
            let inside = format!("{path}/");
            let removed = self.merged.extract_if(.., |known, _| known.starts_with(&inside));
            self.doubtful.extend(removed.map(|(path, _)| path));
        }
    }

    fn may_hide(&self, path: &str) -> bool {
        let inside = format!("{path}/");
        let is_directory = |(slash, _)| self.merged.get(&path[..slash]) == Some(&Is::Directory);
        path.match_indices('/').all(is_directory) && !self.own.iter().any(|own| own.starts_with(&inside))
    }
}

/// `cap_net_raw+ep`, in version 2 of capability.h.
const CAPABILITY: &str = r"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// `u::rwx,u:5:r--,g::r-x,m::r-x,o::r--`, as the kernel has it.
const ACL: &str = r"\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff";
