//! Where an image lives while it is needed: a fresh, private tmpfs of a fixed size, or a plain directory.
//!
//! ```text
//! l/0, l/1 …   the layers, by their index from the bottom (short: overlayfs's options fit a page)
//! b/           blobs, a cache: whatever is not there can be had from the source again
//! ```
//!
//! The size of the tmpfs is the memory budget: a layer that is larger than it says gets ENOSPC, and the
//! machine is left alone. [`Store::close`] leaves nothing behind; dropping a store does the same without
//! saying what failed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::image::oci::Digest;
use crate::sys::mount::unmount;

/// The budget for one inode, in bytes: bounds what the kernel needs besides the pages, and is a tenth of what
/// the files of an image have on average.
const BYTES_PER_INODE: u64 = 2048;

/// Never fewer inodes than this: small images have small files.
const MIN_INODES: u64 = 65_536;

/// What the names of hidden directories begin with.
const HIDDEN: &str = ".landfall-";

/// A place for one image.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The size of the tmpfs in bytes; `None` for a plain directory.
    budget_bytes: Option<u64>,
    users: Arc<Users>,
    closed: bool,
    /// The lock of a plain directory, which tells others that it is in use.
    _lock: Option<File>,
}

/// A writer into the store; it is not closed before its writers are gone.
#[derive(Debug)]
pub struct User(Arc<Users>);

#[derive(Debug, Default)]
struct Users {
    /// Set when what they do is of no use any longer.
    unwanted: AtomicBool,
    count: Mutex<usize>,
    changed: Condvar,
}

impl Store {
    /// Mounts a tmpfs of `budget_bytes` on a new directory in `base`, which is made if it isn't there.
    pub fn mount(base: &Path, budget_bytes: u64) -> Result<Self> {
        let path = new_directory(base, "")?;
        let inodes = (budget_bytes / BYTES_PER_INODE).max(MIN_INODES);
        let options = format!("mode=0700,size={budget_bytes},nr_inodes={inodes}");
        // Nothing of the image means anything here; overlayfs asks its own mount, not this one, what it may
        // run.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("landfall"),
            &path,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
        .and_then(|()| {
            mount(
                None::<&str>,
                &path,
                None::<&str>,
                MsFlags::MS_PRIVATE,
                None::<&str>,
            )
        })
        .with_context(|| format!("mount(\"tmpfs\", {path:?}, \"{options}\") failed"))
        .inspect_err(|_| drop(fs::remove_dir(&path)))?;
        Self::fill(path, Some(budget_bytes), None)
    }

    /// Makes a hidden directory in `base`, for what is to stay on its file system.
    pub fn plain(base: &Path) -> Result<Self> {
        let path = new_directory(base, HIDDEN)?;
        let lock = lock(&path);
        Self::fill(path, None, lock)
    }

    /// The hidden directories in `base` whose owners were killed.
    pub fn left_behind(base: &Path) -> io::Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(base)? {
            let entry = entry?;
            let is_ours = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(HIDDEN.as_bytes());
            if is_ours && lock(&entry.path()).is_some() {
                left.push(entry.path());
            }
        }
        Ok(left)
    }

    fn fill(path: PathBuf, budget_bytes: Option<u64>, lock: Option<File>) -> Result<Self> {
        let store = Self {
            path,
            budget_bytes,
            users: Arc::default(),
            closed: false,
            _lock: lock,
        };
        for name in ["l", "b"] {
            let path = store.path.join(name);
            private(&path).with_context(|| format!("mkdir({path:?}) failed"))?;
        }
        Ok(store)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of everything that fits, in bytes; `None` if the file system bounds it.
    pub fn budget_bytes(&self) -> Option<u64> {
        self.budget_bytes
    }

    /// How much there is room for, in bytes: the budget, or what the file system has left; `None` if it
    /// doesn't say.
    pub fn room_bytes(&self) -> Option<u64> {
        self.budget_bytes.or_else(|| {
            let stat = nix::sys::statvfs::statvfs(&self.path).ok()?;
            (stat.blocks() > 0).then(|| stat.blocks_available().saturating_mul(stat.fragment_size()))
        })
    }

    /// Where the layer with this index from the bottom belongs.
    pub fn layer_path(&self, index: usize) -> PathBuf {
        self.path.join("l").join(index.to_string())
    }

    /// A directory for a merged image, on the same file system as the layers. Not there yet.
    pub fn merged_path(&self) -> PathBuf {
        self.path.join("m")
    }

    /// Where the copy of a blob belongs. One that is there was verified when it was made.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        // An algorithm and hexadecimal digits: no name can be made up of them that leads elsewhere.
        self.path.join("b").join(digest.to_string())
    }

    /// Removes all copies of blobs, for the memory that they take. Says whether there were any.
    pub fn drop_blobs(&self) -> Result<bool> {
        let mut any = false;
        for entry in fs::read_dir(self.path.join("b")).context("reading the blob cache")? {
            let path = entry.context("reading the blob cache")?.path();
            // Anyone who still writes to it finds it shorter than it should be.
            let file = File::options().write(true).open(&path);
            any |= file.and_then(|file| file.set_len(0)).is_ok();
            fs::remove_file(&path).with_context(|| format!("unlink({path:?}) failed"))?;
        }
        Ok(any)
    }

    /// Keeps the store open until the user is dropped.
    pub fn user(&self) -> User {
        *self.users.lock() += 1;
        User(self.users.clone())
    }

    /// Waits for its users, and removes everything.
    pub fn close(mut self) -> Result<()> {
        self.users.wait();
        self.remove(unmount)
    }

    fn remove(&mut self, unmount: impl FnOnce(&Path) -> nix::Result<()>) -> Result<()> {
        self.closed = true;
        let path = &self.path;
        if self.budget_bytes.is_some() {
            unmount(path)
                .with_context(|| format!("umount2({path:?}) failed: something still uses the layers"))?;
            fs::remove_dir(path).with_context(|| format!("rmdir({path:?}) failed"))
        } else {
            fs::remove_dir_all(path).with_context(|| format!("removing {path:?}"))
        }
    }
}

