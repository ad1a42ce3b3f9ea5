//! Many machines at once, each in a network of its own, behind one cache: what the registry behind it has to
//! give.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::image::{Compression, Digest, Entry, Image, Layer, Layout};
use lab::network::{CACHE_ADDRESS, Network, ORIGIN_ADDRESS, inside};
use lab::registry::Registry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::{LANDFALL, Ran, noise};

const NODES: u8 = 16;

struct Fleet {
    network: Network,
    origin: Registry,
    folder: tempfile::TempDir,
    layers: Vec<Digest>,
}

impl Fleet {
    fn new() -> Self {
        let network = Network::new(NODES).unwrap();
        let builder = Registry::builder().network(&network.origin(), ORIGIN_ADDRESS);
        let origin = builder.start().unwrap();
        let folder = lab::tempdir().unwrap();
        let layout = Layout::create(&folder.path().join("layout")).unwrap();
        layout.add(&image(), "1").unwrap();
        origin.place(&layout, "1", "os/test:1").unwrap();
        let layers = layout.manifest("1").unwrap()["layers"].clone();
        let layers = layers.as_array().unwrap().iter();
        let layers = layers
            .map(|layer| Digest::in_descriptor(layer).unwrap())
            .collect();
        Self {
            network,
            origin,
            folder,
            layers,
        }
    }

    fn node(&self, number: u8, cache: &str) -> Child {
        inside(&self.network.node(number), LANDFALL)
            .args([
                "unpack",
                &format!("{cache}/os/test:1"),
                "--tls-verify=false",
                "--to",
            ])
            .arg(self.folder.path().join(format!("root{number}")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// These nodes pull the image through `cache`, all at once.
    fn pull(&self, nodes: impl Iterator<Item = u8>, cache: &str) {
        let running: Vec<_> = nodes.map(|number| (number, self.node(number, cache))).collect();
        for (number, child) in running {
            let ran = Ran::from(child.wait_with_output().unwrap());
            assert_eq!(ran.code, Some(0), "node {number}: {ran:#?}");
            check_tree(&self.folder.path().join(format!("root{number}")));
        }
    }

    /// The same, once it is so often for each: a registry writes its log when the answer has gone already.
    fn asked_at_least(&self, registry: &Registry, count: usize) -> [usize; LAYERS] {
        let enough = || self.asked(registry).iter().all(|asked| *asked >= count);
        wait_until("the registry to log its answers", enough, || registry.log());
        self.asked(registry)
    }

    /// How often `registry` was asked for each layer.
    fn asked(&self, registry: &Registry) -> [usize; LAYERS] {
        let requests = registry.requests();
        let for_layer = |layer: usize| {
            let blob = format!("/blobs/{}", self.layers[layer]);
            let gets = requests
                .iter()
                .filter(|(method, path, _)| method == "GET" && path.ends_with(&blob));
            gets.count()
        };
        std::array::from_fn(for_layer)
    }
}

const LAYERS: usize = 6;

fn content(layer: usize) -> Vec<u8> {
    noise(layer as u64, (layer + 1) * 300_000)
}

/// Layers of very different sizes.
fn image() -> Image {
    Image::new().layers((0..LAYERS).map(|layer| {
        let compression = if layer == 1 {
            Compression::Zstd
        } else {
            Compression::Gzip
        };
        Layer::new([Entry::file(format!("file{layer}"), content(layer))]).compressed(compression)
    }))
}

fn check_tree(root: &Path) {
    for layer in 0..LAYERS {
        assert!(
            fs::read(root.join(format!("file{layer}"))).unwrap() == content(layer),
            "{root:?}"
        );
    }
    assert_eq!(fs::read_dir(root).unwrap().count(), LAYERS);
}

/// nginx as a cache for a registry: of all who ask for the same blob at once, one makes it fetch it.
struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    fn start(fleet: &Fleet) -> Self {
        let directory = lab::tempdir().unwrap();
        // The workers of a server that root starts are another user's.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let configuration = include_str!("fleet/nginx.conf")
            .replace("DIRECTORY", directory.path().to_str().unwrap())
            .replace("ADDRESS", CACHE_ADDRESS)
            .replace("ORIGIN", &fleet.origin.host());
        let path = directory.path().join("nginx.conf");
        fs::write(&path, configuration).unwrap();
        let mut command = inside(&fleet.network.cache(), "nginx");
        command
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(directory.path().join("error.log"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let nginx = Self { child, directory };
        let file = |name| fs::read_to_string(nginx.directory.path().join(name)).unwrap_or_default();
        // Its process's number is there once it listens.
        wait_until(
            "nginx to listen",
            || !file("pid").is_empty(),
            || file("error.log"),
        );
        nginx
    }

    fn host() -> String {
        format!("{CACHE_ADDRESS}:5000")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it, if it is asked.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A cache that lets those who ask for the same blob wait for each other: every layer leaves the origin once.
#[test]
fn a_fleet_behind_a_cache_that_fetches_once() {
    let fleet = Fleet::new();
    let _cache = Nginx::start(&fleet);
    fleet.pull(0..NODES, &Nginx::host());
    assert_eq!(fleet.asked_at_least(&fleet.origin, 1), [1; LAYERS]);
}

/// Distribution's own cache (2.8) fetches a blob that it doesn't have once for whoever asks and once for
/// itself, again for each who asks before it is stored, and ignores `Range` until then
/// (registry/proxy/proxyblobstore.go, `ServeBlob`). So no client of it can make a layer leave the origin
/// once; but what one node has pulled costs the origin nothing more.
#[test]
fn a_fleet_behind_distribution_that_one_node_has_pulled_through() {
    let fleet = Fleet::new();
    let upstream = json!({ "remoteurl": format!("http://{}", fleet.origin.host()) });
    let cache = Registry::builder().network(&fleet.network.cache(), CACHE_ADDRESS);
    let cache = cache.set("/proxy", upstream).start().unwrap();
    fleet.pull(0..1, &cache.host());
    assert_eq!(fleet.asked_at_least(&cache, 1), [1; LAYERS]);
    assert_eq!(fleet.asked_at_least(&fleet.origin, 2), [2; LAYERS]);

    let stored = |digest: &Digest| format!("Adding new scheduler entry for os/test@{digest}");
    let all_stored = || {
        let log = cache.log();
        fleet.layers.iter().all(|digest| log.contains(&stored(digest)))
    };
    wait_until("distribution to store what it has fetched", all_stored, || {
        cache.log()
    });
    fleet.pull(1..NODES, &cache.host());
    assert_eq!(fleet.asked(&fleet.origin), [2; LAYERS]);
}

fn wait_until(what: &str, is_so: impl Fn() -> bool, log: impl Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}: {}",
            log()
        );
        sleep(Duration::from_millis(10));
    }
}
