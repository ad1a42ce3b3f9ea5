//! What the image's programs can reach: a network namespace that holds nothing but loopback, and on that the relay, which answers
//! for this one image under its own name.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bootc::arguments::SSH_KEYS_PATH;
use crate::container::Network;
use crate::container::relay::{self, Blobs, Relay};
use crate::image::oci::Image;
use crate::image::overlay::ExtraFile;
use crate::image::root::{FoundImage, Root};
use crate::sys::net::loopback_only_namespace;

/// What the image's programs can reach while the image installs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkAccess {
    /// Nothing but the image itself.
    None,
    /// Whatever this machine can reach.
    Host,
}

/// The network of the container, with a socket in it that is ours.
pub struct Seal {
    namespace: Option<OwnedFd>,
    listener: TcpListener,
}

impl Seal {
    /// Makes the network.
    pub fn new(access: NetworkAccess) -> Result<Self> {
        match access {
            NetworkAccess::None => {
                let (namespace, listener) =
                    loopback_only_namespace().context("making a network for the container")?;
                Ok(Self {
                    namespace: Some(namespace),
                    listener,
                })
            }
            NetworkAccess::Host => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding to 127.0.0.1")?;
                Ok(Self {
                    namespace: None,
                    listener,
                })
            }
        }
    }

    /// The network, as the sandbox has it.
    pub fn network(&self) -> Network {
        match &self.namespace {
            // The helper process opens it by this path.
            Some(namespace) => Network::Namespace(
                format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()).into(),
            ),
            None => Network::Host,
        }
    }

    /// The files by which the image's skopeo finds the relay and trusts it. The image's own signature policy stays where
    /// it was asked to decide.
    pub fn files(&self, image: &Image, keep_policy: bool, ssh_keys: Option<&[u8]>) -> Result<Vec<ExtraFile>> {
        let address = self.listener.local_addr().context("getsockname")?;
        let file = |path, content: &[u8]| ExtraFile {
            path,
            content: content.into(),
        };
        let map = relay::registries_conf(&image.reference, address);
        let mut files = vec![file(
            "etc/containers/registries.conf.d/zz-landfall.conf",
            map.as_bytes(),
        )];
        if !keep_policy {
            files.push(file(
                "etc/containers/policy.json",
                relay::policy_json(image).as_bytes(),
            ));
        }
        files.extend(ssh_keys.map(|keys| file(SSH_KEYS_PATH, keys)));
        Ok(files)
    }

    /// Starts answering for the image.
    pub fn serve(&self, found: &FoundImage, root: &Root) -> Result<Relay> {
        let listener = self.listener.try_clone().context("dup")?;
        let blobs = Blobs {
            cached: root.kept_blobs(&found.image)?,
            source: Arc::clone(&found.source),
        };
        Relay::serve(listener, Arc::clone(&found.image), blobs).context("starting the relay")
    }
}
