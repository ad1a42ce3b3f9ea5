//! One file by its address, such as a config drive: whole, bounded, and asked for again after a hitch.
//!
//! Trusts whom the registry client trusts. Of an address only host and path are ever shown: the rest may be a
//! secret.

use anyhow::{Result, bail};
use reqwest::{StatusCode, Url};
use zeroize::Zeroizing;

use super::registry::Options;
use super::registry::error::{Cause, Retry};
use super::registry::host::host_of;
use super::registry::http::Http;
use super::registry::retry::Backoff;
use super::registry::shared::again;

/// A file may be larger than the documents of a registry, and take this many times longer.
const FILE_PATIENCE: u32 = 10;

/// Reads `text` as an address that [`fetch`] can get; `None` if it is none (a path, for example).
pub fn parse(text: &str) -> Option<Url> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// What can be shown of an address.
pub fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_of(url), url.path())
}

/// Fetches a file of at most `limit_bytes`.
pub async fn fetch(url: &Url, options: &Options, limit_bytes: u64) -> Result<Zeroizing<Vec<u8>>> {
    let http = Http::new(&options.trust(), options.timeouts.clone(), &options.proxies())?;
    let mut backoff = Backoff::new(options.policy.clone());
    let mut told = String::new();
    loop {
        let cause = match fetch_once(&http, url, limit_bytes).await {
            Ok(body) => return Ok(Zeroizing::new(body)),
            Err(cause) => cause,
        };
        let why = described(&cause, url);
        let enough = cause.is_refusal() && backoff.failures() >= options.policy.retries_if_refused();
        let wait = match cause.retry() {
            Retry::After(asked) if !enough => backoff.next_wait(asked),
            _ => None,
        };
        let Some(wait) = wait else { bail!("{why}") };
        if told != why {
            options.progress.note(format!("{why}; {}", again(wait)));
            told = why;
        }
        tokio::time::sleep(wait).await;
    }
}

async fn fetch_once(http: &Http, url: &Url, limit_bytes: u64) -> Result<Vec<u8>, Cause> {
    let response = http.send(http.client().get(url.clone())).await?;
    if response.status() != StatusCode::OK {
        return Err(Cause::Answered(http.explain(response, &host_of(url), None).await));
    }
    http.read_within(http.timeouts().document * FILE_PATIENCE, response, limit_bytes)
        .await
}

/// One line; a registry's advice would lead astray here.
fn described(cause: &Cause, url: &Url) -> String {
    let host = host_of(url);
    match cause {
        Cause::Answered(answer) => format!("{host} answered {}", answer.status),
        cause => format!("{host} {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::source::registry::Policy;
    use crate::image::source::registry::tests::server::{Reply, Server};
    use std::time::Duration;

    #[test]
    fn addresses_and_what_is_shown_of_them() {
        for (text, expected) in [
            (
                "http://user:secret@h:8080/a/cd?token=secret",
                Some("http://h:8080/a/cd"),
            ),
            ("https://h/cd#x", Some("https://h/cd")),
            ("/cd.iso", None),
            ("cd.iso", None),
            ("-", None),
            ("file:///cd.iso", None),
        ] {
            assert_eq!(parse(text).as_ref().map(shown).as_deref(), expected, "{text}");
        }
    }

    async fn fetched(path: &str, limit_bytes: u64) -> Result<Vec<u8>, String> {
        let server = Server::start(
            |request| match (request.path.trim_end_matches("?secret"), request.nth) {
                ("/good", _) => Reply::new(200, "content"),
                ("/late", 0) => Reply::new(503, "not yet"),
                ("/late", _) => Reply::new(200, "content"),
                ("/cut", 0) => Reply {
                    cut: Some(3),
                    ..Reply::new(200, "content")
                },
                ("/cut", _) => Reply::new(200, "content"),
                ("/moved", _) => Reply::new(302, "").header("location", "/good"),
                _ => Reply::new(404, "no such thing"),
            },
        )
        .await;
        let policy = Policy {
            first_wait: Duration::from_millis(1),
            ..Policy::default()
        };
        let options = Options {
            policy,
            ..Options::default()
        };
        let url = parse(&format!("http://{}{path}?secret", server.host)).unwrap();
        let host = server.host.clone();
        let body = fetch(&url, &options, limit_bytes).await;
        body.map(|body| body.to_vec())
            .map_err(|error| format!("{error:#}").replace(&host, "HOST"))
    }

    #[tokio::test]
    async fn a_file_arrives_whole_or_not_at_all() {
        for (path, limit_bytes, expected) in [
            ("/good", 7, Ok("content")),
            ("/late", 7, Ok("content")),
            ("/cut", 7, Ok("content")),
            ("/moved", 7, Ok("content")),
            (
                "/good",
                6,
                Err("HOST sent more than the 6 bytes that are allowed"),
            ),
            ("/missing", 7, Err("HOST answered 404 Not Found")),
        ] {
            let found = fetched(path, limit_bytes).await;
            let expected = expected
                .map(|text| text.as_bytes().to_vec())
                .map_err(str::to_owned);
            assert_eq!(found, expected, "{path}");
        }
    }
}
