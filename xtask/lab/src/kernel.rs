//! The distribution's own kernel, unpacked below `target/` and never installed on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, command};

/// What ramdisks and the fixture image load: disks, networks, file systems. Built-in and absent ones are no
/// error.
const MODULES: &[&str] = &[
    "aesni_intel",
    "af_packet",
    "ahci",
    "algif_skcipher",
    "ata_piix",
    "dm_crypt",
    "dm_mod",
    "e1000",
    "e1000e",
    "ecb",
    "efivarfs",
    "erofs",
    "ext4",
    "isofs",
    "loop",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "nvme",
    "overlay",
    "sd_mod",
    "sr_mod",
    "vfat",
    "virtio_blk",
    "virtio_net",
    "virtio_pci",
    "virtio_rng",
    "virtio_scsi",
    "xfs",
    "xts",
];

/// A kernel with its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` says.
    pub version: String,
    /// The kernel image; it is an EFI program too.
    pub vmlinuz: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest kernel for virtual machines that the machine's apt has; downloaded once.
    pub fn fetch() -> Result<Self> {
        let package = if apt::distribution()? == "ubuntu" {
            "linux-image-virtual"
        } else {
            "linux-image-cloud-amd64"
        };
        let directory = crate::target()
            .join("kernel")
            .join(format!("{package}-{}", apt::candidate(package)?));
        if !directory.exists() {
            let unfinished = directory.with_extension("unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished)?;
            let is_kernel = |name: &str| {
                ["linux-image-", "linux-modules-"]
                    .iter()
                    .any(|part| name.starts_with(part))
            };
            apt::unpack(package, is_kernel, &unfinished)?;
            fs::rename(&unfinished, &directory)?;
        }
        Self::unpacked(&directory)
    }

    fn unpacked(directory: &Path) -> Result<Self> {
        let merged = directory.join("usr/lib/modules");
        let modules = if merged.exists() {
            merged
        } else {
            directory.join("lib/modules")
        };
        let newest = fs::read_dir(&modules)
            .with_context(|| format!("reading {}", modules.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .max();
        let version = newest.with_context(|| format!("no kernel in {}", directory.display()))?;
        let vmlinuz = directory.join("boot").join(format!("vmlinuz-{version}"));
        let modules = modules.join(&version);
        Ok(Self {
            version,
            vmlinuz,
            modules,
        })
    }

    /// Puts the modules and what they need, uncompressed and indexed, into `root/lib/modules/VERSION`.
    pub fn install_modules(&self, root: &Path) -> Result<()> {
        let target = root.join("lib/modules").join(&self.version);
        fs::create_dir_all(&target)?;
        for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            fs::copy(self.modules.join(index), target.join(index))
                .with_context(|| format!("copying {index}"))?;
        }
        let all = walk(&self.modules)?;
        let mut wanted: Vec<String> = MODULES.iter().map(|name| name.to_string()).collect();
        let mut done = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            let Some(source) = all
                .iter()
                .find(|path| module_name(path).as_deref() == Some(&name))
            else {
                continue;
            };
            let installed = self.install_module(source, &target)?;
            wanted.extend(needed_modules(&installed)?);
        }
        self.index(root)
    }

    /// Copies one module, uncompressed: not every kernel can inflate them itself.
    fn install_module(&self, source: &Path, target: &Path) -> Result<PathBuf> {
        let relative = source.strip_prefix(&self.modules)?;
        let name = format!(
            "{}.ko",
            source
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.split_once(".ko"))
                .context("a module's name")?
                .0
        );
        let installed = target.join(relative).with_file_name(name);
        fs::create_dir_all(installed.parent().expect("modules lie in a directory"))?;
        let inflate = match source.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            Some("gz") => "gzip",
            _ => {
                return fs::copy(source, &installed)
                    .map(|_| installed)
                    .context("copying a module");
            }
        };
        let file = fs::File::create(&installed)?;
        let status = Command::new(inflate)
            .args(["-dc"])
            .arg(source)
            .stdout(file)
            .status();
        match status.with_context(|| format!("starting {inflate}"))?.success() {
            true => Ok(installed),
            false => bail!("{inflate} could not inflate {}", source.display()),
        }
    }

    /// Writes `modules.dep`, `modules.alias` and the rest. Some releases' depmod looks below `/usr/lib` only.
    fn index(&self, root: &Path) -> Result<()> {
        let alias = root.join("usr/lib");
        let added = !alias.exists();
        if added {
            fs::create_dir_all(root.join("usr"))?;
            std::os::unix::fs::symlink("../lib", &alias)?;
        }
        command::run(
            Command::new("depmod")
                .arg("--basedir")
                .arg(root)
                .arg(&self.version),
        )?;
        if added {
            fs::remove_file(&alias)?;
            let _ = fs::remove_dir(root.join("usr"));
        }
        Ok(())
    }
}

/// The module's name in a path: `kernel/drivers/virtio/virtio-rng.ko.xz` is `virtio_rng`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// What a module itself says that it needs, and what it would like to have.
fn needed_modules(module: &Path) -> Result<Vec<String>> {
    let mut needed = Vec::new();
    for field in ["depends", "softdep"] {
        let said = command::output(Command::new("modinfo").args(["--field", field]).arg(module))?;
        let names = said
            .split([',', ' ', '\n'])
            .filter(|word| !word.is_empty() && !word.ends_with(':'));
        needed.extend(names.map(|name| name.replace('-', "_")));
    }
    Ok(needed)
}

fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(walk(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_have_underscores_and_no_extension() {
        let rows = [
            ("kernel/drivers/char/hw_random/virtio-rng.ko", Some("virtio_rng")),
            ("kernel/fs/ext4/ext4.ko.xz", Some("ext4")),
            ("modules.dep", None),
        ];
        for (path, name) in rows {
            assert_eq!(module_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
