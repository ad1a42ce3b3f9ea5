//! What is secret stays with Landfall: others on the machine look, as another user or as root, and find
//! nothing.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use lab::faulty::read_request;
use lab::image::{Entry, Layer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::proxy::{self, Proxy};
use support::tokens::TokenServer;
use support::{GIB, Lab, LoopDisk, family, noise, start_until, start_with_until};

/// Of a text so many bytes are looked for at a time: what is left of it may be broken.
const PIECE_BYTES: usize = 24;

/// A bootc that tells that it runs, and waits to be stopped.
const WAITS: &str = "echo running; sleep 98763";

/// What `program` says to somebody who is not root.
fn as_nobody(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("setpriv");
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", program];
    let said = command.args(user).args(arguments).output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

#[test]
fn with_the_machines_network_others_on_it_get_nothing_of_the_image() {
    let lab = Lab::new();
    let image = lab.image("private", WAITS);
    let disk = lab.disk(GIB);
    let arguments = disk.install(&image, &["--network", "host", "--progress=plain"]);
    let (child, finish) = start_until(&arguments, "running");

    // Root knows where the drop-in is; nobody else may look there.
    let drop_in = family(child.id()).into_iter().find_map(|pid| {
        let path = format!("/proc/{pid}/root/etc/containers/registries.conf.d/zz-landfall.conf");
        let text = fs::read_to_string(&path).ok()?;
        Some((PathBuf::from(path), text))
    });
    let (path, text) = drop_in.unwrap();
    let path = path.to_str().unwrap();
    assert!(as_nobody("cat", &[path]).contains("Permission denied"));
    let location = text
        .split("location = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let (address, _) = location.split_once('/').unwrap();

    let digest = lab.layout.resolve("private").unwrap();
    let layer = lab.layout.manifest("private").unwrap()["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = |below: &str, what: &str| {
        let url = format!("http://{below}/{what}");
        as_nobody(
            "curl",
            &[
                "--silent",
                "--noproxy",
                "*",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                &url,
            ],
        )
    };
    for what in [
        format!("manifests/{digest}"),
        "manifests/private".into(),
        format!("blobs/{layer}"),
    ] {
        assert_eq!(answer(&format!("{address}/v2/os/test"), &what), "404", "{what}");
        // The same with the secret, which nobody has: what is asked for is there.
        let with_secret = location.replace('/', "/v2/");
        assert_eq!(answer(&with_secret, &what), "200", "{what}");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    finish(child);
}

/// A registry behind a proxy; both want passwords, and the registry a token of a server that wants the password.
struct Guarded {
    lab: Lab,
    tokens: TokenServer,
    disk: LoopDisk,
    authfile: PathBuf,
    /// Where the config drive is, which nobody else is to know.
    address: String,
}

const USER: &str = "anna";
const PASSWORD: &str = "s3cret-of-the-registry";
const SIGNATURE: &str = "signature=0f1e2d3c4b5a6978";

impl Guarded {
    fn new() -> Self {
        let tokens = TokenServer::start(|asked| match &asked.authorization {
            Some(said) if *said == format!("Basic {}", encoded_login()) => (200, r#"{"token":"TOKEN"}"#),
            _ => (401, "{}"),
        });
        let lab = Lab::with(tokens.registry().start().unwrap());
        let noise = Layer::new([Entry::file("noise", noise(7, 1 << 20))]);
        lab.layout
            .add(&support::installable(WAITS).layer(noise), "guarded")
            .unwrap();
        lab.place("guarded");
        let auths = format!(
            r#"{{"auths":{{"registry.lab":{{"auth":"{}"}}}}}}"#,
            encoded_login()
        );
        let drive = lab.directory.path().join("drive");
        fs::create_dir_all(drive.join("openstack/latest")).unwrap();
        fs::write(drive.join("openstack/latest/meta_data.json"), "{}").unwrap();
        let image = lab.directory.path().join("drive.iso");
        let [from, to] = [&drive, &image].map(|path| path.to_str().unwrap());
        assert_eq!(
            support::landfall(["config-drive", "build", from, "--output", to]).code,
            Some(0)
        );
        Self {
            address: format!("http://{}/drive?{SIGNATURE}", serve(fs::read(image).unwrap())),
            authfile: lab.file("auth.json", auths),
            disk: lab.disk(GIB),
            tokens,
            lab,
        }
    }

    /// Starts an installation by way of a proxy in front of `upstream`, until it says `line`.
    fn install(&self, upstream: String, line: &str) -> Child {
        let proxy = format!("http://{}@{}", proxy::LOGIN, Proxy::start(upstream).host);
        let variables = [("HTTP_PROXY", proxy.as_str()), ("https_proxy", &proxy)];
        let authfile = self.authfile.to_str().unwrap();
        let more = [
            "--progress=plain",
            "--authfile",
            authfile,
            "--config-drive",
            &self.address,
        ];
        let arguments = self.disk.install("registry.lab/os/test:guarded", &more);
        let (child, _) = start_with_until(&variables, &arguments, line);
        child
    }

    /// Which of the secrets are in the memory of the process or of what descends from it.
    fn found_in(&self, child: &Child) -> Vec<&'static str> {
        let tokens = self.tokens.issued();
        assert!(!tokens.is_empty(), "no token was asked for");
        let secrets = [
            ("password", vec![PASSWORD.into()]),
            ("login", vec![encoded_login()]),
            ("token", tokens),
            ("proxy", vec![proxy::LOGIN.into(), STANDARD.encode(proxy::LOGIN)]),
            ("address", vec![SIGNATURE.into()]),
        ];
        let is_found = |(_, texts): &&(&str, Vec<String>)| {
            let texts = texts.iter().map(String::as_bytes);
            let pieces = texts.flat_map(|text| text.chunks(PIECE_BYTES).filter(|piece| piece.len() > 8));
            let pieces = self.lab.file("pieces", pieces.collect::<Vec<_>>().join(&b'\n'));
            family(child.id())
                .into_iter()
                .any(|pid| is_in_memory(pid, &pieces))
        };
        let found = secrets.iter().filter(is_found);
        found.map(|(name, _)| *name).collect()
    }
}

/// Answers whatever is asked with `body`; gives `HOST:PORT`.
fn serve(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = read_request(&mut client);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
            let _ = client.write_all(&[format!("{head}: {}\r\n\r\n", body.len()).as_bytes(), &body].concat());
        }
    });
    host
}

fn encoded_login() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// Whether one of the texts in a file is anywhere where the process can write to.
fn is_in_memory(pid: u32, texts: &Path) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else {
        return false;
    };
    let mut search = Command::new("grep")
        .args(["--quiet", "--text", "--fixed-strings", "--file"])
        .arg(texts)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = search.stdin.take().unwrap();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // What is found ends the search.
        if memory.read_exact_at(&mut bytes, start).is_ok() && input.write_all(&bytes).is_err() {
            break;
        }
    }
    drop(input);
    search.wait().unwrap().success()
}

fn stop(mut child: Child) {
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn no_credentials_are_in_memory_while_the_image_installs_itself() {
    let guarded = Guarded::new();
    // Where the pull stands still, they are there, and found; what is needed only once is gone already.
    let stalling = support::stalling_proxy(&guarded.lab.registry, 400_000);
    let pulling = guarded.install(stalling, "to pull");
    let found = guarded.found_in(&pulling);
    stop(pulling);
    assert_eq!(found, ["password", "token", "proxy"]);

    let installing = guarded.install(guarded.lab.registry.host(), "running");
    let found = guarded.found_in(&installing);
    stop(installing);
    assert_eq!(found, [""; 0]);
}
