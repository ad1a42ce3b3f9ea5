//! What a user types for an image, wherever it is: a registry's name for it, or a file or directory that
//! holds it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::file::Named;
use super::layout::OciLayout;
use super::registry::{Options, Registry};
use super::resolve::resolve_selected;
use super::{Source, docker_archive::DockerArchive};
use crate::image::oci::reference::{ReferenceError, Selector};
use crate::image::oci::{Image, Platform, Reference};
use crate::sys::blocking::apart;

/// An image and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageName {
    /// In a registry: `REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
    Registry(Reference),
    /// In a directory or file: `FORM:PATH[:TAG|@DIGEST]`.
    Local {
        /// What is there.
        form: Form,
        /// Where that is.
        path: PathBuf,
        /// Which image of those there; `None` for the only one.
        selector: Option<Selector>,
    },
}

/// How an image is kept without a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout in a directory: `oci:`.
    Layout,
    /// An OCI image layout in a tar archive: `oci-archive:`.
    Archive,
    /// What `docker save` and `podman save` write: `docker-archive:`.
    DockerArchive,
}

impl Form {
    /// What the container tools call it.
    pub fn transport(self) -> &'static str {
        match self {
            Self::Layout => "oci",
            Self::Archive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

/// A source that was opened, and what to ask it for.
pub struct Opened {
    /// The source.
    pub source: Arc<dyn Source>,
    /// The image's name. One that comes from no registry has the name that it was stored with, or one on
    /// `localhost`.
    pub reference: Reference,
    /// What the source is to be asked for.
    pub selector: Selector,
}

impl FromStr for ImageName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match local_form(text) {
            Some((form, rest)) => {
                let (path, selector) =
                    split(rest).map_err(|why| ReferenceError::Malformed(text.into(), why))?;
                Ok(Self::Local {
                    form,
                    path: path.into(),
                    selector,
                })
            }
            None => text.parse().map(Self::Registry),
        }
    }
}

/// The form that a name's beginning says, and the rest; `None` for a registry's name.
fn local_form(name: &str) -> Option<(Form, &str)> {
    let (transport, rest) = name.split_once(':')?;
    let mut forms = [Form::Layout, Form::Archive, Form::DockerArchive].into_iter();
    let form = forms.find(|form| form.transport() == transport)?;
    // `oci://` is Ironic's way to say that a name is a registry's.
    (!rest.starts_with("//")).then_some((form, rest))
}

