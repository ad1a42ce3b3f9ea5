//! The firmware's variables, through the kernel's efivarfs: a file each, four bytes of attributes before the
//! content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, access};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use uuid::Uuid;

use super::load_option::LoadOption;
use super::order;

/// `EFI_GLOBAL_VARIABLE`.
const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// `EFIVARFS_MAGIC` of include/uapi/linux/magic.h.
const EFIVARFS_MAGIC: i64 = 0xde5e_81e4;
/// Kept without power, and there before and after the operating system has started.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// The firmware's variables.
#[derive(Clone, Debug)]
pub struct Variables {
    directory: PathBuf,
}

pub(super) fn file_name(name: &str) -> String {
    format!("{name}-{VENDOR}")
}

impl Variables {
    /// Those of this machine, to be changed. Mounts efivarfs where it isn't, in this process's own mount
    /// namespace.
    pub fn of_this_machine() -> Result<Self> {
        let directory = Path::new(DIRECTORY);
        if !directory.is_dir() {
            bail!(
                "this machine was not booted by UEFI, so it has no boot order to set: leave out \
                 --boot-entry, or boot this machine by UEFI"
            );
        }
        let mounted = statfs(directory).is_ok_and(|status| status.filesystem_type().0 == EFIVARFS_MAGIC);
        if !mounted {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("efivarfs"), directory, Some("efivarfs"), flags, None::<&str>).with_context(|| {
                format!(
                    "the firmware's variables cannot be reached: leave out --boot-entry, or add the module \
                     efivarfs to the ramdisk: mount(efivarfs, {DIRECTORY})"
                )
            })?;
        }
        let variables = Self::in_directory(directory);
        variables.refuse_read_only()?;
        Ok(variables)
    }

    /// Those in this directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// An error when they can't be changed: efivarfs is read-only where it was mounted so, and with firmware
    /// that takes no changes from a running system.
    fn refuse_read_only(&self) -> Result<()> {
        access(&self.directory, AccessFlags::W_OK).with_context(|| {
            format!(
                "the firmware's variables cannot be changed: leave out --boot-entry, or mount efivarfs for \
                 writing: access({}, W_OK)",
                self.directory.display()
            )
        })
    }

    /// The content of a variable; `None` when there is none of this name.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(bytes.get(ATTRIBUTES.len()..).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading the firmware's variable {name}")),
        }
    }

    /// Writes a variable, and reads it again.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let describe = || format!("writing the firmware's variable {name}");
        if self.read(name)?.as_deref() == Some(content) {
            return Ok(());
        }
        self.put(name, content).with_context(describe)?;
        match self.read(name)? {
            Some(found) if found == content => Ok(()),
            _ => Err(io::Error::other("the firmware did not keep it")).with_context(describe),
        }
    }

    /// Removes a variable.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        unprotect(&path)
            .and_then(|()| fs::remove_file(&path).context("unlink"))
            .with_context(|| format!("removing the firmware's variable {name}"))
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path(name);
        unprotect(&path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        // Attributes and content in one call: each call sets the variable.
        file.write_all(&[&ATTRIBUTES, content].concat())?;
        Ok(())
    }

    /// The numbers of all boot entries, also of those that make no sense to us: the firmware may know better.
    pub fn numbers(&self) -> Result<Vec<u16>> {
        Ok(self.names()?.into_iter().map(|(number, _)| number).collect())
    }

    /// The boot entries that can be read and make sense, by number.
    pub fn entries(&self) -> Result<Vec<(u16, LoadOption)>> {
        let read = |(number, name): (u16, String)| {
            let bytes = self.read(&name).ok()??;
            Some((number, LoadOption::parse(&bytes)?))
        };
        Ok(self.names()?.into_iter().filter_map(read).collect())
    }

    /// Those of them whose program is on one of `partitions`.
    pub fn entries_on(&self, partitions: &[Uuid]) -> Result<Vec<(u16, LoadOption)>> {
        let mut entries = self.entries()?;
        entries.retain(|(_, option)| option.partition().is_some_and(|uuid| partitions.contains(&uuid)));
        Ok(entries)
    }

    /// Whether a boot entry leads to `partition`. An error if none is known to do so, and one can't be read.
    pub fn lead_to(&self, partition: Uuid) -> Result<bool> {
        if !self.entries_on(&[partition])?.is_empty() {
            return Ok(true);
        }
        for (_, name) in self.names()? {
            self.read(&name)?;
        }
        Ok(false)
    }

    fn names(&self) -> Result<Vec<(u16, String)>> {
        let describe = || format!("reading {}", self.directory.display());
        let mut names = Vec::new();
        for file in fs::read_dir(&self.directory).with_context(describe)? {
            let file = file.with_context(describe)?.file_name();
            let name = file
                .to_str()
                .and_then(|name| name.strip_suffix(VENDOR)?.strip_suffix('-'));
            names.extend(name.and_then(|name| Some((order::number(name)?, name.to_owned()))));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(file_name(name))
    }
}

/// Clears the flag of a variable, if it exists, that protects it from `rm -rf` on efivarfs.
fn unprotect(path: &Path) -> Result<()> {
    let Ok(file) = File::open(path) else {
        return Ok(());
    };
    let flags = match ioctl_getflags(&file) {
        // A file system without such flags has no protected files.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => return Ok(()),
        flags => flags.context("ioctl(FS_IOC_GETFLAGS)")?,
    };
    if flags.contains(IFlags::IMMUTABLE) {
        ioctl_setflags(&file, flags - IFlags::IMMUTABLE).context("ioctl(FS_IOC_SETFLAGS)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::enter_private_mounts;

    #[test]
    fn variables_that_cannot_be_changed_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let variables = Variables::in_directory(directory.path());
        variables.refuse_read_only().unwrap();
        let work = move || {
            enter_private_mounts().unwrap();
            let read_only = MsFlags::MS_RDONLY;
            mount(
                Some("test"),
                &variables.directory,
                Some("tmpfs"),
                read_only,
                None::<&str>,
            )
            .unwrap();
            variables.refuse_read_only().unwrap_err()
        };
        let error = format!("{:#}", std::thread::spawn(work).join().unwrap());
        assert!(error.contains("leave out --boot-entry"), "{error}");
        assert!(error.ends_with("EROFS: Read-only file system"), "{error}");
    }

    fn protect(path: &Path) {
        let file = File::open(path).unwrap();
        let flags = ioctl_getflags(&file).unwrap();
        ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
    }

    #[test]
    fn an_immutable_variable_is_written_and_removed_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let variables = Variables::in_directory(directory.path());
        variables.write("BootNext", &[1, 0]).unwrap();
        let path = directory.path().join(file_name("BootNext"));
        protect(&path);
        assert!(fs::write(&path, "x").is_err());
        variables.write("BootNext", &[2, 0]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [7, 0, 0, 0, 2, 0]);
        assert_eq!(variables.read("BootOrder").unwrap(), None);
        protect(&path);
        variables.remove("BootNext").unwrap();
        assert_eq!(variables.read("BootNext").unwrap(), None);
    }

    #[test]
    fn what_the_firmware_does_not_keep_is_an_error() {
        // A file is longer than what is written over it, where the firmware would have replaced the content.
        let directory = tempfile::tempdir().unwrap();
        let variables = Variables::in_directory(directory.path());
        variables.write("BootOrder", &[1, 0, 2, 0]).unwrap();
        let error = variables.write("BootOrder", &[1, 0]).unwrap_err();
        assert!(
            format!("{error:#}").contains("the firmware did not keep it"),
            "{error:#}"
        );
    }
}
