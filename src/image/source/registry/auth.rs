//! Meets a registry's challenges: basic authentication, and tokens from a token server (distribution's token
//! and OAuth2 specifications).
//!
//! A token is used until the registry answers 401, never by a clock: a ramdisk's is often wrong. Of
//! oci-client's own negotiation (`Client::auth`) only the types serve here: it reads answers without a limit,
//! knows no identity tokens, asks for `/v2/` with a client of its own (no client certificates, other
//! redirects), ages its tokens by the system's clock, and takes a 401 in mid-pull for the end.

use std::sync::Arc;

use oci_client::token_cache::RegistryToken;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Url};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::config::credentials::Credentials;
use super::config::keys::Keys;
use super::error::{Cause, Errand};
use super::host::host_of;
use super::http::Http;

/// The largest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// How we introduce ourselves to an OAuth2 server.
const CLIENT_ID: &str = "landfall";

/// Authenticates at one registry for one repository. Several transfers share it.
pub struct Authenticator {
    keys: Keys,
    scope: String,
    /// Whether a password may go to a token server without TLS.
    plain_allowed: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts the grants, so that of many transfers that see the same one expire only the first renews it.
    generation: u64,
    grant: Option<Grant>,
}

#[derive(Clone)]
enum Grant {
    /// User and password.
    Basic(Arc<(String, Zeroizing<String>)>),
    Bearer(Arc<Zeroizing<String>>),
}

/// What to send with a request, and which grant it is.
pub struct Authorization {
    /// The grant's number.
    pub generation: u64,
    grant: Option<Grant>,
}

impl Authenticator {
    pub fn new(repository: &str, keys: Keys, plain_allowed: bool) -> Self {
        Self {
            keys,
            scope: format!("repository:{repository}:pull"),
            plain_allowed,
            state: Mutex::default(),
        }
    }

    /// For messages: whose credentials are used.
    pub fn described(&self) -> Option<String> {
        self.keys.described()
    }

    pub async fn current(&self) -> Authorization {
        let state = self.state.lock().await;
        Authorization {
            generation: state.generation,
            grant: state.grant.clone(),
        }
    }

    pub fn apply(
        &self,
        request: RequestBuilder,
        authorization: &Authorization,
    ) -> Result<RequestBuilder, Cause> {
        Ok(match &authorization.grant {
            Some(Grant::Bearer(token)) => request.header(AUTHORIZATION, bearer(token)?),
            Some(Grant::Basic(whose)) => request.basic_auth(&whose.0, Some(whose.1.as_str())),
            None => request,
        })
    }

    /// Meets `challenge`, with which the registry answered the grant numbered `seen`. Says whether there is
    /// now something else to try.
    pub async fn meet(&self, http: &Http, challenge: Option<Challenge>, seen: u64) -> Result<bool, Cause> {
        let mut state = self.state.lock().await;
        if state.generation != seen {
            return Ok(true);
        }
        let known = self.keys.find().await?.map(|known| &known.credentials);
        let grant = match (challenge, known) {
            (None, _) => return Ok(false),
            // Where the user has the token itself, nobody is asked for one; a second time it would be the
            // same one.
            (Some(_), Some(Credentials::Bearer(token))) if state.grant.is_none() => {
                Grant::Bearer(Arc::new(token.clone()))
            }
            (Some(_), Some(Credentials::Bearer(_))) => return Ok(false),
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                _,
            ) => {
                let (service, scope) = (service.as_deref(), scope.as_deref());
                let token = self.fetch_token(http, &realm, service, scope, known).await?;
                Grant::Bearer(Arc::new(token))
            }
            (Some(Challenge::Basic), Some(Credentials::Password { user, password }))
                if !matches!(state.grant, Some(Grant::Basic(_))) =>
            {
                Grant::Basic(Arc::new((user.clone(), password.clone())))
            }
            (Some(Challenge::Basic), _) => return Ok(false),
        };
        *state = State {
            generation: seen + 1,
            grant: Some(grant),
        };
        Ok(true)
    }

    async fn fetch_token(
        &self,
        http: &Http,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        known: Option<&Credentials>,
    ) -> Result<Zeroizing<String>, Cause> {
        let url = self.check_realm(realm, known)?;
        let host = host_of(&url);
        let request = self.token_request(http, url, service, scope, known);
        let failed = |cause| Cause::Elsewhere(Errand::Token, host.clone(), Box::new(cause));
        let response = http.send(request).await.map_err(failed)?;
        if !response.status().is_success() {
            let answer = http.explain(response, &host, self.described()).await;
            return Err(failed(Cause::Answered(answer)));
        }
        let body = Zeroizing::new(http.read(response, MAX_TOKEN_BYTES).await.map_err(failed)?);
        match serde_json::from_slice(&body) {
            Ok(RegistryToken::Token { token } | RegistryToken::AccessToken { access_token: token })
                if !token.is_empty() =>
            {
                Ok(Zeroizing::new(token))
            }
            _ => Err(Cause::Protocol(format!(
                "wants a token from {host}, whose answer has none"
            ))),
        }
    }

    fn check_realm(&self, realm: &str, known: Option<&Credentials>) -> Result<Url, Cause> {
        let url = Url::parse(realm)
            .map_err(|_| Cause::Protocol("names a token server that is not a URL".into()))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.plain_allowed || known.is_none() => Ok(url),
            _ => Err(Cause::Protocol(format!(
                "wants the credentials sent unencrypted to {}: --tls-verify=false would allow that",
                host_of(&url)
            ))),
        }
    }

    /// GET with the password, or anonymously; for an identity token the OAuth2 form.
    fn token_request(
        &self,
        http: &Http,
        mut url: Url,
        service: Option<&str>,
        scope: Option<&str>,
        known: Option<&Credentials>,
    ) -> RequestBuilder {
        let scopes: Vec<&str> = std::iter::once(self.scope.as_str())
            .chain(scope.filter(|scope| *scope != self.scope))
            .collect();
        match known {
            Some(Credentials::IdentityToken(token)) => {
                let joined = scopes.join(" ");
                let mut form = vec![
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("scope", &joined),
                    ("refresh_token", token.as_str()),
                ];
                form.extend(service.map(|service| ("service", service)));
                let body = form_encoded(&form);
                http.client()
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            other => {
                url.query_pairs_mut()
                    .extend_pairs(service.map(|service| ("service", service)))
                    .extend_pairs(scopes.iter().map(|scope| ("scope", *scope)));
                let request = http.client().get(url);
                match other {
                    Some(Credentials::Password { user, password }) => {
                        request.basic_auth(user, Some(password.as_str()))
                    }
                    _ => request,
                }
            }
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, Cause> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Cause::Protocol("wants a token, but the one it was given is not text".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn form_encoded(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form/").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().into()
}
