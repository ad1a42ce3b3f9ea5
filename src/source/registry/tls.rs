//! TLS: which certificate authorities are believed.
//!
//! The system's bundle if there is one, else Mozilla's that is built in (a ramdisk often carries none), and what the
//! user adds. The certificates are always given to rustls by us: the HTTP client's own verifier panics on a system
//! without any.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Where distributions keep their bundle of certificates.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Certificates must be signed by a known authority, or by one in this PEM file.
    Verify {
        /// More authorities.
        ca_cert: Option<PathBuf>,
    },
    /// Anybody: the names and the dates in certificates don't matter either.
    Anybody,
}

/// The TLS configuration for `trust`.
pub fn client_config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?;
    Ok(match trust {
        Trust::Verify { ca_cert } => builder
            .with_root_certificates(authorities(ca_cert.as_deref())?)
            .with_no_client_auth(),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
            .with_no_client_auth(),
    })
}

fn authorities(ca_cert: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let bundle = system_bundle().unwrap_or_else(|| webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec());
    // A bundle may hold oddities that rustls can't use; the others still count.
    store.add_parsable_certificates(bundle);
    if let Some(path) = ca_cert {
        let doing = || format!("reading certificate authorities from {}", path.display());
        let certificates = read_pem(path).with_context(doing)?;
        ensure!(
            !certificates.is_empty(),
            "{}: it holds no PEM certificate",
            doing()
        );
        for certificate in certificates {
            store.add(certificate).with_context(doing)?;
        }
    }
    Ok(store)
}

/// The certificates of this system's bundle; `None` where there is none, or none that can be used.
fn system_bundle() -> Option<Vec<CertificateDer<'static>>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = SYSTEM_BUNDLES.iter().map(PathBuf::from);
    named
        .into_iter()
        .chain(usual)
        .filter_map(|path| read_pem(&path).ok())
        .find(|found| !found.is_empty())
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(path)?;
    Ok(CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>()?)
}

/// Believes every certificate; signatures are still checked, so that what is encrypted is for whom we talk to.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_bundle_is_usable() {
        let mut store = RootCertStore::empty();
        let (added, ignored) =
            store.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        assert!(added > 50 && ignored == 0, "{added} added, {ignored} ignored");
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        for (path, expected) in [
            (path, "holds no PEM certificate"),
            ("/nonexistent/ca.pem".into(), "No such file"),
        ] {
            let trust = Trust::Verify { ca_cert: Some(path) };
            let error = format!("{:#}", client_config(&trust).unwrap_err());
            assert!(error.contains(expected) && error.contains("ca.pem"), "{error}");
        }
    }

    #[test]
    fn configurations_are_made_for_both_kinds_of_trust() {
        assert!(client_config(&Trust::Verify { ca_cert: None }).is_ok());
        assert!(client_config(&Trust::Anybody).is_ok());
    }
}
