//! The directory that a layer is unpacked into, and where in it a name belongs.
//!
//! Parents are resolved below one open directory: at once where no symbolic link is on the way, else
//! component by component, links read here and not by the kernel, so that `..` and absolute targets end at
//! the layer's root. Parents that the archive doesn't have are made; what they should look like is settled
//! later ([`super::settle`]).

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use super::attributes::Attributes;
use super::directory::{self, failed, is_directory, is_whiteout, kind_of, look, open_directory};
use super::error::{Context as _, Result, ensure, malformed};
use super::path::{BadPath, MAX_DEPTH, RelativePath};
use super::whiteout::{OPAQUE_XATTR, ORIGIN_XATTR};
use super::xattr;

/// How many open directories are remembered: entries come sorted by directory, mostly.
const CACHED_DIRECTORIES: usize = 32;

/// How many links a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// How many names a path may lead through, those in links too: a link holds up to two thousand of them.
const MAX_STEPS: usize = 4 * MAX_DEPTH;

/// The most memory that names and attributes of directories take until they are applied, in bytes.
const MAX_PENDING_BYTES: usize = 64 << 20;

/// What one directory takes of it besides, in bytes.
const DIRECTORY_BYTES: usize = 128;

/// A directory of the layer, open.
pub struct Directory {
    pub fd: OwnedFd,
    /// Where it really is, no link on the way.
    pub path: RelativePath,
    holds_whiteouts: Cell<bool>,
}

/// What to do where a parent is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Make it: an entry belongs there.
    Entry,
    /// Make it, unless this layer removes it or one above it: then what belongs there is removed already.
    Whiteout,
    /// Nothing: only what is there can be linked to.
    Target,
}

/// What is known of a directory.
#[derive(Clone, Debug)]
pub enum Known {
    /// An entry described it.
    Described(Attributes),
    /// It had to be there. It looks like the one in the layers below, if there is one.
    Implied,
    /// The same, and it is known to hold more than whiteouts.
    Filled,
    /// It had to be there, and this layer removed the one in the layers below.
    Fresh,
}

/// The directory of one layer.
pub struct Tree {
    root: Rc<Directory>,
    cache: HashMap<RelativePath, Rc<Directory>>,
    directories: BTreeMap<RelativePath, Known>,
    pending_bytes: usize,
    /// Whether there is anything in it that only overlayfs understands.
    pub has_marks: bool,
}

impl Tree {
    /// An empty directory.
    pub fn new(root: OwnedFd) -> Self {
        let path = RelativePath::default();
        Self {
            root: Rc::new(Directory::new(root, path.clone())),
            cache: HashMap::new(),
            directories: BTreeMap::from([(path, Known::Implied)]),
            pending_bytes: 0,
            has_marks: false,
        }
    }

    /// The directory `path`; `None` if it is removed by this layer and `purpose` is a whiteout.
    pub fn parent(&mut self, path: &RelativePath, purpose: Purpose) -> Result<Option<Rc<Directory>>> {
        if path.is_root() {
            return Ok(Some(self.root.clone()));
        }
        if let Some(known) = self.cache.get(path) {
            return Ok(Some(known.clone()));
        }
        let found = match open_directory(&self.root.fd, path) {
            Ok(fd) => Rc::new(Directory::new(fd, path.clone())),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => {
                match self.walk(path, purpose)? {
                    Some(directory) => directory,
                    None => return Ok(None),
                }
            }
            Err(errno) => return Err(failed("openat2", path, errno)),
        };
        if self.cache.len() >= CACHED_DIRECTORIES {
            self.cache.clear();
        }
        self.cache.insert(path.clone(), found.clone());
        Ok(Some(found))
    }

