//! `landfall pull`: an image as an OCI image layout (image-spec `image-layout.md`), for a USB stick that brings it to a
//! place without a network, or for a mirror.
//!
//! Every blob is compared with its digest; manifest and config are kept to the byte, so the image keeps its digest. A
//! pull that was stopped goes on where it was, also inside a layer.

mod archive;
mod directory;
mod fetch;
mod index;

use anyhow::Result;

use crate::cli::{self, Destination, DestinationForm};
use crate::oci::{Descriptor, Image};
use crate::progress::{Event, Phase, Progress};
use crate::session;

/// Pulls the image that was typed to `to`.
pub async fn save(typed: &cli::Image, to: &Destination, progress: &Progress) -> Result<()> {
    let found = session::find(typed, progress).await?;
    let image = &*found.image;
    progress.tell(Event::Phase(Phase::Save));
    progress.tell(Event::PullStarted {
        layers: image.layers.len(),
        compressed_bytes: image.compressed_bytes(),
    });
    let name = to.name.clone().unwrap_or_else(|| image.reference.update_name());
    match to.form {
        DestinationForm::Directory => directory::write(&found, &to.path, &name, progress).await?,
        DestinationForm::Archive => archive::write(&found, &to.path, &name, progress).await?,
    }
    progress.note(format!(
        "{} is there as {name}, digest {}",
        image.reference, image.digest
    ));
    Ok(())
}

/// The layers of `image`, each blob once, with the number of its layer.
fn layers(image: &Image) -> Vec<(usize, &Descriptor)> {
    let mut layers: Vec<(usize, &Descriptor)> = Vec::new();
    for layer in &image.layers {
        if !layers
            .iter()
            .any(|(_, blob)| blob.digest() == layer.blob.digest())
        {
            layers.push((layer.index, &layer.blob));
        }
    }
    layers
}
