//! What a registry failed at: one line that names the registry, says what it answered and what to try.
//! Answers are capped and redacted: what a registry sends must neither leak a secret into a log nor fill it.

mod clean;
mod connection;
mod tls;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::StatusCode;

pub use self::clean::clean;
pub use self::connection::Connection;
use self::tls::{tls_error, tls_failure};

/// A request to a registry that failed.
#[derive(Debug, thiserror::Error)]
#[error("registry {registry}, asked for {wanted}, {cause}{}{}", tried(*tries), without(mirrors))]
pub struct RegistryError {
    /// `HOST[:PORT]` as the user knows it.
    pub registry: String,
    /// What was asked for: `os/web:1.4`, `layer sha256:…`.
    pub wanted: String,
    pub cause: Cause,
    pub tries: u32,
    /// The mirrors that failed before.
    pub mirrors: Vec<String>,
}

fn without(mirrors: &[String]) -> String {
    match mirrors {
        [] => String::new(),
        [one] => format!("; its mirror {one} failed before"),
        several => format!("; its mirrors {} failed before", several.join(", ")),
    }
}

fn tried(tries: u32) -> String {
    if tries > 1 {
        format!(" (tried {tries} times)")
    } else {
        String::new()
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// An HTTP answer other than the expected ones.
    #[error("{0}")]
    Answered(Box<Answer>),
    /// Another host failed, to which the registry sent us.
    #[error("{0} {1}, which {2}")]
    Elsewhere(Errand, String, Box<Cause>),
    #[error("{0}")]
    Connection(Connection),
    /// No answer, or no further byte, for this long.
    #[error("was silent for {} s: check the network between here and there", .0.as_secs_f32())]
    TimedOut(Duration),
    /// An answer that is not complete after this long.
    #[error("took longer than {} s to answer: check the network between here and there", .0.as_secs_f32())]
    Lengthy(Duration),
    #[error("sent less than {0} bytes in {secs} s: check the network between here and there", secs = .1.as_secs_f32())]
    TooSlow(u64, Duration),
    #[error("sent more than the {0} bytes that are allowed")]
    TooLarge(u64),
    #[error("ended after {at} of {size} bytes")]
    Ended { at: u64, size: u64 },
    #[error("wants credentials: {0}")]
    Credentials(String),
    /// Something that the protocol doesn't allow.
    #[error("{0}")]
    Protocol(String),
}

/// What a registry sends its clients to other hosts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Errand {
    #[error("wants a token from")]
    Token,
    #[error("redirected to")]
    Redirect,
}

/// An HTTP answer, as far as it matters.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub code: Option<OciErrorCode>,
    /// What it said, cleaned.
    pub said: String,
    /// The host that answered, where a redirect led to another one.
    pub redirected_to: Option<String>,
    pub retry_after: Option<Duration>,
    /// Whose credentials were sent; `None` without any.
    pub credentials: Option<String>,
    /// The token that was sent is none that it knows, whatever it allows.
    pub token_refused: bool,
}

/// Whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// It may go away; the server asked to wait this long.
    After(Option<Duration>),
}

impl Cause {
    /// Whether the same request may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Answered(answer) => answer.retry(),
            Self::Elsewhere(_, _, cause) => cause.retry(),
            Self::Connection(
                Connection::Refused | Connection::NoAddress | Connection::Broken(_) | Connection::Other(_),
            ) => Retry::After(None),
            Self::TimedOut(_) | Self::Lengthy(_) | Self::TooSlow(..) | Self::Ended { .. } => {
                Retry::After(None)
            }
            Self::Connection(_) | Self::TooLarge(_) | Self::Credentials(_) | Self::Protocol(_) => {
                Retry::Never
            }
        }
    }

    /// Whether it is worth waiting for, even where another endpoint could be asked: a connection that broke,
    /// a server that named a time.
    pub fn is_hitch(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::Connection(Connection::Broken(_) | Connection::Other(_)) => true,
            Self::Answered(answer) => answer.retry_after.is_some(),
            Self::Elsewhere(_, _, cause) => cause.is_hitch(),
            _ => false,
        }
    }

    /// Whether nobody listens at the registry itself.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Connection(Connection::Refused))
    }

    /// What failures of the same kind have in common.
    pub fn kind(&self) -> String {
        match self {
            Self::Answered(answer) => answer.status.to_string(),
            Self::Elsewhere(_, host, cause) => format!("{host} {}", cause.kind()),
            Self::Ended { .. } => "ended".into(),
            other => other.to_string(),
        }
    }

    /// Whether it concerns nothing but what was asked for.
    pub fn is_particular(&self) -> bool {
        match self {
            Self::Answered(answer) => {
                answer.redirected_to.is_some() || matches!(answer.status.as_u16(), 404 | 416)
            }
            Self::TooLarge(_) | Self::Protocol(_) => true,
            Self::Elsewhere(Errand::Redirect, _, cause) => cause.is_particular(),
            _ => false,
        }
    }
}

