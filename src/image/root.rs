//! An image on its way to a mounted root: resolved, pulled, mounted. `install`, `run` and `unpack` begin
//! alike.
//!
//! Who finds the image knows the credentials for it. Mounting it is the end of that, so that no program of the
//! image runs beside them.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::console::progress::{Progress, Wait};
use crate::image::estimate::{Estimate, estimate_unpacked, with_filesystem};
use crate::image::layer::UnpackedLayer;
use crate::image::memory::{Memory, Purpose};
use crate::image::oci::reference::Selector;
use crate::image::oci::{Digest, Image, Layer, Platform};
use crate::image::overlay::{ExtraFile, OverlayMount};
use crate::image::pull::{self, Options};
use crate::image::source::Source;
use crate::image::source::name::ImageName;
use crate::image::source::policy;
use crate::image::source::registry;
use crate::image::store::Store;
use crate::machine::disk::chosen::Disk;
use crate::machine::kernel;
use crate::machine::labelled::{Place, Stick};
use crate::machine::memory::available_memory_bytes;
use crate::machine::private_mount::Access;
use crate::sys::namespace::private_directory;
use crate::sys::workshop::Workshop;

/// An image that was found, and where.
pub struct FoundImage {
    pub image: Arc<Image>,
    pub source: Arc<dyn Source>,
    pub selector: Selector,
    /// Where it was asked for, and its connections are.
    workshop: Workshop,
    /// What the source is on. Declared after the source, so that it is unmounted when nothing reads from it.
    stick: Option<Stick>,
}

/// An image's root, mounted. Nothing of it is left when it is dropped.
pub struct Root {
    // The order is that of dropping.
    overlay: OverlayMount,
    store: Store,
    memory: Memory,
    /// What its layers take in a file system, in bytes.
    pub unpacked_bytes: u64,
    /// The blobs that were kept, by digest.
    kept_blobs: HashMap<Digest, PathBuf>,
    /// Where the other blobs are, if they are to be had again.
    found: Option<FoundImage>,
}

/// An image that is asked for, and how to get it.
pub struct Wanted {
    /// Its name.
    pub name: ImageName,
    /// The platform to choose from an index, if not this machine's.
    pub platform: Option<Platform>,
    /// The containers-policy.json that counts.
    pub policy: Option<PathBuf>,
    /// The memory that may be used, if not all that is available.
    pub memory_budget_bytes: Option<u64>,
    /// How to speak to whatever has the image or a config drive.
    pub source: registry::Options,
}

/// Finds the image, if this machine's policy accepts it.
pub async fn find(wanted: &Wanted, progress: &Progress) -> Result<FoundImage> {
    let policy = policy::Policy::load(&wanted.source.places, wanted.policy.as_deref())?;
    find_under(policy.as_ref(), wanted, progress).await
}

/// Finds the image, whatever the policy says: to look at it.
pub async fn find_to_inspect(wanted: &Wanted, progress: &Progress) -> Result<FoundImage> {
    find_under(None, wanted, progress).await
}

async fn find_under(
    policy: Option<&policy::Policy>,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<FoundImage> {
    let name = &wanted.name;
    let _looking = progress.waiting(Wait::new(format!("looking for {name}")));
    let (at, stick) = match name.path() {
        Some(path) => plug_in(path, Access::Read, progress).await?,
        None => (None, None),
    };
    let workshop = Workshop::open()?;
    let options = wanted.source.telling(progress);
    let opened = workshop.run(name.open(&options, at.clone())).await?;
    if let Some(policy) = policy {
        policy.check(name, at.as_deref())?;
    }
    let platform = wanted.platform.clone().unwrap_or_else(Platform::host);
    let image = Arc::new(workshop.run(opened.resolve(&platform)).await?);
    Ok(FoundImage {
        image,
        source: opened.source,
        selector: opened.selector,
        workshop,
        stick,
    })
}

/// Mounts the stick that `path` is on, if it's on one, and says where it is then.
pub async fn plug_in(
    path: &Path,
    access: Access,
    progress: &Progress,
) -> Result<(Option<PathBuf>, Option<Stick>)> {
    let Some(place) = Place::parse(path) else {
        return Ok((None, None));
    };
    // A disk that is broken answers late.
    let _looking = progress.waiting(Wait::new(format!("looking for {place}")));
    let stick = Stick::mount(place.label, access).await?;
    Ok((Some(stick.locate(place.path)), Some(stick)))
}

pub fn check_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root privileges: run it as root");
    }
    Ok(())
}

/// Checks that this user may do the work, and that this kernel can.
pub fn check_machine() -> Result<()> {
    check_root()?;
    kernel::need_filesystem("overlay")
}

