//! From an image's name, what was typed and what is configured to the endpoints that are asked for it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use super::auth::Authenticator;
use super::config::certs::Certificates;
use super::config::credentials::Known;
use super::config::keys::{Keys, Search};
use super::config::pull_secret;
use super::config::registries::{Location, RegistriesConf};
use super::endpoint::Endpoint;
use super::http::Http;
use super::options::Options;
use super::tls::Trust;
use crate::image::oci::Reference;

/// What all endpoints of an image have in common.
struct Setup<'a> {
    image: &'a Reference,
    options: &'a Options,
    conf: RegistriesConf,
    /// For the image's own registry alone: a mirror must not see it.
    pull_secret: Option<Known>,
    /// The files that this user may not read and was told of.
    left_out: RefCell<BTreeSet<PathBuf>>,
}

/// The endpoints for `image`, in the order in which they are asked. A mirror that can't be set up is left
/// out.
pub fn endpoints(image: &Reference, options: &Options) -> Result<Vec<Endpoint>> {
    let files = options.places.registries_conf(options.registries_conf.as_deref());
    let setup = Setup {
        image,
        options,
        conf: RegistriesConf::load(&files)?,
        pull_secret: options
            .pull_secret
            .as_deref()
            .map(pull_secret::read)
            .transpose()?,
        left_out: RefCell::default(),
    };
    let locations = setup.conf.locations(image, &options.mirrors)?;
    let (last, mirrors) = locations.split_last().context("no registry is left")?;
    let mut endpoints = Vec::new();
    for mirror in mirrors {
        match setup.endpoint(mirror) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => options
                .progress
                .warn(format!("skipping the mirror {}: {error:#}", mirror.reference)),
        }
    }
    endpoints.push(setup.endpoint(last)?);
    Ok(endpoints)
}

impl Setup<'_> {
    fn endpoint(&self, location: &Location) -> Result<Endpoint> {
        let (options, at) = (self.options, &location.reference);
        let anybody = !options.tls_verify || location.insecure && options.heed_insecure;
        let certificates = Certificates::find(at.registry(), &options.places)?;
        let mut trust = Trust {
            anybody,
            client: certificates.client,
            ..options.trust()
        };
        trust.authorities.extend(certificates.authorities);
        Ok(Endpoint {
            name: at.registry().into(),
            host: real_host(at.registry()).into(),
            repository: at.repository().into(),
            selector: at.selector(),
            plain_allowed: anybody,
            http: Http::new(&trust, options.timeouts.clone(), &options.proxies())?,
            auth: Authenticator::new(at.repository(), self.keys(at)?, anybody),
            scheme: OnceCell::new(),
        })
    }

    fn keys(&self, at: &Reference) -> Result<Keys> {
        match &self.pull_secret {
            Some(known) if at.registry() == self.image.registry() => {
                Ok(Keys::only(at.registry(), known.clone()))
            }
            _ => {
                let search = Search {
                    authfile: self.options.authfile.as_deref(),
                    helpers: self.conf.credential_helpers.as_deref(),
                    places: &self.options.places,
                };
                let keys = Keys::search(at.registry(), at.repository(), &search)?;
                self.tell_left_out(&keys.left_out);
                Ok(keys)
            }
        }
    }

    /// Each file once, whoever's credentials are looked for in it.
    fn tell_left_out(&self, paths: &[PathBuf]) {
        for path in paths {
            if self.left_out.borrow_mut().insert(path.clone()) {
                self.options.progress.warn(format!(
                    "skipping {}: this user may not read it; for credentials set HOME, or give --authfile",
                    path.display()
                ));
            }
        }
    }
}

/// The host that serves a registry's API: Docker's is at another place than its name says.
fn real_host(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}