/// The safety net: on the way out of an error the first error is what matters.
impl Drop for Store {
    fn drop(&mut self) {
        if !self.closed {
            self.users.unwanted.store(true, Ordering::Relaxed);
            self.users.wait();
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            let _ = self.remove(|path| umount2(path, flags));
        }
    }
}

impl Users {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let busy = self.changed.wait_while(self.lock(), |count| *count > 0);
        drop(busy);
    }
}

impl User {
    /// Whether the store is still wanted. Who has much to do asks again and again.
    pub fn is_wanted(&self) -> bool {
        !self.0.unwanted.load(Ordering::Relaxed)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}

fn new_directory(base: &Path, prefix: &str) -> Result<PathBuf> {
    fs::create_dir_all(base).with_context(|| format!("mkdir({base:?}) failed"))?;
    let template = base.join(format!("{prefix}XXXXXX"));
    nix::unistd::mkdtemp(&template).with_context(|| format!("mkdtemp({template:?}) failed"))
}

/// The lock of a directory, unless somebody has it or the file system has no locks.
fn lock(directory: &Path) -> Option<File> {
    let directory = File::open(directory).ok()?;
    directory.try_lock().is_ok().then_some(directory)
}

fn private(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::image::oci::digest::sha256;

    #[test]
    fn a_store_is_a_private_tmpfs_of_its_size_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().join("made/here");
        let store = Store::mount(&base, 4 << 20).unwrap();
        let other = Store::mount(&base, 4 << 20).unwrap();
        assert_ne!(store.path(), other.path());
        let stat = nix::sys::statfs::statfs(store.path()).unwrap();
        assert_eq!(stat.filesystem_type(), nix::sys::statfs::TMPFS_MAGIC);
        assert_eq!(stat.blocks() * u64::try_from(stat.block_size()).unwrap(), 4 << 20);
        assert_eq!(fs::metadata(store.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            fs::write(store.layer_path(0), vec![1; 5 << 20])
                .unwrap_err()
                .kind(),
            ErrorKind::StorageFull
        );
        store.close().unwrap();
        drop(other);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
    }

    #[test]
    fn a_busy_store_says_so_and_is_gone_when_it_is_dropped() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::mount(base.path(), 4 << 20).unwrap();
        let held = File::create(store.layer_path(0)).unwrap();
        let error = format!("{:#}", store.close().unwrap_err());
        assert!(
            error.contains("something still uses the layers: EBUSY"),
            "{error}"
        );
        drop(held);
        let left = fs::read_dir(base.path()).unwrap().next().unwrap().unwrap().path();
        umount2(&left, MntFlags::empty()).unwrap();
        let store = Store::mount(base.path(), 4 << 20).unwrap();
        let path = store.path().to_path_buf();
        let held = File::create(store.layer_path(0)).unwrap();
        drop(store);
        assert!(!path.exists());
        drop(held);
    }

    #[test]
    fn copies_of_blobs_are_dropped_for_their_memory() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::plain(base.path()).unwrap();
        let digest = sha256(b"blob");
        assert!(!store.drop_blobs().unwrap());
        fs::write(store.blob_path(&digest), "blob").unwrap();
        let open = File::open(store.blob_path(&digest)).unwrap();
        assert!(store.drop_blobs().unwrap());
        assert_eq!(open.metadata().unwrap().len(), 0);
        assert!(!store.blob_path(&digest).exists());
        store.close().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_is_dropped_tells_its_users_to_stop() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::plain(base.path()).unwrap();
        let user = store.user();
        assert!(user.is_wanted());
        let working = std::thread::spawn(move || while user.is_wanted() {});
        drop(store);
        working.join().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_waits_for_its_users() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::plain(base.path()).unwrap();
        let (user, path) = (store.user(), store.layer_path(0));
        let writer = std::thread::spawn(move || {
            let written = fs::write(path, "x");
            drop(user);
            written
        });
        store.close().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