/// `PATH[:TAG|@DIGEST]`. As with the other container tools, a path can't hold a colon.
fn split(text: &str) -> Result<(&str, Option<Selector>), String> {
    let (path, selector) = match (text.split_once('@'), text.split_once(':')) {
        (Some((path, digest)), _) if digest.contains(':') => {
            let digest = digest
                .parse()
                // The parser's own words have the text in them as it is, lines and all.
                .map_err(|_| format!("{digest:?} is not a digest"))?;
            (path, Some(Selector::Digest(digest)))
        }
        (_, Some((path, tag))) => (path, Some(Selector::Tag(tag.into()))),
        _ => (text, None),
    };
    if path.is_empty() {
        Err("it names no file".into())
    } else {
        Ok((path, selector))
    }
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A registry may be called `oci`.
            Self::Registry(reference) => match local_form(&reference.to_string()) {
                Some(_) => write!(out, "oci://{reference}"),
                None => write!(out, "{reference}"),
            },
            Self::Local { form, path, selector } => {
                write!(out, "{}:{}", form.transport(), path.display())?;
                match selector {
                    Some(Selector::Tag(tag)) => write!(out, ":{tag}"),
                    Some(Selector::Digest(digest)) => write!(out, "@{digest}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl ImageName {
    /// The file or directory that holds the image, unless that is a registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::Local { path, .. } => Some(path),
        }
    }

    /// Opens the source that this names; `at` is where its file is, if not where it says. A registry isn't
    /// asked yet.
    pub async fn open(&self, options: &Options, at: Option<PathBuf>) -> Result<Opened> {
        let (form, path, selector) = match self {
            Self::Registry(reference) => {
                return Ok(Opened {
                    source: Arc::new(prepared(reference, options).await?),
                    reference: reference.clone(),
                    selector: reference.selector(),
                });
            }
            Self::Local { form, path, selector } => (form, path, selector.as_ref()),
        };
        let mut file = Named::plain(path);
        file.path = at.unwrap_or(file.path);
        match form {
            Form::Layout => open_layout(OciLayout::open_directory(&file).await?, path, selector),
            Form::Archive => open_layout(OciLayout::open_archive(&file).await?, path, selector),
            Form::DockerArchive => {
                let archive = DockerArchive::open(&file, selector).await?;
                let name = archive.name().map(str::to_string);
                let selector = Selector::Digest(archive.digest().clone());
                let reference = local_reference(name.as_deref(), path, None);
                Ok(Opened {
                    source: Arc::new(archive),
                    reference,
                    selector,
                })
            }
        }
    }
}

impl Opened {
    /// Finds the image for `platform`.
    pub async fn resolve(&self, platform: &Platform) -> Result<Image> {
        resolve_selected(&*self.source, &self.selector, &self.reference, platform).await
    }
}

/// A pull secret may come from standard input, and any file may be a pipe.
async fn prepared(reference: &Reference, options: &Options) -> Result<Registry> {
    let (reference, options) = (reference.clone(), options.clone());
    apart(move || Registry::new(&reference, &options)).await
}

fn open_layout(layout: OciLayout, path: &Path, selector: Option<&Selector>) -> Result<Opened> {
    let selector = selector.cloned().or(layout.only()).with_context(|| {
        format!(
            "{} has several images: choose one with :TAG or @DIGEST ({})",
            path.display(),
            layout.names().join(", ")
        )
    })?;
    let tag = match &selector {
        Selector::Tag(tag) => Some(tag.as_str()),
        Selector::Digest(digest) => layout.name_of(digest),
    };
    let reference = local_reference(tag, path, tag);
    Ok(Opened {
        source: Arc::new(layout),
        reference,
        selector,
    })
}

/// The name of an image that comes from no registry: the one it was stored with, if that is a whole one; else
/// one that is made of the file's.
fn local_reference(stored: Option<&str>, path: &Path, tag: Option<&str>) -> Reference {
    let file = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let made = match tag {
        Some(tag) => format!("localhost/{file}:{tag}"),
        None => format!("localhost/{file}"),
    };
    let candidates = [stored.unwrap_or_default(), &made, "localhost/image"];
    let whole = candidates.iter().find_map(|name| name.parse().ok());
    whole.expect("the last candidate is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_of_every_form() {
        let tag = |tag: &str| Some(Selector::Tag(tag.into()));
        let digest = || Some(Selector::Digest(DIGEST.parse().unwrap()));
        for (text, form, path, selector) in [
            ("oci:/mnt/stick/os".into(), Form::Layout, "/mnt/stick/os", None),
            ("oci:os:1.4".into(), Form::Layout, "os", tag("1.4")),
            (
                "oci:os:reg.lab/web:1".into(),
                Form::Layout,
                "os",
                tag("reg.lab/web:1"),
            ),
            (format!("oci:os@{DIGEST}"), Form::Layout, "os", digest()),
            ("oci-archive:/a/b.tar".into(), Form::Archive, "/a/b.tar", None),
            (
                "docker-archive:b.tar:reg.lab/web:1".into(),
                Form::DockerArchive,
                "b.tar",
                tag("reg.lab/web:1"),
            ),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(
                name,
                ImageName::Local {
                    form,
                    path: path.into(),
                    selector
                },
                "{text}"
            );
            assert_eq!(name.to_string(), text);
        }
        for text in ["oci://reg.lab/web:1", "docker://reg.lab/web:1", "reg.lab/web:1"] {
            assert_eq!(
                text.parse::<ImageName>().unwrap(),
                ImageName::Registry("reg.lab/web:1".parse().unwrap())
            );
        }
        for text in ["oci:", "oci::1", "oci:x@sha256:12", "web"] {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_comes_from_no_registry_has_a_name_all_the_same() {
        for (stored, path, tag, expected) in [
            (
                Some("reg.lab/web:1"),
                "/a/os",
                Some("reg.lab/web:1"),
                "reg.lab/web:1",
            ),
            (Some("1.4"), "/a/os", Some("1.4"), "localhost/os:1.4"),
            (None, "/a/Web.tar", None, "localhost/web"),
            (None, "/a/Ünüsual name", None, "localhost/image"),
        ] {
            assert_eq!(
                local_reference(stored, Path::new(path), tag).to_string(),
                expected
            );
        }
    }
}
