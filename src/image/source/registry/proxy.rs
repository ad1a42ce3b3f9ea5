//! Proxies, as the environment has them: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either
//! case. (The kernel puts `https_proxy=…` of its command line into the environment of `/init`.)
//!
//! Localhost is never reached through a proxy, as with the other container tools. A proxy's password is never
//! shown.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::{env, fmt};

use anyhow::{Context, Result, bail};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Proxy, Url};

use super::host::host_of;
use crate::sys::start;

/// The variables that name one.
const NAMES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// What is never asked through a proxy, whatever is configured.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// What the environment says of proxies.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    http: Option<String>,
    https: Option<String>,
    all: Option<String>,
    no: Option<String>,
}

/// Which proxy leads where.
#[derive(Clone)]
pub struct Proxies(Arc<Routes>);

struct Routes {
    http: Option<Url>,
    https: Option<Url>,
    /// Intercepts what isn't to be reached directly.
    indirect: Matcher,
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Settings([redacted])")
    }
}

/// Overwrites what the environment says of proxies, wherever there may be a password in it.
pub fn forget_environment() -> Result<()> {
    let names = NAMES
        .iter()
        .flat_map(|name| [name.to_string(), name.to_ascii_lowercase()]);
    let secrets = names
        .filter_map(env::var_os)
        .filter(|value| value.as_bytes().contains(&b'@'));
    for secret in secrets {
        start::overwrite(secret.as_bytes()).context("wiping a proxy's password from memory")?;
    }
    Ok(())
}

impl Settings {
    /// Those of this process's environment.
    pub fn from_environment() -> Self {
        Self::new(|name| env::var(name).ok())
    }

    /// Those of an environment.
    pub fn new(var: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| var(name).filter(|value| !value.is_empty());
        let either = |name: &str| given(name).or_else(|| given(&name.to_ascii_lowercase()));
        Self {
            http: either("HTTP_PROXY"),
            https: either("HTTPS_PROXY"),
            all: either("ALL_PROXY"),
            no: either("NO_PROXY"),
        }
    }
}

impl Proxies {
    pub fn new(settings: &Settings) -> Result<Self> {
        let no = settings.no.as_deref().unwrap_or_default();
        let none = no.split(',').any(|entry| entry.trim() == "*");
        let proxy = |name: &str, own: &Option<String>| match own.as_ref().or(settings.all.as_ref()) {
            Some(text) if !none => parse(text).with_context(|| format!("reading {name}")).map(Some),
            _ => Ok(None),
        };
        Ok(Self(Arc::new(Routes {
            http: proxy("HTTP_PROXY", &settings.http)?,
            https: proxy("HTTPS_PROXY", &settings.https)?,
            indirect: Matcher::builder()
                .all("http://proxy")
                .no(format!("{no},{LOOPBACK}"))
                .build(),
        })))
    }

    pub fn for_client(&self) -> Proxy {
        let routes = self.clone();
        Proxy::custom(move |url| routes.leading_to(url).cloned())
    }

    /// `HOST[:PORT]` of the proxy that leads to `url`, if there is one.
    pub fn shown_for(&self, url: &Url) -> Option<String> {
        self.leading_to(url).map(host_of)
    }

    fn leading_to(&self, url: &Url) -> Option<&Url> {
        self.0.indirect.intercept(&url.as_str().parse().ok()?)?;
        match url.scheme() {
            "http" => self.0.http.as_ref(),
            "https" => self.0.https.as_ref(),
            _ => None,
        }
    }
}

/// The address of a proxy. Errors don't repeat it: there may be a password in it.
fn parse(text: &str) -> Result<Url> {
    const WANTED: &str = "it is not of the form http://[USER:PASSWORD@]HOST[:PORT]";
    let spelled = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&spelled).ok().filter(Url::has_host).context(WANTED)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => bail!("it names a proxy of the kind {other}, but only http and https are supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::new(&Settings::new(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        }))
    }

    #[test]
    fn the_way_to_each_host() {
        let lab = [
            ("HTTP_PROXY", "http://user:s3cret@web.lab:3128"),
            ("http_proxy", "http://never"),
            ("https_proxy", "tls.lab:3129"),
            (
                "no_proxy",
                "near.lab,.suffix.lab, 10.0.0.0/8,192.168.1.7,fd00::/8",
            ),
        ];
        let rest = [
            ("ALL_PROXY", "https://all.lab"),
            ("HTTPS_PROXY", "http://tls.lab"),
        ];
        let nothing = [("HTTP_PROXY", "http://web.lab"), ("NO_PROXY", "near.lab,*")];
        for (variables, url, expected) in [
            (&lab[..], "http://reg.lab:5000/v2/", Some("web.lab:3128")),
            (&lab, "https://reg.lab:5000/v2/", Some("tls.lab:3129")),
            (&lab, "https://near.lab/v2/", None),
            (&lab, "https://a.near.lab/v2/", None),
            (&lab, "https://a.suffix.lab/v2/", None),
            (&lab, "https://nearer.lab/v2/", Some("tls.lab:3129")),
            (&lab, "https://10.1.2.3:5000/v2/", None),
            (&lab, "https://11.1.2.3:5000/v2/", Some("tls.lab:3129")),
            (&lab, "https://192.168.1.7/v2/", None),
            (&lab, "https://[fd00::1]:5000/v2/", None),
            (&lab, "http://127.0.0.1:5000/v2/", None),
            (&lab, "http://localhost:5000/v2/", None),
            (&lab, "http://[::1]:5000/v2/", None),
            (&rest, "http://reg.lab/v2/", Some("all.lab")),
            (&rest, "https://reg.lab/v2/", Some("tls.lab")),
            (&rest, "http://127.9.9.9/v2/", None),
            (&nothing, "http://reg.lab/v2/", None),
            (&nothing, "http://10.1.2.3/v2/", None),
            (&[], "http://reg.lab/v2/", None),
        ] {
            let shown = proxies(variables).unwrap().shown_for(&url.parse().unwrap());
            assert_eq!(shown.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_shown() {
        for (text, expected) in [
            (
                "http://user:s3cret@",
                "reading HTTPS_PROXY: it is not of the form",
            ),
            (
                "http://user:s3cret@:3128",
                "reading HTTPS_PROXY: it is not of the form",
            ),
            ("socks5://user:s3cret@h", "of the kind socks5"),
            ("http://user:s3cret@ho st", "it is not of the form"),
        ] {
            let error = format!("{:#}", proxies(&[("HTTPS_PROXY", text)]).err().unwrap());
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
        let settings = Settings::new(|_| Some("s3cret".into()));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