    /// Makes `name` in `dir` a directory if it is none, and keeps what is in it if it is one.
    pub fn make_directory(&mut self, dir: &Directory, name: &[u8], known: Known) -> Result<()> {
        let path = dir.path.join(name);
        match mkdirat(&dir.fd, name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let stat = look(&dir.fd, name).map_err(|errno| failed("fstatat", &path, errno))?;
                if !stat.is_some_and(|stat| is_directory(&stat)) {
                    // What was there hides what the layers below have there; so must the directory.
                    self.vacate(dir, name)?;
                    mkdirat(&dir.fd, name, Mode::S_IRWXU).map_err(|errno| failed("mkdirat", &path, errno))?;
                    self.mark_opaque(&*self.child(dir, name)?)?;
                }
            }
            Err(errno) => return Err(failed("mkdirat", &path, errno)),
        }
        self.describe(path, known)
    }

    /// Says what the directory `path` looks like; what an entry says is the last word.
    pub fn describe(&mut self, path: RelativePath, known: Known) -> Result<()> {
        let is_new = !self.directories.contains_key(&path);
        if is_new {
            self.pending_bytes += path.as_bytes().len() + DIRECTORY_BYTES;
        }
        if let Known::Described(attributes) = &known {
            self.pending_bytes += attributes.heap_bytes();
        }
        ensure!(
            self.pending_bytes <= MAX_PENDING_BYTES,
            "the names and extended attributes of directories are larger than {MAX_PENDING_BYTES} bytes together"
        );
        if is_new || matches!(known, Known::Described(_)) {
            self.directories.insert(path, known);
        }
        Ok(())
    }

    /// Removes whatever `name` in `dir` is.
    pub fn vacate(&mut self, dir: &Directory, name: &[u8]) -> Result<()> {
        let path = dir.path.join(name);
        directory::remove(&dir.fd, name).map_err(|errno| failed("unlinkat", &path, errno))?;
        // A path may have led through it.
        self.cache.clear();
        let below = self.directories.range(path.range_below()).map(|(known, _)| known);
        let below: Vec<_> = below.cloned().collect();
        self.directories.remove(&path);
        for gone in below {
            self.directories.remove(&gone);
        }
        Ok(())
    }

    /// Removes `name` in `dir` from the layers below, and nothing of this one.
    pub fn whiteout(&mut self, dir: &Directory, name: &[u8]) -> Result<()> {
        let path = dir.path.join(name);
        match look(&dir.fd, name).map_err(|errno| failed("fstatat", &path, errno))? {
            // Whatever is there hides what is below.
            Some(stat) if !is_directory(&stat) => return Ok(()),
            Some(_) if self.holds_anything(&path)? => return self.mark_opaque(&*self.child(dir, name)?),
            Some(_) => self.vacate(dir, name)?,
            None => {}
        }
        mknodat(&dir.fd, name, SFlag::S_IFCHR, Mode::empty(), 0)
            .map_err(|errno| failed("mknodat", &path, errno))?;
        self.has_marks = true;
        if !dir.holds_whiteouts.replace(true) {
            xattr::set(&dir.fd, ORIGIN_XATTR, b"").map_err(|errno| failed("fsetxattr", &dir.path, errno))?;
        }
        Ok(())
    }

    /// Hides everything that the layers below have in `dir`.
    pub fn mark_opaque(&mut self, dir: &Directory) -> Result<()> {
        self.has_marks = true;
        xattr::set(&dir.fd, OPAQUE_XATTR, b"y").map_err(|errno| failed("fsetxattr", &dir.path, errno))
    }

    /// Gives all directories their attributes. Nothing may be made in them afterwards. Returns those that no
    /// entry described and that may have to look like those in the layers below, and the number of attributes
    /// that the file system does not know.
    pub fn finish(self) -> Result<(Vec<RelativePath>, u64)> {
        let mut implied = Vec::new();
        let mut skipped = 0;
        for (path, known) in self.directories {
            let attributes = match known {
                Known::Described(attributes) => attributes,
                Known::Fresh => Attributes::default(),
                Known::Implied | Known::Filled => {
                    implied.push(path.clone());
                    Attributes::default()
                }
            };
            let fd = open_directory(&self.root.fd, &path).map_err(|errno| failed("openat2", &path, errno))?;
            skipped += attributes
                .apply(&fd)
                .with_context(|| format!("directory {path}"))?;
        }
        Ok((implied, skipped))
    }

    /// Whether the directory `path` is there for more than to hold whiteouts. If so, it isn't looked into
    /// again: it may be large, and asked about by many entries.
    fn holds_anything(&mut self, path: &RelativePath) -> Result<bool> {
        if !matches!(self.directories.get(path), Some(Known::Implied)) {
            return Ok(true);
        }
        let fd = open_directory(&self.root.fd, path).map_err(|errno| failed("openat2", path, errno))?;
        let names = directory::names(&fd).map_err(|errno| failed("getdents64", path, errno))?;
        for name in names {
            let stat = look(&fd, &name).map_err(|errno| failed("fstatat", path, errno))?;
            let counts = match stat {
                Some(stat) if is_directory(&stat) => self.holds_anything(&path.join(&name))?,
                Some(stat) => !is_whiteout(&stat),
                None => false,
            };
            if counts {
                self.directories.insert(path.clone(), Known::Filled);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Component by component, with links read here.
    fn walk(&mut self, path: &RelativePath, purpose: Purpose) -> Result<Option<Rc<Directory>>> {
        let mut stack = vec![self.root.clone()];
        let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        let mut steps = 0;
        while let Some(name) = todo.pop() {
            steps += 1;
            ensure!(
                steps <= MAX_STEPS,
                "{path} leads through more than {MAX_STEPS} names"
            );
            if name == b".." {
                // The root is its own parent.
                stack.truncate(stack.len().saturating_sub(1).max(1));
                continue;
            }
            let here = stack.last().expect("the root stays").clone();
            match self.step(&here, &name, purpose)? {
                Step::Into(directory) => stack.push(directory),
                Step::Removed => return Ok(None),
                Step::Link(target) => {
                    links += 1;
                    ensure!(
                        links <= MAX_LINKS,
                        "{path} leads through more than {MAX_LINKS} symbolic links"
                    );
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let components = target.split(|byte| *byte == b'/').rev();
                    todo.extend(
                        components
                            .filter(|name| !matches!(*name, b"" | b"."))
                            .map(<[u8]>::to_vec),
                    );
                }
            }
            ensure!(stack.len() <= MAX_DEPTH + 1, "{path} {}", BadPath::TooDeep);
        }
        Ok(stack.pop())
    }

    fn step(&mut self, here: &Directory, name: &[u8], purpose: Purpose) -> Result<Step> {
        let path = here.path.join(name);
        let stat = look(&here.fd, name).map_err(|errno| failed("fstatat", &path, errno))?;
        let known = match stat {
            Some(stat) if is_directory(&stat) => return self.child(here, name).map(Step::Into),
            Some(stat) if kind_of(&stat) == SFlag::S_IFLNK => {
                let target =
                    readlinkat(&here.fd, name).map_err(|errno| failed("readlinkat", &path, errno))?;
                return Ok(Step::Link(target.as_bytes().to_vec()));
            }
            Some(stat) if is_whiteout(&stat) => Known::Fresh,
            Some(_) => {
                return Err(malformed(format!(
                    "{path} is not a directory, but an entry is below it"
                )));
            }
            None => Known::Implied,
        };
        match (purpose, &known) {
            (Purpose::Whiteout, Known::Fresh) => Ok(Step::Removed),
            (Purpose::Target, _) => Err(malformed(format!("there is no {path} in this layer"))),
            _ => {
                self.make_directory(here, name, known)?;
                self.child(here, name).map(Step::Into)
            }
        }
    }

    fn child(&self, dir: &Directory, name: &[u8]) -> Result<Rc<Directory>> {
        let path = dir.path.join(name);
        let name = RelativePath::clean(name)?;
        let fd = open_directory(&dir.fd, &name).map_err(|errno| failed("openat2", &path, errno))?;
        Ok(Rc::new(Directory::new(fd, path)))
    }
}

enum Step {
    Into(Rc<Directory>),
    Link(Vec<u8>),
    Removed,
}

impl Directory {
    fn new(fd: OwnedFd, path: RelativePath) -> Self {
        Self {
            fd,
            path,
            holds_whiteouts: Cell::new(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::directory::open_root;

    /// Otherwise as many whiteouts of a directory as there are names in it would take the square of that.
    #[test]
    fn a_directory_that_holds_something_is_looked_into_once() {
        let place = crate::image::layer::tests::Place::new();
        let file = place.path("a/file");
        let mut tree = Tree::new(open_root(&place.path("")).unwrap());
        let path = RelativePath::clean(b"a").unwrap();
        tree.parent(&path, Purpose::Entry).unwrap();
        std::fs::write(&file, "").unwrap();
        let root = tree.root.clone();
        tree.whiteout(&root, b"a").unwrap();
        // Nothing but the tree itself removes anything: this is to see whether it looks.
        std::fs::remove_file(&file).unwrap();
        tree.whiteout(&root, b"a").unwrap();
        let opaque = xattr::get(open_directory(&root.fd, &path).unwrap(), OPAQUE_XATTR).unwrap();
        assert_eq!(opaque.as_deref(), Some(b"y".as_slice()));
    }
}
