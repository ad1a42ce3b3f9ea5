//! TLS: which certificate authorities are trusted, and which client certificates we have.
//!
//! The system's bundle if there is one, else Mozilla's that is built in (a ramdisk often carries none), and
//! what the user adds. The certificates are always given to rustls by us: the HTTP client's own verifier
//! panics on a system without any.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use zeroize::Zeroizing;

/// Where distributions keep their bundle of certificates.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which servers to trust, and our own certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether every server is trusted: the names and the dates in certificates don't matter either.
    /// Otherwise certificates must be signed by a known authority.
    pub anybody: bool,
    /// Files (PEM) with more authorities.
    pub authorities: Vec<PathBuf>,
    /// Our certificates, for servers that ask for one.
    pub client: Vec<ClientCertificate>,
}

/// A certificate of our own, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, with those between it and an authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The TLS configuration for `trust`.
pub fn client_config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?;
    let builder = if trust.anybody {
        let verifier = Arc::new(NoVerification(provider.clone()));
        builder.dangerous().with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(authorities(&trust.authorities)?)
    };
    if trust.client.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let identities = Identities::load(&trust.client, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(identities)))
}

fn authorities(files: &[PathBuf]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let bundle = system_bundle().unwrap_or_else(|| webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec());
    // A bundle may hold oddities that rustls can't use; the others still count.
    store.add_parsable_certificates(bundle);
    for path in files {
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

/// Our certificates, of which a server gets one from an authority that it names.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl Identities {
    fn load(files: &[ClientCertificate], provider: &CryptoProvider) -> Result<Self> {
        let load = |ClientCertificate { certificate, key }: &ClientCertificate| {
            let doing = || format!("reading the client certificate {}", certificate.display());
            let chain = read_pem(certificate).with_context(doing)?;
            ensure!(!chain.is_empty(), "{}: it holds no PEM certificate", doing());
            let doing = || format!("reading the key {} of {}", key.display(), certificate.display());
            let pem = Zeroizing::new(std::fs::read(key).with_context(doing)?);
            // The parser's error could show what it stumbled over.
            let key = PrivateKeyDer::from_pem_slice(&pem).ok();
            let key =
                key.with_context(|| format!("{}: it holds no PEM key without a passphrase", doing()))?;
            let identity = CertifiedKey::from_der(chain, key, provider).with_context(doing)?;
            Ok(Arc::new(identity))
        };
        files.iter().map(load).collect::<Result<_>>().map(Self)
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // An issuer's name is in a certificate byte by byte as the server names it.
        let issued = |identity: &&Arc<CertifiedKey>| {
            authorities.iter().any(|name| {
                let mut chain = identity.cert.iter();
                chain.any(|certificate| certificate.windows(name.len()).any(|part| part == *name))
            })
        };
        let usable = || {
            self.0
                .iter()
                .filter(|identity| identity.key.choose_scheme(schemes).is_some())
        };
        usable().find(issued).or(usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Trusts every certificate; signatures are still checked, so that only the server that we talk to can
/// decrypt.
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
            let trust = Trust {
                authorities: vec![path],
                ..Trust::default()
            };
            let error = format!("{:#}", client_config(&trust).unwrap_err());
            assert!(error.contains(expected) && error.contains("ca.pem"), "{error}");
        }
    }

    #[test]
    fn a_client_certificate_that_cannot_be_used_is_named_without_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let client = ClientCertificate {
            certificate: folder.path().join("a.cert"),
            key: folder.path().join("a.key"),
        };
        let trust = Trust {
            client: vec![client.clone()],
            ..Trust::default()
        };
        let certificate = webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].as_ref();
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
        let certificate = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        for (certificate, key, expected) in [
            (None, None, "a.cert: No such file"),
            (Some("s3cret"), None, "a.cert: it holds no PEM certificate"),
            (Some(certificate.as_str()), None, "a.key of"),
            (
                Some(&certificate),
                Some("s3cret"),
                "it holds no PEM key without a passphrase",
            ),
        ] {
            for (path, content) in [(&client.certificate, certificate), (&client.key, key)] {
                if let Some(content) = content {
                    std::fs::write(path, content).unwrap();
                }
            }
            let error = format!("{:#}", client_config(&trust).unwrap_err());
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn configurations_are_made_for_both_kinds_of_trust() {
        for anybody in [false, true] {
            let trust = Trust {
                anybody,
                ..Trust::default()
            };
            assert!(client_config(&trust).is_ok());
        }
    }
}
