//! The firmware's variables, through the kernel's efivarfs: a file each, four bytes of attributes before the
//! content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
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
use super::snapshot::{Name, Snapshot, VENDOR, Variable};

const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// `EFIVARFS_MAGIC` of include/uapi/linux/magic.h.
const EFIVARFS_MAGIC: i64 = 0xde5e_81e4;
const FLAGS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
/// Far more than any firmware has room for: how many variables there may be, and how many bytes in all.
const MAX_VARIABLES: usize = 8192;
const MAX_BYTES: usize = 16 << 20;

/// The firmware's variables.
#[derive(Clone, Debug)]
pub struct Variables {
    directory: PathBuf,
}

impl Variables {
    /// Those of this machine, to be changed.
    pub fn of_this_machine() -> Result<Self> {
        let variables = Self::to_be_read()?;
        variables.refuse_read_only()?;
        Ok(variables)
    }

    /// Those of this machine, which may take no changes. Mounts efivarfs where it isn't, in this process's own
    /// mount namespace.
    pub fn to_be_read() -> Result<Self> {
        let directory = Path::new(DIRECTORY);
        if !directory.is_dir() {
            bail!(
                "this machine was not booted by UEFI, so it has no boot order to set: leave out \
                 --boot-entry, or boot this machine by UEFI"
            );
        }
        let mounted = statfs(directory).is_ok_and(|status| status.filesystem_type().0 == EFIVARFS_MAGIC);
        if !mounted {
            mount(Some("efivarfs"), directory, Some("efivarfs"), FLAGS, None::<&str>).with_context(|| {
                format!(
                    "the firmware's variables cannot be reached: leave out --boot-entry, or add the module \
                     efivarfs to the ramdisk: mount(efivarfs, {DIRECTORY})"
                )
            })?;
        }
        Ok(Self::in_directory(directory))
    }

    /// Those in this directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// An error when they can't be changed: efivarfs is read-only where it was mounted so, and with firmware
    /// that takes no changes from a running system.
    pub(super) fn refuse_read_only(&self) -> Result<()> {
        access(&self.directory, AccessFlags::W_OK).with_context(|| {
            format!(
                "the firmware's variables cannot be changed: leave out --boot-entry, or mount efivarfs for \
                 writing: access({}, W_OK)",
                self.directory.display()
            )
        })
    }

    /// Makes a file system writable again that somebody has made read-only: all who mount it share it.
    pub(super) fn make_writable(&self) -> Result<()> {
        if self.refuse_read_only().is_ok() {
            return Ok(());
        }
        let flags = FLAGS | MsFlags::MS_REMOUNT;
        mount(None::<&str>, &self.directory, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("mount({}, MS_REMOUNT)", self.directory.display()))
    }

    /// All of them. Each is read once: some firmware takes its time.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let describe = || format!("reading {}", self.directory.display());
        let (mut snapshot, mut left) = (Snapshot::default(), MAX_BYTES);
        for (count, file) in fs::read_dir(&self.directory).with_context(describe)?.enumerate() {
            let name = file.with_context(describe)?.file_name();
            let found = read_once(&self.directory.join(&name), left);
            left = left.saturating_sub(found.as_ref().map_or(0, Vec::len));
            if count == MAX_VARIABLES || left == 0 {
                bail!("the firmware has more variables than can be remembered");
            }
            match found {
                Ok(bytes) => snapshot.add(Name::of_file(name), &bytes),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => snapshot.add_unreadable(Name::of_file(name)),
            }
        }
        Ok(snapshot)
    }

    /// The content of a variable; `None` when there is none of this name.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let describe = || format!("reading the firmware's variable {name}");
        let found = self.find(&Name::global(name)).with_context(describe)?;
        Ok(found.map(|variable| variable.content))
    }

    fn find(&self, name: &Name) -> io::Result<Option<Variable>> {
        match read_once(&self.path(name), MAX_BYTES) {
            Ok(bytes) => Ok(Variable::parse(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a variable, and reads it again.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        self.set(&Name::global(name), &Variable::lasting(content))
            .with_context(|| format!("writing the firmware's variable {name}"))
    }

    /// The same for one of any vendor, with its attributes.
    pub(super) fn set(&self, name: &Name, variable: &Variable) -> Result<()> {
        let found = self.find(name)?;
        if found.as_ref() == Some(variable) {
            return Ok(());
        }
        // The firmware doesn't change the attributes of a variable.
        if found.is_some_and(|found| found.attributes != variable.attributes) {
            self.unset(name)?;
        }
        self.put(name, variable)?;
        match self.find(name)? {
            Some(found) if found == *variable => Ok(()),
            _ => bail!("the firmware did not keep it"),
        }
    }

    /// Removes a variable.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.unset(&Name::global(name))
            .with_context(|| format!("removing the firmware's variable {name}"))
    }

    /// The same for one of any vendor.
    pub(super) fn unset(&self, name: &Name) -> Result<()> {
        let path = self.path(name);
        unprotect(&path)?;
        fs::remove_file(&path).context("unlink")
    }

    fn put(&self, name: &Name, variable: &Variable) -> Result<()> {
        let path = self.path(name);
        unprotect(&path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        // Attributes and content in one call: each call sets the variable.
        file.write_all(&variable.to_bytes())?;
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

    fn path(&self, name: &Name) -> PathBuf {
        self.directory.join(name.file())
    }
}

/// Reads a file of efivarfs in one call, as each call asks the firmware; an error where it is too large.
fn read_once(path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // With one byte more, it is known to be all.
    let mut bytes = vec![0; size.min(max_bytes) + 1];
    let count = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            count => break count?,
        }
    };
    if count > size {
        // It has grown since.
        file.take(max_bytes as u64).read_to_end(&mut bytes)?;
    } else {
        bytes.truncate(count);
    }
    if bytes.len() > max_bytes {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
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
            let refused = variables.refuse_read_only().unwrap_err();
            variables.make_writable().unwrap();
            variables.refuse_read_only().unwrap();
            refused
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
        let path = directory.path().join(Name::global("BootNext").file());
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
