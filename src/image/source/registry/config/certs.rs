//! containers-certs.d(5): a directory of certificates for each host.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::places::Places;
use crate::image::source::registry::tls::ClientCertificate;

/// What a directory of certificates has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities: `*.crt`.
    pub authorities: Vec<PathBuf>,
    /// Client certificates: `*.cert`, each with its `*.key`.
    pub client: Vec<ClientCertificate>,
}

impl Certificates {
    /// Those for `host` (`HOST[:PORT]`), from the first directory that exists.
    pub fn find(host: &str, places: &Places) -> Result<Self> {
        let directories = places.certs(host);
        match directories.iter().find(|path| path.is_dir()) {
            Some(directory) => {
                let doing = || format!("reading the certificates in {}", directory.display());
                Self::read(directory).with_context(doing)
            }
            None => Ok(Self::default()),
        }
    }

    fn read(directory: &Path) -> Result<Self> {
        let entries = match fs::read_dir(directory) {
            // Other users' certificates aren't for us.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Self::default()),
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.path()));
        let names: BTreeSet<PathBuf> = names.collect::<std::io::Result<_>>()?;
        let mut found = Self::default();
        for path in &names {
            let other = |extension: &str| path.with_extension(extension);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.push(path.clone()),
                Some("cert") if !names.contains(&other("key")) => bail!(
                    "{} is missing: it is the key of the client certificate {} (CA certificates are named \
                     *.crt)",
                    other("key").display(),
                    path.display()
                ),
                Some("cert") => found.client.push(ClientCertificate {
                    certificate: path.clone(),
                    key: other("key"),
                }),
                Some("key") if !names.contains(&other("cert")) => bail!(
                    "{} is missing: it is the client certificate of the key {}",
                    other("cert").display(),
                    path.display()
                ),
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_are_called_is_what_they_are() {
        for (files, expected) in [
            (&[][..], Ok((0, 0))),
            (&["ca.crt", "other.crt", "notes.txt"], Ok((2, 0))),
            (&["a.cert", "a.key", "ca.crt", "b.cert", "b.key"], Ok((1, 2))),
            (
                &["a.cert"],
                Err("a.key is missing: it is the key of the client certificate"),
            ),
            (
                &["a.key", "b.cert", "b.key"],
                Err("a.cert is missing: it is the client certificate of the key"),
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            let places = Places::new(root.path(), 0, |_| None);
            let directory = root.path().join("etc/containers/certs.d/reg.lab:5000");
            fs::create_dir_all(&directory).unwrap();
            for file in files {
                fs::write(directory.join(file), "").unwrap();
            }
            let found = Certificates::find("reg.lab:5000", &places);
            match (found, expected) {
                (Ok(found), Ok(counts)) => assert_eq!((found.authorities.len(), found.client.len()), counts),
                (Err(error), Err(expected)) => {
                    let error = format!("{error:#}");
                    assert!(
                        error.contains(expected) && error.contains("reg.lab:5000"),
                        "{error}"
                    );
                }
                (found, _) => panic!("{files:?}: {found:?}"),
            }
            assert_eq!(
                Certificates::find("reg.lab", &places).unwrap(),
                Certificates::default()
            );
        }
    }

    #[test]
    fn the_first_directory_counts() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::new(root.path(), 0, |_| None);
        for directory in ["etc/docker", "etc/containers", "root/.config/containers"] {
            let directory = root.path().join(directory).join("certs.d/reg.lab");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("ca.crt"), "").unwrap();
            let found = Certificates::find("reg.lab", &places).unwrap();
            assert_eq!(found.authorities, [directory.join("ca.crt")]);
        }
    }
}
