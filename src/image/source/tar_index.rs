//! Where the files are in a tar archive, so that each can be read without unpacking the others.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::path::{Component, Path};

use anyhow::{Context, Result, anyhow, ensure};

use crate::image::oci::one_line;

/// No image has more files in its archive.
const MAX_ENTRIES: usize = 100_000;

/// The regular files of an archive.
#[derive(Debug)]
pub struct TarIndex {
    /// Where each file's bytes are.
    files: HashMap<String, Range<u64>>,
    /// Names that stand for others: hard links and symbolic links.
    links: HashMap<String, String>,
}

impl TarIndex {
    /// Reads an archive's headers and skips what is between them.
    pub fn read(file: File) -> Result<Self> {
        let mut archive = tar::Archive::new(BufReader::new(file));
        Self::index(archive.entries_with_seek().context("reading the archive")?)
    }

    fn index<R: Read + Seek>(entries: tar::Entries<'_, BufReader<R>>) -> Result<Self> {
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        for (count, entry) in entries.enumerate() {
            ensure!(
                count < MAX_ENTRIES,
                "the archive has more than {MAX_ENTRIES} entries: it is not an image"
            );
            let entry = entry.map_err(unreadable)?;
            // What has no plain name can't be asked for.
            let Some(name) = entry.path().ok().and_then(|path| joined("", &path)) else {
                continue;
            };
            let start = entry.raw_file_position();
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    files.insert(name, start..start + entry.size());
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    let base = match name.rsplit_once('/') {
                        Some((folder, _)) if kind == tar::EntryType::Symlink => folder,
                        _ => "",
                    };
                    let target = entry.link_name().ok().flatten();
                    let target = target.and_then(|target| joined(base, &target));
                    links.extend(target.map(|target| (name, target)));
                }
                _ => {}
            }
        }
        Ok(Self { files, links })
    }

    /// Where the bytes of the file `name` are. A link to a file stands for it.
    pub fn find(&self, name: &str) -> Option<Range<u64>> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.files.get(name).cloned()
    }
}

/// What the archive's reader complains of quotes the archive, line ends and all.
fn unreadable(error: std::io::Error) -> anyhow::Error {
    let why = one_line(error);
    anyhow!("reading the archive: it is not a tar archive, or cut short ({why})")
}

/// `path` as seen from `folder`, as plain names joined by `/`; `None` where it leads outside or isn't UTF-8.
fn joined(folder: &str, path: &Path) -> Option<String> {
    let mut names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::ParentDir => drop(names.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (folder, path, expected) in [
            ("", "./blobs/sha256/ab", Some("blobs/sha256/ab")),
            ("a/b", "../c/layer.tar", Some("a/c/layer.tar")),
            ("a", "../../etc/passwd", None),
            ("", "/etc/passwd", None),
            ("", "../x", None),
        ] {
            assert_eq!(
                joined(folder, Path::new(path)).as_deref(),
                expected,
                "{folder} {path}"
            );
        }
    }

    #[test]
    fn files_and_links_are_found() {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_size(5);
        builder
            .append_data(&mut header.clone(), "./a/layer.tar", &b"01234"[..])
            .unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder
            .append_link(&mut header.clone(), "b/layer.tar", "../a/layer.tar")
            .unwrap();
        builder
            .append_link(&mut header.clone(), "c", "../../a/layer.tar")
            .unwrap();
        header.set_entry_type(tar::EntryType::Link);
        builder
            .append_link(&mut header.clone(), "d/e", "a/layer.tar")
            .unwrap();
        let mut file = builder.into_inner().unwrap();
        file.rewind().unwrap();
        let index = TarIndex::read(file).unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "d/e"] {
            assert_eq!(index.find(name), Some(512..517), "{name}");
        }
        assert_eq!(index.find("c"), None);
        assert_eq!(index.find("a"), None);
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[b'x'; 1024]).unwrap();
        file.rewind().unwrap();
        assert!(format!("{:#}", TarIndex::read(file).unwrap_err()).contains("it is not a tar archive"));
    }
}
