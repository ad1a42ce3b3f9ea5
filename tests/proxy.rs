//! Landfall behind a proxy, as the environment of a real process says it.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};
use lab::image::{Entry, Image, Layer, Layout};
use lab::registry::Registry;
use landfall::config_drive::{self, Encoding};
use landfall::progress::Progress;
use landfall::{Options, ProxySettings};
use support::proxy::Proxy;

fn place(registry: &Registry, directory: &Path) {
    let layout = Layout::create(&directory.join("layout")).unwrap();
    let image = Image::new().layer(Layer::new([Entry::file("word", "word")]));
    layout.add(&image, "1").unwrap();
    registry.place(&layout, "1", "os/web:1").unwrap();
}

/// Pulls `registry.lab/os/web:1`, a name that nobody but the proxy knows. Gives whether that went well, and
/// what was said.
fn pull(directory: &Path, environment: &[(&str, &str)], options: &[&str]) -> (bool, String) {
    let to = directory.join("pulled");
    let _ = fs::remove_dir_all(&to);
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .args(["pull", "registry.lab/os/web:1", "--retries=0", "--to"])
        .arg(format!("oci:{}", to.display()))
        .args(options)
        .env_clear()
        .env("HOME", directory)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("pr0xy") && !said.contains("s3cret"), "{said}");
    (output.status.success(), said)
}

#[test]
fn tls_goes_through_a_tunnel() {
    let directory = lab::tempdir().unwrap();
    let registry = Registry::builder().user("bob", "s3cret").tls().start().unwrap();
    place(&registry, directory.path());
    let proxy = Proxy::start(registry.host());
    let secret = directory.path().join("secret");
    fs::write(&secret, "bob:s3cret").unwrap();
    let (secret, ca) = (secret.to_str().unwrap(), registry.ca().unwrap().to_str().unwrap());
    let options = ["--pull-secret", secret, "--ca-cert", ca];
    let right = format!("http://ann:pr0xy@{}", proxy.host);

    let (success, said) = pull(directory.path(), &[("https_proxy", &right)], &options);
    assert!(success, "{said}");
    let asked = proxy.asked();
    assert!(
        !asked.is_empty()
            && asked
                .iter()
                .all(|line| line == "CONNECT registry.lab:443 HTTP/1.1"),
        "{asked:?}"
    );
    // The registry's password is for the registry.
    for head in proxy.heads.lock().unwrap().iter() {
        assert!(!head.contains(&STANDARD.encode("bob:s3cret")), "{head}");
    }

    let wrong = format!("http://ann:pr0xy-wrong@{}", proxy.host);
    let near = format!("elsewhere.lab,{}", "registry.lab");
    for (environment, expected) in [
        (
            vec![("HTTPS_PROXY", wrong.as_str())],
            format!("is reached through the proxy {}, which", proxy.host),
        ),
        (
            vec![("HTTPS_PROXY", right.as_str()), ("NO_PROXY", &near)],
            "registry registry.lab, asked for os/web:1, has no address".into(),
        ),
        (
            vec![("HTTPS_PROXY", "http://ann:pr0xy@127.0.0.1:1")],
            "is reached through the proxy 127.0.0.1:1, which refuses connections".into(),
        ),
        (
            vec![("HTTPS_PROXY", "ftp://ann:pr0xy@x")],
            "reading HTTPS_PROXY".into(),
        ),
    ] {
        let (success, said) = pull(directory.path(), &environment, &options);
        assert!(!success && said.contains(&expected), "{said}");
    }
}

/// With the same authorities and proxies as an image.
#[tokio::test]
async fn a_config_drive_comes_the_same_way() {
    let registry = Registry::builder().tls().start().unwrap();
    let proxy = Proxy::start(registry.host());
    let right = format!("http://ann:pr0xy@{}", proxy.host);
    let options = |ca: Option<&Path>| Options {
        ca_cert: ca.map(Into::into),
        proxies: Some(ProxySettings::new(|name| {
            (name == "HTTPS_PROXY").then(|| right.clone())
        })),
        ..Options::default()
    };
    // There a registry says `{}`, which is also Ironic's JSON for a machine that needs nothing.
    let place = Path::new("https://registry.lab/v2/");
    let drive = config_drive::read(place, &options(registry.ca()), &Progress::silent()).await;
    let drive = drive.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(drive.encoding(), Encoding::Json);
    assert_eq!(proxy.asked(), ["CONNECT registry.lab:443 HTTP/1.1"]);

    let error = config_drive::read(place, &options(None), &Progress::silent())
        .await
        .err()
        .unwrap();
    assert!(
        format!("{error:#}").contains("certificate that is not trusted"),
        "{error:#}"
    );
}

#[test]
fn plain_http_is_asked_of_the_proxy_itself() {
    let directory = lab::tempdir().unwrap();
    let registry = Registry::start().unwrap();
    place(&registry, directory.path());
    let proxy = Proxy::start(registry.host());
    let right = format!("http://ann:pr0xy@{}", proxy.host);
    let options = ["--tls-verify=false"];

    let (success, said) = pull(directory.path(), &[("HTTP_PROXY", &right)], &options);
    assert!(success, "{said}");
    let asked = proxy.asked();
    // Of a connection the first request is seen.
    assert!(
        asked.contains(&"GET http://registry.lab/v2/ HTTP/1.1".into()),
        "{asked:?}"
    );

    let wrong = format!("http://{}", proxy.host);
    let (success, said) = pull(directory.path(), &[("HTTP_PROXY", &wrong)], &options);
    assert!(
        !success
            && said
                .contains("answered 407 Proxy Authentication Required: the proxy wants a user and password"),
        "{said}"
    );
}
