//! A private CA, by openssl, as labs make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command;

/// The names and addresses that a registry here is reached by: from here, from virtual machines, through a
/// proxy.
pub const SERVER_NAMES: [&str; 4] = ["DNS:localhost", "IP:127.0.0.1", "IP:10.0.2.2", "DNS:registry.lab"];

/// A certificate authority with its key.
pub struct Authority {
    /// Its own certificate, PEM.
    pub certificate: PathBuf,
    key: PathBuf,
    directory: PathBuf,
}

/// A certificate with its key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority; its files go to `directory`.
    pub fn new(directory: &Path) -> Result<Self> {
        let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
        let new = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let about = ["-days", "3650", "-subj", "/CN=Landfall test CA"];
        command::run(
            Command::new("openssl")
                .args(new)
                .args(about)
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate),
        )?;
        Ok(Self {
            certificate,
            key,
            directory: directory.into(),
        })
    }

    /// Signs a new certificate for these subject alternative names (`DNS:…`, `IP:…`), for servers and
    /// clients.
    pub fn issue(&self, name: &str, alternative_names: &[&str]) -> Result<Identity> {
        let path = |extension: &str| self.directory.join(format!("{name}.{extension}"));
        let (key, request, certificate, extensions) = (path("key"), path("csr"), path("pem"), path("ext"));
        let new = [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let subject = format!("/CN={name}");
        command::run(
            Command::new("openssl")
                .args(new)
                .args(["-subj", &subject, "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&request),
        )?;
        let names = alternative_names.join(",");
        fs::write(
            &extensions,
            format!(
                "subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
            ),
        )?;
        command::run(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "825", "-CAcreateserial", "-in"])
                .arg(&request)
                .arg("-CA")
                .arg(&self.certificate)
                .arg("-CAkey")
                .arg(&self.key)
                .arg("-extfile")
                .arg(&extensions)
                .arg("-out")
                .arg(&certificate),
        )?;
        Ok(Identity { certificate, key })
    }
}
