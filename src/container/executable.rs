//! The file that the helper is executed from, and that a program of the image could execute again, or hand
//! to the kernel as its interpreter: `#!/proc/self/exe`. It is mounted for each container anew, in its bundle,
//! and as soon as the helper runs, nobody can execute it through that mount.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NAME: &str = "landfall";
const NONE: Option<&str> = None;

/// This program, mounted. Dropped, it is unmounted.
pub(super) struct Executable(PathBuf);

impl Executable {
    /// Mounts it in `bundle`.
    pub fn mount(bundle: &Path) -> Result<Self> {
        let path = bundle.join(NAME);
        File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let own = std::env::current_exe().context("readlink(/proc/self/exe)")?;
        mount(Some(&own), &path, NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("mount --bind {} {}", own.display(), path.display()))?;
        let mounted = Self(path);
        // The link itself leads out of our mounts, and a name may lead to something else by now.
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let running = fs::metadata("/proc/self/exe").context("stat(/proc/self/exe)")?;
        let found = fs::metadata(&mounted.0).context("stat of what was mounted")?;
        ensure!(
            identity(running) == identity(found),
            "{} was replaced while it was running: run it again",
            own.display()
        );
        Ok(mounted)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // Nobody is left to tell. A lazy unmount always detaches.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Makes the mount that this process was executed from useless to others. To be called where it was mounted,
/// before any change of namespaces: a copy of the mount would be no help.
pub(super) fn seal(bundle: &Path) -> Result<()> {
    let path = bundle.join(NAME);
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV;
    mount(NONE, &path, NONE, flags, NONE)
        .with_context(|| format!("mount -o remount,noexec {}", path.display()))
}