impl FoundImage {
    /// An error if the image is on the disk that it is to be installed to.
    pub fn refuse_as_target(&self, disk: &Disk) -> Result<()> {
        match self.stick.as_ref().filter(|stick| stick.is_on(&disk.name)) {
            None => Ok(()),
            Some(stick) => bail!(
                "{} is in use: {stick}, which holds the image, is on it; install to another disk",
                disk.path.display()
            ),
        }
    }

    /// Estimates what it takes when it is unpacked. That costs a request for each layer.
    pub async fn estimate(&self, progress: &Progress) -> Estimate {
        let _asking = progress.waiting(Wait::new("asking for the sizes of the layers"));
        self.workshop
            .run(estimate_unpacked(&*self.source, &self.image))
            .await
    }

    /// Shares out the memory that the machine has and the user allows; a doubt is told.
    pub async fn memory(&self, wanted: &Wanted, purpose: Purpose, progress: &Progress) -> Result<Memory> {
        let unpacked = self.estimate(progress).await;
        let available = available_memory_bytes().context("reading MemAvailable in /proc/meminfo")?;
        let allowed = wanted.memory_budget_bytes.unwrap_or(u64::MAX).min(available);
        let plan = Memory::plan(purpose, unpacked, allowed);
        let memory = if allowed < available {
            plan.context("--memory-budget allows less than this machine has")?
        } else {
            plan?
        };
        if let Some(doubt) = memory.doubt() {
            progress.warn(doubt);
        }
        Ok(memory)
    }

    /// Pulls the layers into memory and mounts them under `extra` files. Unless blobs of them are wanted and
    /// could not be kept, that is the end of the source, and of the credentials for it.
    pub async fn mount(self, memory: &Memory, extra: &[ExtraFile], progress: &Progress) -> Result<Root> {
        let store = Store::mount(private_directory()?, memory.store_bytes)?;
        let options = Options {
            unpacked_bytes: memory.keep_blobs.then_some(memory.unpacked.likely_bytes),
            ..Options::default()
        };
        let pull = pull::pull(Arc::clone(&self.source), &self.image, &store, &options, progress);
        let layers = self.workshop.run(pull).await?;
        let overlay = OverlayMount::new(store.path(), &layers, extra)?;
        let archives = layers.iter().map(UnpackedLayer::archive_bytes);
        let kept_blobs = kept_blobs(&store, &self.image)?;
        let is_kept = |layer: &Layer| kept_blobs.contains_key(layer.blob.digest());
        let found = if !memory.keep_blobs || self.image.layers.iter().all(is_kept) {
            self.forget().await?;
            None
        } else {
            progress.note(
                "not all layers could be kept in memory: the credentials for the image's source stay in this \
                 process while the image installs itself",
            );
            Some(self)
        };
        Ok(Root {
            overlay,
            store,
            memory: *memory,
            unpacked_bytes: with_filesystem(archives.sum()),
            kept_blobs,
            found,
        })
    }

    /// Ends all that knows credentials. Memory is wiped when it's freed, so nothing of them is left.
    async fn forget(self) -> Result<()> {
        drop(self.source);
        self.workshop.close().await;
        registry::forget_environment()
    }
}

/// The blobs of `image` that are whole in `store`, by digest.
fn kept_blobs(store: &Store, image: &Image) -> Result<HashMap<Digest, PathBuf>> {
    let mut kept = HashMap::new();
    for layer in &image.layers {
        let path = store.blob_path(layer.blob.digest());
        let doing = || format!("stat({})", path.display());
        match fs::metadata(&path) {
            Ok(file) if file.len() == layer.blob.size() => {
                kept.insert(layer.blob.digest().clone(), path);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(doing),
        }
    }
    Ok(kept)
}

impl Root {
    pub fn path(&self) -> &Path {
        self.overlay.root()
    }

    /// The blobs that were kept, by digest.
    pub fn kept_blobs(&self) -> &HashMap<Digest, PathBuf> {
        &self.kept_blobs
    }

    /// Where the other blobs come from; `None` where there are no others.
    pub fn source(&self) -> Option<Arc<dyn Source>> {
        self.found.as_ref().map(|found| Arc::clone(&found.source))
    }

    /// What a container that starts now may use, in bytes.
    pub fn memory_of_programs(&self) -> u64 {
        let stored = self.store.budget_bytes().zip(self.store.room_bytes());
        let stored = stored.map_or(0, |(budget, room)| budget.saturating_sub(room));
        // Where nobody can say, it is as when the image was let in.
        let available = available_memory_bytes().unwrap_or(u64::MAX);
        self.memory.of_programs(available, stored)
    }

    /// A place for a directory of this name, beside the layers.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.store.path().join(name)
    }

    pub fn close(self) -> Result<()> {
        self.overlay.unmount()?;
        self.store.close()
    }
}
