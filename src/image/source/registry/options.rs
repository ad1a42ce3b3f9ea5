//! How to speak to registries, as the user wants it.

use std::path::PathBuf;
use std::{fs, iter};

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
    /// The way out, if it isn't what the environment says. That is looked up when it's needed, so that no copy
    /// of a proxy's password is kept here.
    pub proxies: Option<ProxySettings>,
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
            proxies: None,
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

    /// The way out.
    pub(in crate::image::source) fn proxies(&self) -> ProxySettings {
        self.proxies
            .clone()
            .unwrap_or_else(ProxySettings::from_environment)
    }

    /// The files with credentials and keys that are there, also where this image needs none of them. They were
    /// read when an image has been found; nobody opens them again. Links are followed to their ends.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let given = iter::chain(&self.pull_secret, &self.authfile).cloned();
        let files = given.chain(self.places.secret_files());
        let mut files: Vec<_> = files
            .filter_map(|path| fs::canonicalize(path).ok())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files.dedup();
        files
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn files_with_secrets_are_those_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let make = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let certs = "etc/containers/certs.d/reg.lab:5000";
        for other in ["ca.crt", "a.cert", "notes"] {
            make(&format!("{certs}/{other}"));
        }
        make("etc/containers/registries.conf");
        let mut expected: Vec<_> = [
            "a-pull-secret",
            "an-auth-file",
            "etc/docker/certs.d/x/b.key",
            "root/.config/containers/auth.json",
            "root/.docker/config.json",
        ]
        .map(make)
        .into();
        expected.push(make(&format!("{certs}/a.key")));
        expected.sort();
        symlink("an-auth-file", root.join("a-link")).unwrap();
        let options = Options {
            pull_secret: Some(root.join("a-pull-secret")),
            authfile: Some(root.join("a-link")),
            places: Places::new(&root, 0, |_| None),
            ..Options::default()
        };
        assert_eq!(options.secret_files(), expected);
        let standard_input = Options {
            pull_secret: Some(Path::new("-").into()),
            ..options
        };
        assert!(
            !standard_input
                .secret_files()
                .contains(&root.join("a-pull-secret"))
        );
    }
}
