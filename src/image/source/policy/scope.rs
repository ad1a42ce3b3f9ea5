//! Which scopes of a policy an image is in. Each transport has its own, as containers/image has them.

use std::fs;
use std::iter::successors;
use std::path::Path;

use anyhow::{Context, Result};

use crate::image::oci::Reference;
use crate::image::source::name::{Form, ImageName};

/// An image as policies see it.
pub struct Scopes {
    /// How the image is brought here: `docker` is a registry.
    pub transport: &'static str,
    /// The image itself, then what it is in.
    pub from_narrow_to_wide: Vec<String>,
}

impl Scopes {
    /// The scopes that `image` is in; `at` is where its file is, if not where it says.
    pub fn of(image: &ImageName, at: Option<&Path>) -> Result<Self> {
        Ok(match image {
            ImageName::Registry(reference) => Self {
                transport: "docker",
                from_narrow_to_wide: of_reference(reference),
            },
            ImageName::Local { form, path, .. } => Self {
                transport: form.transport(),
                from_narrow_to_wide: match form {
                    Form::Layout | Form::Archive => of_path(at.unwrap_or(path))?,
                    Form::DockerArchive => Vec::new(),
                },
            },
        })
    }
}

/// The image, its repository, the namespaces around that, the host with its port, and the domains around the
/// host.
fn of_reference(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let image = match reference.digest() {
        Some(digest) => format!("{name}@{digest}"),
        None => format!("{name}:{}", reference.selector()),
    };
    let host = reference.registry().split(':').next().unwrap_or_default();
    let repositories = successors(Some(name.as_str()), |name| Some(name.rsplit_once('/')?.0));
    let domains = successors(Some(host), |name| Some(name.split_once('.')?.1));
    let wildcards = domains.skip(1).map(|domain| format!("*.{domain}"));
    let repositories = repositories.map(str::to_owned);
    [image].into_iter().chain(repositories).chain(wildcards).collect()
}

/// The file or directory, and those around it but `/`, without symbolic links.
fn of_path(path: &Path) -> Result<Vec<String>> {
    let whole = fs::canonicalize(path).with_context(|| format!("following {}", path.display()))?;
    let inner = whole.ancestors().filter(|path| path.parent().is_some());
    Ok(inner.map(|path| path.to_string_lossy().into_owned()).collect())
}
