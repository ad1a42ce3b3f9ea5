//! `landfall pull`: an image as an OCI image layout (image-spec `image-layout.md`), for a USB stick that brings it to a
//! place without a network, or for a mirror.
//!
//! Every blob is compared with its digest; manifest and config are kept to the byte, so the image keeps its digest. A
//! pull that was stopped goes on where it was, also inside a layer.

mod archive;
mod directory;
mod fetch;
mod index;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;

use crate::cli;
use crate::oci::reference::Selector;
use crate::oci::{Descriptor, Image};
use crate::progress::{Event, Phase, Progress};
use crate::session;
use crate::source::name::{Form, ImageName};

/// Where an image is kept, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    form: DestinationForm,
    path: PathBuf,
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DestinationForm {
    Directory,
    Archive,
}

impl FromStr for Destination {
    type Err = String;

    /// Parses `oci:DIR[:NAME]` or `oci-archive:FILE[:NAME]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = "write oci:DIR[:NAME] or oci-archive:FILE[:NAME]";
        let Ok(ImageName::Local { form, path, selector }) = text.parse() else {
            return Err(usage.into());
        };
        let form = match form {
            Form::Layout => DestinationForm::Directory,
            Form::Archive => DestinationForm::Archive,
            Form::DockerArchive => return Err(format!("an image is not written as docker-archive: {usage}")),
        };
        let name = match selector {
            None => None,
            Some(Selector::Tag(name)) => Some(name),
            Some(Selector::Digest(_)) => {
                return Err(format!(
                    "a digest can't be chosen, the image has its own: {usage}"
                ));
            }
        };
        Ok(Self { form, path, name })
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let at = |form, path: &str, name: Option<&str>| Destination {
            form,
            path: path.into(),
            name: name.map(Into::into),
        };
        use DestinationForm::{Archive, Directory};
        for (text, expected) in [
            ("oci:/mnt/stick", at(Directory, "/mnt/stick", None)),
            ("oci:os:reg.lab/web:1", at(Directory, "os", Some("reg.lab/web:1"))),
            ("oci-archive:os.tar:1.4", at(Archive, "os.tar", Some("1.4"))),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "/mnt/stick",
            "oci:",
            "docker-archive:os.tar",
            "reg.lab/web:1",
            "oci:os@sha256:12",
        ] {
            assert!(
                text.parse::<Destination>().unwrap_err().contains("oci:DIR"),
                "{text}"
            );
        }
    }
}
