//! Everything that can go wrong on the way from a real registry: each ends in the right image or in the right
//! error, and with nothing left behind.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream};
use lab::faulty::{At, Fault, Faulty, Rule};
use lab::image::{Compression, Entry, Image, Layer, Layout};
use lab::registry::Registry as Server;
use landfall::progress::Progress;
use landfall::{Options, Platform, PullOptions, Registry, resolve, unpack_to};
use support::{
    GIB, Lab, Ran, assert_nothing_left, impatient, installable, landfall, noise, quick, start_until,
};

/// What goes wrong with the first request, `>` with the second, and so on; `…`: with all that follow too. A
/// fault at `*` is three: at the first, the middle and the last byte of the body. Then, for each of the three
/// kinds of things that are asked for, how it ends: `image`, or what the error says.
const TABLE: &str = "
fault                      | manifest                     | config                       | layer
cut *                      | image                        | image                        | image
cut * …                    | broke off (end of file       | broke off (end of file       | broke off (end of file
stall *                    | image                        | image                        | image
stall * …                  | was silent for 1 s           | was silent for 1 s           | was silent for 1 s
break …                    | image                        | image                        | image
drip                       | image                        | image                        | image
drip …                     | took longer than 2 s         | sent less than 65536 bytes i | sent less than 65536 bytes i
throttle …                 | image                        | image                        | image
hang up                    | image                        | image                        | image
hang up …                  | broke off (connection closed | broke off (connection closed | broke off (connection closed
silence                    | image                        | image                        | image
silence …                  | was silent for 2 s           | was silent for 2 s           | was silent for 2 s
flip *                     | don't have that digest       | the blob's digest is        | the blob's digest is
less *                     | don't have that digest       | image                        | image
less * …                   | don't have that digest       | of 237 bytes (tried 3 times) | of 1200594 bytes (tried 3 ti
more                       | image                        | image                        | image
more …                     | broke off (end of file       | image                        | image
401                        | no credentials were found    | no credentials were found    | no credentials were found
403                        | answered 403 Forbidden       | answered 403 Forbidden       | answered 403 Forbidden
404                        | answered 404 Not Found       | answered 404 Not Found       | answered 404 Not Found
429                        | image                        | image                        | image
429 …                      | answered 429 Too Many        | answered 429 Too Many        | answered 429 Too Many
500                        | image                        | image                        | image
500 …                      | answered 500 Internal Server | answered 500 Internal Server | answered 500 Internal Server
502                        | image                        | image                        | image
502 …                      | answered 502 Bad Gateway     | answered 502 Bad Gateway     | answered 502 Bad Gateway
503                        | image                        | image                        | image
503 …                      | answered 503 Service Unavail | answered 503 Service Unavail | answered 503 Service Unavail
503 > 429                  | image                        | image                        | image
503 > 404                  | answered 404 Not Found       | answered 404 Not Found       | answered 404 Not Found
cut * > 503                | image                        | image                        | image
cut * > cut *              | image                        | image                        | image
cut middle > 404           | answered 404 Not Found       | answered 404 Not Found       | answered 404 Not Found
cut middle > ignore range  | image                        | image                        | image
cut middle > flip last     | don't have that digest       | the blob's digest is        | the blob's digest is
stall middle > hang up     | image                        | image                        | image
redirect to another port   | image                        | image                        | image
redirect to another name   | image                        | image                        | image
redirect to nobody         | image                        | image                        | image
redirect to nobody …       | 127.0.0.1:1, which refuses   | 127.0.0.1:1, which refuses   | 127.0.0.1:1, which refuses
redirect to a silent one … | which was silent for 2 s     | which was silent for 2 s     | which was silent for 2 s
redirect to a cut one …    | which broke off              | which broke off              | which broke off
redirect to itself …       | more than 5 redirects        | more than 5 redirects        | more than 5 redirects
";

/// The same by the command itself, of faults that need no patience: fault, what is asked for, end.
const BY_COMMAND: [(&str, usize, &str); 8] = [
    ("cut middle", 0, "image"),
    ("cut middle > 503 > cut middle > 503", 2, "image"),
    ("redirect to another name …", 2, "image"),
    ("404", 0, "answered 404 Not Found"),
    ("403", 1, "answered 403 Forbidden"),
    ("flip middle", 0, "don't have that digest"),
    ("flip middle", 1, "the blob's digest is"),
    ("flip last …", 2, "the blob's digest is"),
];

/// Large enough that threads unpack the layer.
const NOISE_BYTES: usize = 1_200_000;
const WHAT: [&str; 3] = ["manifest", "config", "layer"];

/// One line of the table, as far as it is about one kind of thing.
struct Row {
    name: String,
    faults: Vec<Fault>,
    and_so_on: bool,
    what: usize,
    expected: &'static str,
}

impl Row {
    fn new(faults: &str, what: usize, expected: &'static str, elsewhere: &Elsewhere) -> Self {
        let each = faults.trim_end_matches('…').split('>');
        Self {
            name: format!("{faults} ({})", WHAT[what]),
            faults: each.map(|text| parse(text.trim(), elsewhere)).collect(),
            and_so_on: faults.ends_with('…'),
            what,
            expected,
        }
    }

    /// How long to wait for something that may not come.
    fn options(&self) -> Options {
        let is_slow = ["stall", "silen", "drip"]
            .iter()
            .any(|word| self.name.contains(word));
        if is_slow { impatient() } else { quick() }
    }

    /// A proxy that does what the row says.
    fn proxy(&self, origin: &Origin) -> Faulty {
        let rule = Rule {
            part: origin.parts[self.what].clone(),
            faults: self.faults.clone(),
            and_so_on: self.and_so_on,
        };
        Faulty::start(&origin.server.host(), vec![rule])
    }

    /// What is not as it should be after a pull through `proxy` to `folder`/root, which ended with `error`.
    fn complaint(&self, proxy: &Faulty, folder: &Path, error: Option<&str>) -> Option<String> {
        let complaint = match error {
            None if self.expected == "image" => tree_fault(&folder.join("root")),
            None => Some("it succeeded".into()),
            Some(error) => {
                let told = error.contains(self.expected) && error.contains(&proxy.host());
                let left = fs::read_dir(folder).unwrap().count();
                (!told || error.contains('\n') || left > 0)
                    .then(|| format!("{left} things are left; {error}"))
            }
        };
        complaint.map(|complaint| format!("{}: expected {:?}: {complaint}", self.name, self.expected))
    }
}

/// Places that a registry may send its clients to, in front of a registry with the same content.
struct Elsewhere {
    whole: Faulty,
    silent: Faulty,
    cut: Faulty,
}

impl Elsewhere {
    fn new(origin: &Server) -> Self {
        let start = |fault| Faulty::start(&origin.host(), vec![Rule::always("/", fault)]);
        Self {
            whole: start(Fault::None),
            silent: start(Fault::Silence),
            cut: start(Fault::Cut(At::Middle)),
        }
    }
}

fn rows(elsewhere: &Elsewhere) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in TABLE.trim().lines().skip(1) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [fault, expected @ ..] = &columns[..] else {
            panic!("{line}");
        };
        assert_eq!(expected.len(), WHAT.len(), "{line}");
        let places: &[_] = if fault.contains('*') {
            &["first", "middle", "last"]
        } else {
            &[""]
        };
        for place in places {
            let spelled = fault.replace('*', place);
            let row =
                |(what, expected): (usize, &&'static str)| Row::new(&spelled, what, expected, elsewhere);
            rows.extend(expected.iter().enumerate().map(row));
        }
    }
    rows
}

fn parse(text: &str, elsewhere: &Elsewhere) -> Fault {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let at = || match rest {
        "first" => At::First,
        "middle" => At::Middle,
        "last" => At::Last,
        other => panic!("{other} is no place"),
    };
    match (word, rest) {
        ("cut", _) => Fault::Cut(at()),
        ("stall", _) => Fault::Stall(at()),
        ("flip", _) => Fault::Flip(at()),
        ("less", _) => Fault::Less(at()),
        ("more", "") => Fault::More,
        ("break", "") => Fault::Break(NOISE_BYTES / 12),
        ("drip", "") => Fault::Drip,
        ("throttle", "") => Fault::Throttle,
        ("hang", "up") => Fault::HangUp,
        ("silence", "") => Fault::Silence,
        ("ignore", "range") => Fault::IgnoreRange,
        ("redirect", "to another port") => Fault::Redirect(elsewhere.whole.host()),
        ("redirect", "to another name") => Fault::Redirect(elsewhere.whole.other_name()),
        ("redirect", "to a silent one") => Fault::Redirect(elsewhere.silent.host()),
        ("redirect", "to a cut one") => Fault::Redirect(elsewhere.cut.host()),
        ("redirect", "to nobody") => Fault::Redirect("127.0.0.1:1".into()),
        ("redirect", "to itself") => Fault::Redirect(String::new()),
        (status, "") => Fault::Answer {
            status: status.parse().unwrap_or_else(|_| panic!("{text} is no fault")),
            headers: &[("retry-after", "0")],
            body: "",
        },
        _ => panic!("{text} is no fault"),
    }
}

/// A registry with one image, and the parts of its paths by which its manifest, config and larger layer are
/// asked for.
struct Origin {
    server: Server,
    name: String,
    parts: [String; 3],
    _folder: tempfile::TempDir,
}

impl Origin {
    fn new(server: Server) -> Self {
        let folder = lab::tempdir().unwrap();
        let layout = Layout::create(&folder.path().join("layout")).unwrap();
        let below = Layer::new([Entry::directory("etc"), Entry::file("etc/motd", "old")]);
        let above = [
            Entry::file("etc/motd", "hello"),
            Entry::file("noise", noise(1, NOISE_BYTES)),
        ];
        let above = Layer::new(above).compressed(Compression::Gzip);
        layout.add(&Image::new().layer(below).layer(above), "1").unwrap();
        let digest = server.place(&layout, "1", "os/web:1").unwrap();
        let manifest = layout.manifest("1").unwrap();
        let blob =
            |descriptor: &serde_json::Value| format!("/blobs/{}", descriptor["digest"].as_str().unwrap());
        Self {
            server,
            name: format!("os/web@{digest}"),
            parts: [
                format!("/manifests/{digest}"),
                blob(&manifest["config"]),
                blob(&manifest["layers"][1]),
            ],
            _folder: folder,
        }
    }
}

/// What `landfall unpack` does, with less patience.
async fn unpack(name: &str, options: &Options, to: &Path) -> anyhow::Result<()> {
    let reference = name.parse()?;
    let registry = Registry::new(&reference, options)?;
    let image = resolve(&registry, &reference, &Platform::host()).await?;
    unpack_to(
        Arc::new(registry),
        &image,
        to,
        &PullOptions::default(),
        &Progress::silent(),
    )
    .await
}

fn unpack_by_command(name: &str, to: &Path) -> Ran {
    landfall(["unpack", name, "--to", to.to_str().unwrap(), "--tls-verify=false"])
}

/// What is wrong with an unpacked root; nothing, if nothing is.
fn tree_fault(root: &Path) -> Option<String> {
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (top, etc) = (names(root), names(&root.join("etc")));
    let contents = fs::read(root.join("etc/motd")).unwrap() == b"hello"
        && fs::read(root.join("noise")).unwrap() == noise(1, NOISE_BYTES);
    (top != ["etc", "noise"] || etc != ["motd"] || !contents)
        .then(|| format!("the tree is another one: {top:?} {etc:?}"))
}

/// Pulls through a proxy that does what the row says; gives what is not as it should be.
async fn run(row: &Row, origin: &Origin) -> Option<String> {
    let (proxy, folder) = (row.proxy(origin), lab::tempdir().unwrap());
    let name = format!("{}/{}", proxy.host(), origin.name);
    let unpacked = unpack(&name, &row.options(), &folder.path().join("root")).await;
    let error = unpacked.err().map(|error| format!("{error:#}"));
    row.complaint(&proxy, folder.path(), error.as_deref())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_the_right_image_or_in_the_right_error() {
    let origin = &Origin::new(Server::start().unwrap());
    let elsewhere = Elsewhere::new(&origin.server);
    let rows = rows(&elsewhere);
    let complaints = stream::iter(&rows)
        .map(|row| run(row, origin))
        .buffer_unordered(16);
    let complaints: Vec<String> = complaints.filter_map(std::future::ready).collect().await;
    assert!(
        complaints.is_empty(),
        "{} of {} rows:\n{}",
        complaints.len(),
        rows.len(),
        complaints.join("\n")
    );
}

#[test]
fn the_command_ends_in_the_same_way() {
    let origin = Origin::new(Server::start().unwrap());
    let elsewhere = Elsewhere::new(&origin.server);
    for (faults, what, expected) in BY_COMMAND {
        let row = Row::new(faults, what, expected, &elsewhere);
        let (proxy, folder) = (row.proxy(&origin), lab::tempdir().unwrap());
        let name = format!("{}/{}", proxy.host(), origin.name);
        let to = folder.path().join("root");
        let ran = unpack_by_command(&name, &to);
        let image = expected == "image";
        assert_eq!(
            ran.code,
            Some(if image { 0 } else { 3 }),
            "{}: {ran:#?}",
            row.name
        );
        let error = ran.error().strip_prefix("landfall: ").filter(|_| !image);
        assert_eq!(row.complaint(&proxy, folder.path(), error), None);
        assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_follow_a_redirect() {
    let guarded = Origin::new(Server::builder().user("bob", "s3cret").start().unwrap());
    let open = Origin::new(Server::start().unwrap());
    let elsewhere = Elsewhere::new(&open.server);
    for host in [elsewhere.whole.host(), elsewhere.whole.other_name()] {
        let blobs = Rule::always("/blobs/", Fault::Redirect(host));
        let proxy = Faulty::start(&guarded.server.host(), vec![blobs]);
        let folder = lab::tempdir().unwrap();
        let authfile = folder.path().join("auth.json");
        let auth = STANDARD.encode("bob:s3cret");
        let entry = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, proxy.host());
        fs::write(&authfile, entry).unwrap();
        let options = Options {
            authfile: Some(authfile),
            ..quick()
        };
        let to = folder.path().join("root");
        unpack(&format!("{}/{}", proxy.host(), guarded.name), &options, &to)
            .await
            .unwrap();
        assert_eq!(tree_fault(&to), None);
        let asked = proxy.seen("/blobs/");
        assert!(
            asked
                .iter()
                .all(|request| request.header("authorization").is_some())
        );
    }
    let followed = elsewhere.whole.seen("/blobs/");
    assert_eq!(followed.len(), 6, "config and two layers, twice");
    for request in followed {
        let credentials = ["authorization", "cookie", "referer"].map(|name| request.header(name));
        assert_eq!(credentials, [None; 3], "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_expired_is_asked_for_again() {
    let origin = Origin::new(Server::start().unwrap());
    let expired = Fault::Answer {
        status: 403,
        headers: &[],
        body: "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    };
    let storage = Faulty::start(&origin.server.host(), vec![Rule::once("/blobs/", expired)]);
    let blobs = Rule::always("/blobs/", Fault::Redirect(storage.host()));
    let proxy = Faulty::start(&origin.server.host(), vec![blobs]);
    let folder = lab::tempdir().unwrap();
    let to = folder.path().join("root");
    unpack(&format!("{}/{}", proxy.host(), origin.name), &quick(), &to)
        .await
        .unwrap();
    assert_eq!(tree_fault(&to), None);
}

/// Asks the relay for the last layer until it doesn't get it.
const ASKS: &str = r#"
location=$(sed -n 's/^location = "\(.*\)"/\1/p' /etc/containers/registries.conf.d/zz-landfall.conf)
relay=http://${location%%/*}/v2/${location#*/}
all=$*
digest=${all##*@}
layer=$(wget -q -O - $relay/manifests/${digest%% *} | sed 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/')
echo asking for $layer
while wget -q -O /dev/null $relay/blobs/$layer; do :; done
"#;

/// What bootc's skopeo sees of it is a 502 of the relay.
#[test]
fn a_source_that_fails_while_bootc_runs_is_named() {
    let lab = Lab::new();
    for (tag, end, expected) in [
        (
            "fails",
            "echo error: Installing to disk: received unexpected HTTP status: 502 Bad Gateway; exit 1",
            "received unexpected HTTP status: 502 Bad Gateway",
        ),
        ("succeeds", "exit 0", "but bootc tried again: "),
    ] {
        let tools = ["sed", "wget"].map(|name| Entry::symlink(format!("usr/bin/{name}"), "busybox"));
        let image = installable(&format!("{ASKS}{end}"))
            .layer(Layer::new(tools))
            .layer(Layer::new([Entry::file("noise", noise(3, NOISE_BYTES))]));
        lab.layout.add(&image, tag).unwrap();
        lab.place(tag);
        let proxy = Faulty::start(&lab.registry.host(), vec![]);
        let (host, name) = (proxy.host(), format!("{}/os/test:{tag}", proxy.host()));
        let disk = lab.disk(GIB);
        let device = disk.device.to_str().unwrap();
        let plan = landfall(["plan", &name, device, "--tls-verify=false", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        // No room for copies of blobs: the relay asks the registry again.
        let budget = plan["memory"]["needed_bytes"].to_string();
        let options = ["--retries=0", "--progress=plain", "--memory-budget", &budget];
        let (child, finish) = start_until(&disk.install(&name, &options), "asking for sha256:");
        drop(proxy);
        let ran = finish(child);
        // This bootc writes nothing.
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        let said = ran
            .stderr
            .lines()
            .find(|line| line.contains("the image's source failed while bootc read from it"));
        let said = said.unwrap_or_else(|| panic!("the source's failure is not told: {ran:#?}"));
        assert!(said.contains(expected), "{ran:#?}");
        assert!(said.contains(&host), "{ran:#?}");
        assert_eq!(
            ran.error().contains("the image's source failed"),
            tag == "fails",
            "{ran:#?}"
        );
        assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_drips_hands_over_at_that_byte() {
    let origin = Origin::new(Server::start().unwrap());
    let layer = &origin.parts[2];
    let mirror = Faulty::start(&origin.server.host(), vec![Rule::always(layer, Fault::Drip)]);
    let registry = Faulty::start(&origin.server.host(), vec![]);
    let options = Options {
        mirrors: vec![mirror.host()],
        ..impatient()
    };
    let folder = lab::tempdir().unwrap();
    let to = folder.path().join("root");
    unpack(&format!("{}/{}", registry.host(), origin.name), &options, &to)
        .await
        .unwrap();
    assert_eq!(tree_fault(&to), None);
    assert_eq!(mirror.seen(layer).len(), 1);
    let asked = registry.seen(layer);
    let ranges: Vec<_> = asked.iter().map(|request| request.header("range")).collect();
    assert!(
        matches!(ranges[..], [Some(range)] if range.starts_with("bytes=") && range != "bytes=0-"),
        "{ranges:?}"
    );
}

#[test]
fn a_registry_that_nobody_runs_is_said_in_a_few_lines() {
    let ran = landfall(["inspect", "127.0.0.1:1/os/web:1"]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    assert!(lines[0].ends_with("refuses connections: check that it runs, and its port; trying again"));
    assert!(
        lines[1].contains("check that it runs, and its port (tried 3 times)"),
        "{ran:#?}"
    );
}

#[test]
fn what_happens_to_all_blobs_is_said_once() {
    let origin = Origin::new(Server::start().unwrap());
    let unavailable = Fault::Answer {
        status: 503,
        headers: &[("retry-after", "0")],
        body: "",
    };
    let layers = Rule {
        part: "/blobs/".into(),
        faults: vec![unavailable; 4],
        and_so_on: false,
    };
    let proxy = Faulty::start(&origin.server.host(), vec![layers]);
    let folder = lab::tempdir().unwrap();
    let name = format!("{}/{}", proxy.host(), origin.name);
    let to = folder.path().join("root");
    let ran = unpack_by_command(&name, &to);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.stderr.matches("answered 503").count(), 1, "{ran:#?}");
    assert_eq!(tree_fault(&to), None);
}
