//! An initramfs with Landfall as `/init` and kernel modules; no shell, no udev, no library, nothing else.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::kernel::Kernel;

/// A ramdisk in the making.
pub struct Builder {
    tree: TempDir,
}

impl Builder {
    /// A ramdisk with this program as `/init` and this kernel's modules.
    pub fn new(kernel: &Kernel, init: &Path) -> Result<Self> {
        let ramdisk = Self {
            tree: crate::tempdir()?,
        };
        kernel.install_modules(ramdisk.tree.path())?;
        ramdisk.add(init, "init", 0o755)
    }

    /// Adds a file, say a config drive.
    pub fn file(self, source: &Path, path: &str) -> Result<Self> {
        self.add(source, path, 0o600)
    }

    /// Adds a program.
    pub fn program(self, source: &Path, path: &str) -> Result<Self> {
        self.add(source, path, 0o755)
    }

    fn add(self, source: &Path, path: &str, mode: u32) -> Result<Self> {
        let target = self.tree.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("below the tree"))?;
        fs::copy(source, &target).with_context(|| format!("copying {} to the ramdisk", source.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        Ok(self)
    }

    /// Packs it, uncompressed: an emulated processor inflates slowly.
    pub fn write(self, output: &Path) -> Result<()> {
        pack(self.tree.path(), output)
    }
}

/// Packs a directory as an initramfs: owned by root, in a fixed order.
pub fn pack(tree: &Path, output: &Path) -> Result<()> {
    let mut names = Vec::new();
    collect(tree, Path::new(""), &mut names)?;
    names.sort();
    let mut list = tempfile::tempfile()?;
    for name in names {
        writeln!(list, "{}", name.display())?;
    }
    list.rewind()?;
    let status = Command::new("cpio")
        .args([
            "--create",
            "--format=newc",
            "--owner=0:0",
            "--quiet",
            "--reproducible",
        ])
        .current_dir(tree)
        .stdin(list)
        .stdout(File::create(output).with_context(|| format!("creating {}", output.display()))?)
        .status()
        .context("starting cpio; `cargo xtask setup` installs it")?;
    match status.success() {
        true => Ok(()),
        false => bail!("cpio failed ({status})"),
    }
}

fn collect(tree: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(tree.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type()?.is_dir() {
            collect(tree, &name, names)?;
        }
    }
    Ok(())
}