impl Answer {
    fn retry(&self) -> Retry {
        let status = self.status;
        // A blob store's refusal is mostly an expired signature; the registry gives a new one.
        let expired = self.redirected_to.is_some() && matches!(status.as_u16(), 400 | 401 | 403);
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || matches!(status.as_u16(), 408 | 425 | 429)
            || expired
        {
            Retry::After(self.retry_after)
        } else {
            Retry::Never
        }
    }

    fn advice(&self) -> Option<String> {
        use StatusCode as S;
        let credentials = || match &self.credentials {
            Some(whose) => format!("{whose} may not read it: check them"),
            None => "no credentials were found for it: give them with --authfile or --pull-secret".into(),
        };
        match self.status {
            S::UNAUTHORIZED if self.token_refused => Some(
                "it does not accept the token that its own token server gave: compare their clocks and keys"
                    .into(),
            ),
            S::UNAUTHORIZED | S::FORBIDDEN => Some(credentials()),
            S::NOT_FOUND => Some(match (&self.code, &self.redirected_to) {
                (Some(OciErrorCode::ManifestUnknown), _) => {
                    "there is no such image: check its name and tag".into()
                }
                (Some(OciErrorCode::NameUnknown), _) => "there is no such repository: check its name".into(),
                (_, Some(_)) => "the registry's storage has lost it: push the image again".into(),
                (Some(_), None) => {
                    "the registry does not have it: check the image's name, or push the image again".into()
                }
                (None, None) => "check the image's name, and that this is a registry".into(),
            }),
            S::METHOD_NOT_ALLOWED => Some("check that this is a registry".into()),
            S::PROXY_AUTHENTICATION_REQUIRED => Some(
                "the proxy wants a user and password: give them as HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"
                    .into(),
            ),
            S::TOO_MANY_REQUESTS => Some("try again later, or with credentials".into()),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        write!(out, "answered {}", status.as_u16())?;
        if let Some(reason) = status.canonical_reason() {
            write!(out, " {reason}")?;
        }
        if let Some(host) = &self.redirected_to {
            write!(out, " from {host}, after a redirect")?;
        }
        if !self.said.is_empty() {
            write!(out, " ({})", self.said)?;
        }
        match self.advice() {
            Some(advice) => write!(out, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// What the layers below made of a request that got no (whole) answer.
pub fn connection_failure(error: &reqwest::Error) -> Connection {
    let mut last = error.to_string();
    let mut level: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = level {
        last = cause.to_string();
        if last.starts_with("dns error") {
            return Connection::NoAddress;
        }
        let inner = cause.downcast_ref::<io::Error>();
        if inner.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Connection::Refused;
        }
        if let Some(tls) = tls_error(cause) {
            return tls_failure(tls, SystemTime::now());
        }
        level = cause.source();
    }
    if error.is_connect() {
        Connection::Other(clean(&last))
    } else {
        Connection::Broken(clean(&last))
    }
}

/// The error code and the text in the body of an answer: the distribution spec's JSON, a token server's, or
/// whatever else came.
pub fn parse_error_body(body: &[u8]) -> (Option<OciErrorCode>, String) {
    /// What token servers write: a short code of OAuth2 (RFC 6749, section 5.2), and words under several
    /// names.
    #[derive(serde::Deserialize)]
    struct Plain {
        error: Option<String>,
        #[serde(alias = "error_description", alias = "message")]
        details: Option<String>,
    }
    if let Ok(OciEnvelope { errors }) = serde_json::from_slice(body) {
        let Some(first) = errors.into_iter().next() else {
            return (None, String::new());
        };
        let name = serde_json::to_value(&first.code).ok();
        let name = name.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
        let said = [name, &first.message].into_iter().filter(|part| !part.is_empty());
        let said = clean(&said.collect::<Vec<_>>().join(": "));
        return (Some(first.code), said);
    }
    if let Ok(Plain { error, details }) = serde_json::from_slice(body)
        && (error.is_some() || details.is_some())
    {
        let said: Vec<String> = error.into_iter().chain(details).collect();
        return (None, clean(&said.join(": ")));
    }
    let text = String::from_utf8_lossy(body);
    // A page of HTML says less than the status alone.
    if text.trim_start().starts_with('<') {
        (None, String::new())
    } else {
        (None, clean(&text))
    }
}

#[cfg(test)]
mod tests;
