//! Kernel modules: loads what the devices of this machine ask for, and what a file system or a feature needs.
//!
//! Does in a ramdisk without udev and kmod what these two do elsewhere: coldplug by `modalias`, and answering
//! when the kernel itself asks for a module.

mod file;
mod hook;
mod index;
mod options;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::command_line;
use super::release::release;
pub use hook::{answer_the_kernel, asked_by_kernel};
use index::{Index, Texts};
use options::{is_blacklisted, parameters};

/// Needed for nearly every installation, and asked for by no device.
const ALWAYS: [&str; 10] = [
    "overlay",
    "af_packet",
    "efivarfs",
    "loop",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "ext4",
];

/// Drivers below these directories serve no installation. Graphics would also take the console away where
/// their firmware is missing; without them it stays as the machine's firmware set it up.
const NEVER: [&str; 5] = [
    "kernel/sound/",
    "kernel/drivers/gpu/",
    "kernel/drivers/media/",
    "kernel/drivers/bluetooth/",
    "kernel/drivers/net/wireless/",
];

pub struct Loader {
    dir: PathBuf,
    index: Index,
    /// The words of the kernel command line, which may hold `module.parameter=value`.
    words: Vec<String>,
    tried: HashSet<String>,
    asked: HashSet<String>,
}

#[derive(Debug, Default)]
pub struct Loaded {
    pub names: Vec<String>,
    /// What went wrong, beyond drivers that found no device of theirs.
    pub problems: Vec<String>,
}

/// Loads the modules of these names or aliases, with all that they need. One that is loaded or built in is
/// fine.
pub fn load(words: &[&str]) -> Result<()> {
    let mut loader = Loader::open()?;
    words.iter().try_for_each(|word| loader.load(word).map(drop))
}

impl Loader {
    pub fn open() -> Result<Self> {
        let release = release()?;
        let dirs = ["/lib/modules", "/usr/lib/modules"].map(|dir| Path::new(dir).join(&release));
        let dir = dirs.into_iter().find(|dir| dir.is_dir());
        let dir = dir.with_context(|| format!("there are no modules of kernel {release} in /lib/modules"))?;
        Self::of(dir, command_line::read().unwrap_or_default())
    }

