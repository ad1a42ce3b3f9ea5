//! Layers → one mounted root, by overlayfs.
//!
//! Option strings of `mount(2)` end at one page, so the layers are named relative to the store's directory;
//! the mount is made by a thread of its own whose working directory is that of nobody else.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::image::layer::{UnpackedLayer, dress_upper};
use crate::image::rootfs::Rootfs;
use crate::sys::mount::unmount;

/// The directory, below the overlay's base, of what is written to the mounted root.
const UPPER: &str = "u";
const WORK: &str = "w";
const MERGED: &str = "root";
const EMPTY: &str = "e";

/// A file that the mounted root shows in place of the image's own.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// The path, relative to the root. Symbolic links on the way are followed within it.
    pub path: &'static str,
    pub content: Vec<u8>,
}

/// A mounted root. It is unmounted when dropped; [`OverlayMount::unmount`] also tells whether that worked.
#[derive(Debug)]
pub struct OverlayMount {
    root: PathBuf,
    mounted: bool,
}

impl OverlayMount {
    /// Mounts `layers` (settled, below `base`, the lowest first) and puts `extra` files into them. What is
    /// written goes to `base`, too. All that these files don't replace looks as the layers say.
    pub fn new(base: &Path, layers: &[UnpackedLayer], extra: &[ExtraFile]) -> Result<Self> {
        let relative = |layer: &UnpackedLayer| layer.path().strip_prefix(base).map(Path::to_owned);
        let paths = layers.iter().map(relative).collect::<Result<Vec<_>, _>>();
        Self::stack(base, &paths.context("a layer is outside the store")?, extra)
    }

    fn stack(base: &Path, layers: &[PathBuf], extra: &[ExtraFile]) -> Result<Self> {
        for name in [UPPER, WORK, MERGED, EMPTY] {
            create_dir(&base.join(name))?;
        }
        if let Some(top) = layers.last() {
            dress_upper(&base.join(top), &base.join(UPPER))?;
        }
        mount_in(base.to_owned(), options(layers)?).context("mounting the layers with overlayfs")?;
        let overlay = Self {
            root: base.join(MERGED),
            mounted: true,
        };
        // Not into the upper directory beforehand: a directory that is made there hides what the image's own
        // looks like.
        let root = Rootfs::open(&overlay.root)?;
        for file in extra {
            root.put(file.path, &file.content)?;
        }
        Ok(overlay)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        unmount(&self.root).with_context(|| format!("umount {}", self.root.display()))
    }
}

impl Drop for OverlayMount {
    fn drop(&mut self) {
        if self.mounted {
            // Nobody is left to tell. A lazy unmount always detaches, and the store is thrown away as a
            // whole.
            let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        }
    }
}

/// The options for `layers`, the lowest first; overlayfs wants the highest first.
fn options(layers: &[PathBuf]) -> Result<String> {
    let names = layers
        .iter()
        .rev()
        .map(|layer| layer.to_str().context("a layer's directory is not UTF-8"));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    if names.is_empty() {
        names.push(EMPTY);
    }
    Ok(format!(
        "lowerdir={},upperdir={UPPER},workdir={WORK}",
        names.join(":")
    ))
}

fn mount_in(base: PathBuf, options: String) -> Result<()> {
    let mounting = thread::spawn(move || -> Result<()> {
        unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
        std::env::set_current_dir(&base).with_context(|| format!("chdir {}", base.display()))?;
        // A device node of an image's opens nothing.
        mount(
            Some("overlay"),
            MERGED,
            Some("overlay"),
            MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .with_context(|| format!("mount -t overlay in {}", base.display()))
    });
    mounting
        .join()
        .map_err(|_| anyhow!("the mounting thread panicked"))?
}

fn create_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .with_context(|| format!("mkdir {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_layers_fit_into_a_page() {
        let layers: Vec<_> = (0..500).map(|n| PathBuf::from(format!("l/{n}"))).collect();
        let options = options(&layers).unwrap();
        assert!(options.len() < 4096, "{}", options.len());
        assert!(options.starts_with("lowerdir=l/499:l/498:"));
    }

    #[test]
    fn layers_are_stacked_and_extra_files_win() {
        let base = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let layers: Vec<_> = (0..500).map(|n| PathBuf::from(format!("l/{n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir_all(base.path().join(layer).join("etc")).unwrap();
            fs::write(base.path().join(layer).join(n.to_string()), "").unwrap();
            fs::write(base.path().join(layer).join("etc/name"), n.to_string()).unwrap();
            fs::write(base.path().join(layer).join("etc/mine"), n.to_string()).unwrap();
        }
        let mine = ExtraFile {
            path: "etc/mine",
            content: b"extra".into(),
        };
        let overlay = OverlayMount::stack(base.path(), &layers, &[mine]).unwrap();
        let read = |name: &str| fs::read_to_string(overlay.root().join(name)).unwrap();
        assert_eq!(
            (read("etc/name").as_str(), read("etc/mine").as_str()),
            ("499", "extra")
        );
        assert!(overlay.root().join("0").exists() && overlay.root().join("499").exists());
        overlay.unmount().unwrap();
        assert!(!base.path().join("root/0").exists());
    }
}
