//! What the image's programs can reach: a network namespace that holds nothing but loopback, and on that the
//! relay, which answers for this one image under its own name.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::relay::{self, Blobs, Place, Relay};
use crate::image::oci::Image;
use crate::image::overlay::ExtraFile;
use crate::image::root::Root;
use crate::sys::net::loopback_only_namespace;

/// What the image's programs can reach while the image installs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkAccess {
    /// Nothing but the image itself.
    None,
    /// Everything that this machine can reach.
    Host,
}

/// The network of the container, with a place in it that is ours.
pub struct Network {
    /// A namespace of its own, and the path to it.
    namespace: Option<(OwnedFd, PathBuf)>,
    place: Place,
}

impl Network {
    pub fn new(access: NetworkAccess) -> Result<Self> {
        if access == NetworkAccess::Host {
            let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding to 127.0.0.1")?;
            return Ok(Self {
                namespace: None,
                place: Place::new(listener)?,
            });
        }
        let (namespace, listener) =
            loopback_only_namespace().context("making a network for the container")?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        Ok(Self {
            namespace: Some((namespace, path.into())),
            place: Place::new(listener)?,
        })
    }

    /// The path by which the helper process opens its namespace, where it has one of its own.
    pub(super) fn namespace(&self) -> Option<&Path> {
        self.namespace.as_ref().map(|(_, path)| path.as_path())
    }

    /// The files by which the image's skopeo finds the relay and trusts it. The image's own signature policy
    /// stays where it was asked to decide.
    pub fn files(&self, image: &Image, keep_policy: bool) -> Result<Vec<ExtraFile>> {
        let mut files = vec![ExtraFile {
            path: "etc/containers/registries.conf.d/zz-landfall.conf",
            content: relay::registries_conf(&image.reference, &self.place).into(),
        }];
        if !keep_policy {
            files.push(ExtraFile {
                path: "etc/containers/policy.json",
                content: relay::policy_json(image).into(),
            });
        }
        Ok(files)
    }

    /// Serves `image`, which is mounted at `root`.
    pub fn serve(&self, image: &Arc<Image>, root: &Root) -> Result<Relay> {
        let blobs = Blobs {
            cached: root.kept_blobs().clone(),
            source: root.source(),
        };
        Relay::serve(&self.place, Arc::clone(image), blobs).context("starting the relay")
    }
}