    fn of(dir: PathBuf, words: Vec<String>) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(dir.join(name));
        let by_depmod = |name: &str| {
            read(name).with_context(|| {
                let (path, release) = (dir.join(name), dir.file_name().unwrap_or_default());
                format!(
                    "the kernel's modules have no {}: run depmod {} when building the ramdisk",
                    path.display(),
                    release.display()
                )
            })
        };
        let index = Index::parse(&Texts {
            dep: by_depmod("modules.dep")?,
            alias: by_depmod("modules.alias")?,
            softdep: read("modules.softdep").unwrap_or_default(),
            builtin: read("modules.builtin").unwrap_or_default(),
        });
        Ok(Self {
            dir,
            index,
            words,
            tried: HashSet::new(),
            asked: HashSet::new(),
        })
    }

    /// Loads the modules of this name or alias, with all that they need. Returns the names of those loaded
    /// now.
    pub fn load(&mut self, word: &str) -> Result<Vec<String>> {
        let mut loaded = Vec::new();
        let names = self.index.resolve(word);
        if names.is_empty() && !self.index.is_builtin(word) && !is_loaded(word) {
            bail!("there is no kernel module {word} in {}", self.dir.display());
        }
        for name in names {
            self.load_one(&name, &mut loaded)
                .with_context(|| format!("loading the kernel module {name}"))?;
        }
        Ok(loaded)
    }

    /// Loads what every installation needs, as far as this kernel has it as modules.
    pub fn load_always(&mut self) -> Loaded {
        let mut present = ALWAYS.map(str::to_owned).to_vec();
        present.retain(|name| self.index.module(name).is_some());
        self.load_each(present)
    }

    /// Loads what the devices ask for that have appeared since the last time, and those that appear thereby.
    pub fn coldplug(&mut self) -> Loaded {
        let mut all = Loaded::default();
        loop {
            let mut aliases = HashSet::new();
            collect_modaliases(Path::new("/sys/devices"), &mut aliases);
            aliases.retain(|alias| self.asked.insert(alias.clone()));
            if aliases.is_empty() {
                return all;
            }
            let wanted = aliases.iter().flat_map(|alias| self.index.resolve(alias));
            let wanted: HashSet<_> = wanted.filter(|name| self.serves(name)).collect();
            let loaded = self.load_each(wanted);
            all.names.extend(loaded.names);
            all.problems.extend(loaded.problems);
        }
    }

    fn serves(&self, name: &str) -> bool {
        let path = self.index.module(name).map_or("", |(_, module)| &module.path);
        !NEVER.iter().any(|dir| path.starts_with(dir)) && !is_blacklisted(&self.words, name)
    }

    fn load_each(&mut self, names: impl IntoIterator<Item = String>) -> Loaded {
        let mut loaded = Loaded::default();
        for name in names {
            match self.load_one(&name, &mut loaded.names) {
                Ok(()) => {}
                Err(error) if found_no_device(&error) => {}
                Err(error) => loaded.problems.push(format!("{error:#}")),
            }
        }
        loaded
    }

    fn load_one(&mut self, name: &str, loaded: &mut Vec<String>) -> Result<()> {
        let Some((name, module)) = self.index.module(name) else {
            if self.index.is_builtin(name) || is_loaded(name) {
                return Ok(());
            }
            bail!("there is no kernel module {name} in {}", self.dir.display());
        };
        let (name, module) = (name.to_owned(), module.clone());
        if is_loaded(&name) || !self.tried.insert(name.clone()) {
            return Ok(());
        }
        self.wish(&module.wants_before, loaded);
        // depmod lists the nearest first.
        for needed in module.needs.iter().rev() {
            self.load_one(needed, loaded)
                .with_context(|| format!("loading {needed}, which {name} needs"))?;
        }
        file::load(&self.dir.join(&module.path), &parameters(&self.words, &name))?;
        loaded.push(name);
        self.wish(&module.wants_after, loaded);
        Ok(())
    }

    /// Loads optional modules; the module works without them.
    fn wish(&mut self, words: &[String], loaded: &mut Vec<String>) {
        for word in words {
            for name in self.index.resolve(word) {
                let _ = self.load_one(&name, loaded);
            }
        }
    }
}

/// Collects the contents of all files `modalias` below `dir`. Devices come and go meanwhile: what can't be
/// read isn't there.
fn collect_modaliases(dir: &Path, aliases: &mut HashSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_modaliases(&entry.path(), aliases),
            Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                let alias = fs::read_to_string(entry.path()).unwrap_or_default();
                if !alias.trim_end().is_empty() {
                    aliases.insert(alias.trim_end().to_owned());
                }
            }
            _ => {}
        }
    }
}

fn is_loaded(name: &str) -> bool {
    let state = format!("/sys/module/{}/initstate", name.replace('-', "_"));
    fs::read_to_string(state).is_ok_and(|state| state.trim_end() == "live")
}

fn found_no_device(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Errno::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn without_depmods_files_it_says_what_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("6.12.5");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("fat.ko"), "").unwrap();
        let open = || Loader::of(dir.clone(), Vec::new()).map(drop);
        for name in ["modules.dep", "modules.alias"] {
            let error = open().unwrap_err().to_string();
            let expected = format!("{name}: run depmod 6.12.5 when building the ramdisk");
            assert!(error.ends_with(&expected), "{error}");
            fs::write(dir.join(name), "").unwrap();
        }
        open().unwrap();
    }

    #[test]
    fn a_module_that_nobody_has_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["modules.dep", "modules.alias"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut loader = Loader::of(dir.path().to_owned(), Vec::new()).unwrap();
        let error = loader.load("no-such-module").unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "there is no kernel module no-such-module in {}",
                dir.path().display()
            )
        );
    }

    #[test]
    fn modaliases_are_collected_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("pci0/0000:00:01.0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), "pci:v1\n").unwrap();
        fs::write(dir.path().join("modalias"), "\n").unwrap();
        symlink(dir.path(), device.join("subsystem")).unwrap();
        let mut aliases = HashSet::new();
        collect_modaliases(dir.path(), &mut aliases);
        assert_eq!(aliases, HashSet::from(["pci:v1".to_owned()]));
    }
}
