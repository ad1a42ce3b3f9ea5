//! `landfall unpack`: the verified, merged root file system of an image, in a directory.

use std::path::Path;

use anyhow::Result;

use crate::console::progress::{Event, Phase, Progress};
use crate::image::pull::{self, Options};
use crate::image::root::{self, Wanted};

/// Unpacks the image into `to`, which must not exist or be empty.
pub async fn unpack(wanted: &Wanted, to: &Path, progress: &Progress) -> Result<()> {
    root::check_root()?;
    let found = root::find(wanted, progress).await?;
    progress.enter(Phase::Pull);
    pull::unpack_to(found.source, &found.image, to, &Options::default(), progress).await?;
    progress.tell(Event::Done(format!(
        "unpacked {} into {}",
        found.image.name_by_digest(),
        to.display()
    )));
    Ok(())
}
