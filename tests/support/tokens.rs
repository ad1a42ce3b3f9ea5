//! A token server (distribution's token specification, and its OAuth2 form) whose tokens a real
//! docker-registry accepts: JSON Web Tokens, signed with ES256 by a certificate of a private authority.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lab::registry::{Builder, Registry, tls::Authority};
use reqwest::Url;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use lab::faulty::{Request, read_request};

/// What the registry calls itself; not made for URLs.
pub const SERVICE: &str = "Lab & registry";
const ISSUER: &str = "landfall's tests";

/// What a token server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub authorization: Option<String>,
    /// The query, or the form for OAuth2.
    pub fields: Vec<(String, String)>,
    /// How many questions came before.
    pub nth: usize,
}

impl Asked {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer. `TOKEN` in the body stands for a token that allows what was asked for, `OLD` for one that did
/// so long ago.
pub type Answer = (u16, &'static str);

/// The server. It lives as long as the test.
pub struct TokenServer {
    port: u16,
    authority: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    issued: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl TokenServer {
    /// Answers as `answer` says.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let folder = lab::tempdir().unwrap();
        let authority = Authority::new(folder.path()).unwrap();
        let identity = authority.issue("tokens", &["DNS:tokens"]).unwrap();
        let signer = Signer::new(
            &fs::read(identity.key).unwrap(),
            &fs::read(identity.certificate).unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let issued = Arc::new(Mutex::new(Vec::new()));
        let (log, tokens) = (asked.clone(), issued.clone());
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                if let Ok(Some((request, body))) = read_request(&mut client) {
                    let asked = note(&request, &body, &log);
                    let token = signer.token(&asked, now());
                    tokens.lock().unwrap().push(token.clone());
                    let _ = send(
                        &mut client,
                        answer(&asked),
                        &token,
                        &signer.token(&asked, 1_000_000),
                    );
                }
            }
        });
        Self {
            port,
            authority: authority.certificate,
            asked,
            issued,
            _folder: folder,
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A registry that wants this server's tokens.
    pub fn registry(&self) -> Builder {
        let token = json!({
            "realm": format!("http://{}/token?from=registry", self.host()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.authority,
        });
        Registry::builder().set("/auth", json!({ "token": token }))
    }

    /// The certificate of the authority that signs for it.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The tokens that it made for its answers, good ones.
    pub fn issued(&self) -> Vec<String> {
        self.issued.lock().unwrap().clone()
    }

    /// All that it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn note(request: &Request, body: &[u8], log: &Mutex<Vec<Asked>>) -> Asked {
    let mut url = Url::parse("http://tokens/").unwrap().join(&request.path).unwrap();
    if request.method == "POST" {
        url.set_query(Some(std::str::from_utf8(body).unwrap()));
    }
    let mut log = log.lock().unwrap();
    let asked = Asked {
        method: request.method.clone(),
        authorization: request.header("authorization").map(Into::into),
        fields: url.query_pairs().into_owned().collect(),
        nth: log.len(),
    };
    log.push(asked.clone());
    asked
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn send(client: &mut TcpStream, (status, body): Answer, token: &str, old: &str) -> std::io::Result<()> {
    let body = body.replace("TOKEN", token).replace("OLD", old);
    let head = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\nretry-after: 0\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes())
}

struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
    random: SystemRandom,
}

impl Signer {
    fn new(key: &[u8], certificate: &[u8]) -> Self {
        let random = SystemRandom::new();
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
        Self {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &random)
                .unwrap(),
            certificate: STANDARD.encode(certificate),
            random,
        }
    }

    /// A token, good for five minutes from `issued_at` on, for all scopes that were asked for.
    fn token(&self, asked: &Asked, issued_at: u64) -> String {
        let scopes = asked.fields.iter().filter(|(name, _)| name == "scope");
        let access: Vec<Value> = scopes
            .flat_map(|(_, scopes)| scopes.split(' '))
            .filter_map(access)
            .collect();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER,
            "sub": "somebody",
            "aud": asked.field("service").unwrap_or_default(),
            "exp": issued_at + 300,
            "nbf": issued_at,
            "iat": issued_at,
            "jti": asked.nth.to_string(),
            "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&self.random, text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// `TYPE:NAME:ACTION,…` as a token has it.
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
}
