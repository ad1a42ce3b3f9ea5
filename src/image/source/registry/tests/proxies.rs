//! Registries behind a proxy: plain HTTP through absolute addresses, TLS through `CONNECT`.

use super::*;

fn through(proxy: &str) -> Options {
    let proxy = proxy.to_owned();
    Options {
        proxies: Some(ProxySettings::new(move |name| {
            (name == "ALL_PROXY").then(|| proxy.clone())
        })),
        ..options()
    }
}

#[tokio::test]
async fn plain_requests_name_the_whole_address() {
    let proxy = Server::start(|request| match request.path.as_str() {
        "http://reg.lab:5000/v2/os/web/manifests/1" => Reply::new(200, "{}"),
        "http://reg.lab:5000/v2/" => Reply::new(200, ""),
        _ => Reply::new(502, "no way"),
    })
    .await;
    let options = through(&format!("http://bob:s3cret@{}", proxy.host));
    assert!(registry("reg.lab:5000", &options).document(&tag()).await.is_ok());
    // To TLS the proxy knows no way; the registry's own credentials are not for it.
    let asked = proxy.seen("CONNECT").len() + proxy.seen("reg.lab:5000").len();
    assert!(asked >= 2, "{:?}", proxy.seen(""));
    let authorization = format!("Basic {}", STANDARD.encode("bob:s3cret"));
    for request in proxy.seen("http://") {
        assert_eq!(
            request.proxy_authorization.as_deref(),
            Some(authorization.as_str())
        );
        assert_eq!(request.authorization, None);
    }
}

#[tokio::test]
async fn this_machine_is_never_behind_a_proxy() {
    let proxy = Server::start(|_| Reply::new(502, "")).await;
    let server = Server::start(|_| Reply::new(200, "{}")).await;
    let options = through(&format!("http://{}", proxy.host));
    assert!(registry(&server.host, &options).document(&tag()).await.is_ok());
    assert!(proxy.seen("").is_empty());
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_without_its_password() {
    let refusing = Server::start(|_| Reply::new(407, "")).await;
    for (proxy, expected) in [
        (
            "127.0.0.1:1",
            "is reached through the proxy 127.0.0.1:1, which refuses connections",
        ),
        (refusing.host.as_str(), "is reached through the proxy"),
    ] {
        let options = Options {
            tls_verify: true,
            ..through(&format!("http://bob:s3cret@{proxy}"))
        };
        let error = error_of(&registry("reg.lab", &options)).await;
        assert!(
            error.contains("registry reg.lab, ") && error.contains(expected) && !error.contains("s3cret"),
            "{error}"
        );
    }
    let reference = "reg.lab/os/web:1".parse().unwrap();
    let error = Registry::new(&reference, &through("http://bob:s3cret@"))
        .err()
        .unwrap();
    let error = format!("{error:#}");
    assert!(
        error.contains("reading HTTP_PROXY") && !error.contains("s3cret"),
        "{error}"
    );
}
