//! `landfall pull`: an image as an OCI image layout (image-spec `image-layout.md`), for a USB stick that
//! takes it to a site without a network, or for a mirror.
//!
//! Every blob is compared with its digest; manifest and config are kept to the byte, so the image keeps its
//! digest. A stopped pull continues where it was, also inside a layer.

mod archive;
mod directory;
mod fetch;
mod index;
mod target;

use anyhow::{Context, Result};

use self::target::layers;
use crate::console::progress::{Event, Phase, Progress, Wait};
use crate::image::root::{self, Wanted};
use crate::image::source::file::Named;
use crate::machine::labelled::Stick;
use crate::machine::private_mount::Access;
use crate::request::{Destination, DestinationForm};
use crate::sys::blocking::apart;

/// Pulls the image to `to`.
pub async fn save(wanted: &Wanted, to: &Destination, progress: &Progress) -> Result<()> {
    let (at, stick) = root::plug_in(&to.path, Access::Write, progress).await?;
    let mut target = Named::plain(&to.path);
    target.path = at.unwrap_or(target.path);
    if let Some(stick) = &stick {
        progress.note(format!("mounted {stick} for writing"));
    }
    let found = root::find(wanted, progress).await?;
    let image = &*found.image;
    progress.enter(Phase::Save);
    let layers = layers(image);
    progress.tell(Event::PullStarted {
        layers: layers.len(),
        compressed_bytes: layers.iter().map(|(_, blob)| blob.size()).sum(),
    });
    let name = to.name.clone().unwrap_or_else(|| image.reference.update_name());
    let written = match to.form {
        DestinationForm::Directory => directory::write(&found, &target, &name, progress).await,
        DestinationForm::Archive => archive::write(&found, &target, &name, progress).await,
    };
    written.with_context(|| format!("writing to {target}"))?;
    if let Some(stick) = stick {
        unplug(stick, progress).await?;
    }
    let (digest, path) = (image.name_by_digest(), to.path.display());
    progress.tell(Event::Done(format!("saved {digest} to {path} as {name}")));
    Ok(())
}

/// Writes everything out to the stick, which takes a while.
async fn unplug(stick: Stick, progress: &Progress) -> Result<()> {
    let shown = stick.to_string();
    progress.note(format!("writing everything out to {shown}"));
    let _writing = progress.waiting(Wait::new(format!("writing everything out to {shown}")));
    let alone = apart(|| stick.close()).await?;
    progress.note(if alone {
        format!("{shown} is unmounted: it can be unplugged")
    } else {
        format!("{shown} is written; it is mounted elsewhere as well: unmount it there before unplugging it")
    });
    Ok(())
}
