//! How to speak to registries, as the user wants it.

use std::path::PathBuf;

use super::config::places::Places;
use super::http::Timeouts;
use super::proxy::Settings as ProxySettings;
use super::retry::Policy;
use super::tls::Trust;
use crate::console::progress::Progress;

/// How to speak to registries.
#[derive(Clone)]
pub struct Options {
    /// The only containers-auth.json that counts.
    pub authfile: Option<PathBuf>,
    /// A file with a secret for the image's own registry; `-` is standard input.
    pub pull_secret: Option<PathBuf>,
    /// The registries.conf that counts.
    pub registries_conf: Option<PathBuf>,
    /// Mirrors to be asked before all others: `HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Certificate authorities to trust besides the system's, PEM.
    pub ca_cert: Option<PathBuf>,
    /// Whether TLS must be there and must be right. Without, any certificate will do, and plain HTTP too.
    pub tls_verify: bool,
    /// Whether registries.conf may say otherwise of a registry (`insecure`).
    pub heed_insecure: bool,
    /// Where configuration files are.
    pub places: Places,
    /// The way out.
    pub proxies: ProxySettings,
    /// How often to try again.
    pub policy: Policy,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Where retries are told.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            authfile: None,
            pull_secret: None,
            registries_conf: None,
            mirrors: Vec::new(),
            ca_cert: None,
            tls_verify: true,
            heed_insecure: true,
            places: Places::usual(),
            proxies: ProxySettings::from_environment(),
            policy: Policy::default(),
            timeouts: Timeouts::default(),
            progress: Progress::silent(),
        }
    }
}

impl Options {
    /// The same, with retries told to `progress`.
    pub fn telling(&self, progress: &Progress) -> Self {
        Self {
            progress: progress.clone(),
            ..self.clone()
        }
    }

    /// Which servers to trust, where no registry is concerned.
    pub fn trust(&self) -> Trust {
        Trust {
            anybody: !self.tls_verify,
            authorities: self.ca_cert.iter().cloned().collect(),
            client: Vec::new(),
        }
    }
}
