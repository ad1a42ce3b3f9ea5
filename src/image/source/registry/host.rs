//! Hosts as people and messages name them.

use reqwest::Url;

/// `HOST[:PORT]` of a URL.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.into(),
    }
}

/// Whether a URL's host is the one that was asked for; a scheme's own port may be spelled out or not.
pub fn same_host(of_url: &str, asked: &str) -> bool {
    let plain = |host: &str| {
        let host = host
            .strip_suffix(":443")
            .or(host.strip_suffix(":80"))
            .unwrap_or(host);
        host.to_ascii_lowercase()
    };
    plain(of_url) == plain(asked)
}
