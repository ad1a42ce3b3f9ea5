//! One HTTP client: timeouts, redirects, and reads that end. It knows nothing of images.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, redirect};

use super::challenge::refuses_token;
use super::error::{Answer, Cause, Connection, Errand, connection_failure, parse_error_body};
use super::host::{host_of, same_host};
use super::proxy::{self, Proxies};
use super::tls::{self, Trust};

const MAX_REDIRECTS: usize = 5;
/// How much of an unwanted answer is read, in bytes.
const MAX_ERROR_BYTES: u64 = 64 << 10;

tokio::task_local! {
    /// The host that the last redirect led the request to that is under way: errors of the client library
    /// don't tell it.
    static SENT_TO: Cell<Option<String>>;
}

/// How long to wait for what.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer to a request. A cache may have to ask its own registry first.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// For the whole body of a document: a manifest, a token, an error.
    pub document: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(60),
        }
    }
}

/// A client for servers that are trusted in the same way.
pub struct Http {
    client: Client,
    timeouts: Timeouts,
    proxies: Proxies,
}

impl Http {
    pub fn new(trust: &Trust, timeouts: Timeouts, proxies: &proxy::Settings) -> Result<Self> {
        let proxies = Proxies::new(proxies)?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config(trust)?)
            .connect_timeout(timeouts.connect)
            .proxy(proxies.for_client())
            .redirect(redirects(trust.anybody))
            // A redirect's address may be signed, and is for the host it leads to alone.
            .referer(false)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("setting up the HTTP client")?;
        Ok(Self {
            client,
            timeouts,
            proxies,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Sends a request and waits for the head of its answer, whatever the status.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Cause> {
        let request = request.build().map_err(|error| self.failure(&error))?;
        let asked = host_of(request.url());
        let answer = tokio::time::timeout(self.timeouts.answer, self.client.execute(request));
        let exchange = async {
            let cause = match answer.await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => self.failure(&error),
                Err(_) => Cause::TimedOut(self.timeouts.answer),
            };
            Err(match SENT_TO.with(Cell::take) {
                Some(host) => redirected(cause, host, &asked),
                None => cause,
            })
        };
        SENT_TO.scope(Cell::default(), exchange).await
    }

    /// The next piece of a body; `None` at its end.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Cause> {
        match tokio::time::timeout(self.timeouts.stall, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.failure(&error)),
            Err(_) => Err(Cause::TimedOut(self.timeouts.stall)),
        }
    }

    /// A document: a whole body of at most `limit` bytes.
    pub async fn read(&self, response: Response, limit: u64) -> Result<Vec<u8>, Cause> {
        self.read_within(self.timeouts.document, response, limit).await
    }

    /// A whole body of at most `limit` bytes, within a time limit.
    pub async fn read_within(
        &self,
        within: Duration,
        response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, Cause> {
        let body = tokio::time::timeout(within, self.read_all(response, limit)).await;
        body.unwrap_or(Err(Cause::Lengthy(within)))
    }

    async fn read_all(&self, mut response: Response, limit: u64) -> Result<Vec<u8>, Cause> {
        if content_length(response.headers()).is_some_and(|length| length > limit) {
            return Err(Cause::TooLarge(limit));
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(Cause::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What an unwanted answer from `asked` (`HOST[:PORT]`) says.
    pub async fn explain(
        &self,
        mut response: Response,
        asked: &str,
        credentials: Option<String>,
    ) -> Box<Answer> {
        let mut body = Vec::new();
        // What can't be read is left out: the status counts.
        let reading = async {
            while let Ok(Some(chunk)) = self.chunk(&mut response).await {
                body.extend_from_slice(&chunk);
                if body.len() as u64 > MAX_ERROR_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(self.timeouts.document, reading).await;
        let (code, said) = parse_error_body(&body);
        let answered_by = host_of(response.url());
        Box::new(Answer {
            status: response.status(),
            code,
            said,
            redirected_to: (!same_host(&answered_by, asked)).then_some(answered_by),
            retry_after: retry_after(response.headers()),
            credentials,
            token_refused: refuses_token(response.headers()),
        })
    }

    fn failure(&self, error: &reqwest::Error) -> Cause {
        if error.is_timeout() {
            Cause::TimedOut(self.timeouts.connect)
        } else if error.is_redirect() {
            let why = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            Cause::Protocol(format!("sent a redirect that is not followed: {why}"))
        } else {
            Cause::Connection(self.connection_failure(error))
        }
    }

    /// It may be the proxy that can't be reached. TLS errors come from the server beyond it.
    fn connection_failure(&self, error: &reqwest::Error) -> Connection {
        use Connection::{NoAddress, Other, Refused};
        let failure = connection_failure(error);
        let proxy = error.url().and_then(|url| self.proxies.shown_for(url));
        match proxy {
            Some(proxy) if matches!(failure, Refused | NoAddress | Other(_)) => {
                Other(format!("is reached through the proxy {proxy}, which {failure}"))
            }
            _ => failure,
        }
    }
}

/// `cause`, as it came from `host`; that is told if it is another one than was asked.
pub fn redirected(cause: Cause, host: String, asked: &str) -> Cause {
    if same_host(&host, asked) {
        cause
    } else {
        Cause::Elsewhere(Errand::Redirect, host, Box::new(cause))
    }
}

/// The first byte's number in `Content-Range: bytes FIRST-LAST/SIZE`.
pub fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = text.trim().strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

/// The length that the head of an answer announces, in bytes.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Follows few redirects, and none from TLS to plain HTTP. Across hosts the client library takes the
/// credentials off.
fn redirects(insecure: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let last = attempt.previous().last();
        let from_tls = last.is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
        } else if from_tls && attempt.url().scheme() != "https" && !insecure {
            let host = host_of(attempt.url());
            attempt.error(format!(
                "from TLS to plain HTTP at {host}; --tls-verify=false would allow that"
            ))
        } else {
            // Outside of a request's scope there is nobody to tell.
            let _ = SENT_TO.try_with(|host| host.set(Some(host_of(attempt.url()))));
            attempt.follow()
        }
    })
}

/// What `Retry-After` asks for: seconds, or a date that is compared with the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let date = headers
        .get(DATE)
        .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    then.duration_since(date.unwrap_or_else(SystemTime::now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let date = "Mon, 23 Nov 2026 05:00:00 GMT";
        for (value, expected) in [
            ("7", Some(7)),
            ("Mon, 23 Nov 2026 05:01:30 GMT", Some(90)),
            ("Mon, 23 Nov 2026 04:00:00 GMT", None),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            headers.insert(DATE, date.parse().unwrap());
            assert_eq!(
                retry_after(&headers),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[test]
    fn hosts_are_compared_with_their_ports() {
        for (of_url, asked, same) in [
            ("reg.lab", "reg.lab:443", true),
            ("reg.lab", "REG.lab", true),
            ("reg.lab:5000", "reg.lab:5000", true),
            ("reg.lab:5000", "reg.lab", false),
            ("s3.lab", "reg.lab", false),
        ] {
            assert_eq!(same_host(of_url, asked), same, "{of_url} {asked}");
        }
    }
}
