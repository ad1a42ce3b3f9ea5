//! Where a pulled image is kept.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::image::oci::reference::Selector;
use crate::image::source::name::{Form, ImageName};
use crate::machine::labelled::{self, Place};

/// Where an image is kept, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Directory or archive.
    pub form: DestinationForm,
    /// Where that is.
    pub path: PathBuf,
    /// The name of the image in it; without one, its own.
    pub name: Option<String>,
}

/// The two forms of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationForm {
    /// A directory.
    Directory,
    /// A tar archive of one.
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
        check_label(form, &path)?;
        let form = match form {
            Form::Layout => DestinationForm::Directory,
            Form::Archive => DestinationForm::Archive,
            Form::DockerArchive => {
                return Err(format!("images cannot be written as docker-archive: {usage}"));
            }
        };
        let name = match selector {
            None => None,
            Some(Selector::Tag(name)) => Some(name),
            Some(Selector::Digest(_)) => {
                return Err(format!(
                    "a digest cannot be chosen, the image has its own: {usage}"
                ));
            }
        };
        Ok(Self { form, path, name })
    }
}

/// A place on a stick must not become a directory named `LABEL=…`.
fn check_label(form: Form, path: &Path) -> Result<(), String> {
    if !path.to_string_lossy().starts_with(labelled::PREFIX) {
        return Ok(());
    }
    match Place::parse(path) {
        None => Err(format!(
            "{} names no file system: write LABEL=STICK/PATH",
            path.display()
        )),
        Some(place) if form == Form::Archive && place.path.as_os_str().is_empty() => {
            Err(format!("{place} is a file system: write LABEL=STICK/FILE"))
        }
        Some(_) => Ok(()),
    }
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
            (
                "oci:LABEL=STICK/os:1.4",
                at(Directory, "LABEL=STICK/os", Some("1.4")),
            ),
            ("oci:LABEL=STICK", at(Directory, "LABEL=STICK", None)),
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
        for text in [
            "oci:LABEL=",
            "oci:LABEL=/os",
            "oci:LABEL=A/../os",
            "oci-archive:LABEL=A",
        ] {
            assert!(
                text.parse::<Destination>().unwrap_err().contains("LABEL=STICK/"),
                "{text}"
            );
        }
    }
}
