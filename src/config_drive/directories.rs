//! The directories that paths make, in the order of ISO 9660's path table (ECMA-119, 6.9.1), which does for FAT, too.

use std::collections::BTreeMap;

use super::error::BuildError;
use super::tree::Tree;

/// A record is at most 255 bytes long, and holds the short name, attributes and the long name.
const MAX_NAME: usize = 128;

/// A directory and where it will be.
#[derive(Clone, Default)]
pub(super) struct Directory {
    pub(super) parent: usize,
    pub(super) name: String,
    /// By long name: directories by index.
    pub(super) directories: BTreeMap<String, usize>,
    /// By long name: files by index.
    pub(super) files: BTreeMap<String, usize>,
    /// Where it begins: a sector, or a cluster.
    pub(super) sector: usize,
    /// Its size in bytes.
    pub(super) size: usize,
}

/// Makes directories out of paths. The root is the first; every other one comes after its parent.
pub(super) fn arrange(tree: &Tree) -> Result<Vec<Directory>, BuildError> {
    let mut directories = vec![Directory::default()];
    for (index, file) in tree.files.iter().enumerate() {
        let mut names: Vec<&str> = file.path.split('/').collect();
        if let Some(long) = names.iter().find(|name| name.len() > MAX_NAME) {
            return Err(BuildError::Name {
                name: (*long).to_string(),
            });
        }
        let last = names.pop().unwrap_or_default();
        let mut current = 0;
        for name in names {
            let next = directories.len();
            let known = *directories[current]
                .directories
                .entry(name.into())
                .or_insert(next);
            if known == next {
                directories.push(Directory {
                    parent: current,
                    name: name.into(),
                    ..Directory::default()
                });
            }
            current = known;
        }
        directories[current].files.insert(last.into(), index);
    }
    // A path table counts with 16 bits.
    if directories.len() > usize::from(u16::MAX) {
        return Err(BuildError::TooLarge);
    }
    // The path table wants the upper ones first, and each level by parent.
    let mut order: Vec<usize> = (0..directories.len()).collect();
    let depth = |mut index: usize| {
        let mut depth = 0;
        while index != 0 {
            index = directories[index].parent;
            depth += 1;
        }
        depth
    };
    order.sort_by_cached_key(|index| (depth(*index), directories[*index].parent, *index));
    let mut position = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        position[*old] = new;
    }
    let mut arranged: Vec<Directory> = Vec::with_capacity(directories.len());
    for old in &order {
        let directory = &directories[*old];
        arranged.push(Directory {
            parent: position[directory.parent],
            name: directory.name.clone(),
            directories: directory
                .directories
                .iter()
                .map(|(name, old)| (name.clone(), position[*old]))
                .collect(),
            files: directory.files.clone(),
            ..Directory::default()
        });
    }
    Ok(arranged)
}
