//! Many machines at once, each in a network of its own, behind one cache: what the registry behind it has to give.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::json;
use support::network::{CACHE_ADDRESS, Network, ORIGIN_ADDRESS, inside};
use support::{LANDFALL, Ran};
use xtask::image::{Compression, Entry, Image, Layer, Layout};
use xtask::registry::Registry;

const NODES: u8 = 16;

struct Fleet {
    network: Network,
    origin: Registry,
    folder: tempfile::TempDir,
    layers: Vec<String>,
}

impl Fleet {
    fn new() -> Self {
        let network = Network::new(NODES);
        let builder = Registry::builder().network(&network.origin(), ORIGIN_ADDRESS);
        let origin = builder.start().unwrap();
        let folder = xtask::tempdir().unwrap();
        let layout = Layout::create(&folder.path().join("layout")).unwrap();
        layout.add(&image(), "1").unwrap();
        origin.place(&layout, "1", "os/test:1").unwrap();
        let layers = layout.manifest("1").unwrap()["layers"].clone();
        let layers = layers.as_array().unwrap().iter();
        let layers = layers
            .map(|layer| layer["digest"].as_str().unwrap().into())
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

    /// How often each layer has left the origin.
    fn left(&self) -> BTreeMap<usize, usize> {
        let mut left = BTreeMap::new();
        for (method, path, _) in self.origin.requests() {
            let layer = self.layers.iter().position(|digest| path.ends_with(digest));
            if let Some(layer) = layer.filter(|_| method == "GET") {
                *left.entry(layer).or_default() += 1;
            }
        }
        left
    }
}

const LAYERS: usize = 6;

fn content(layer: usize) -> Vec<u8> {
    let mut state = layer as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..(layer + 1) * 300_000).map(|_| next()).collect()
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

#[test]
fn behind_distribution() {
    let fleet = Fleet::new();
    let cache = Registry::builder()
        .network(&fleet.network.cache(), CACHE_ADDRESS)
        .set(
            "/proxy",
            json!({ "remoteurl": format!("http://{}", fleet.origin.host()) }),
        )
        .start()
        .unwrap();
    fleet.pull(0..1, &cache.host());
    eprintln!("{:?}", fleet.left());
    for r in fleet.origin.requests() {
        eprintln!("{r:?}");
    }
    eprintln!("{}", cache.log());
    fleet.pull(1..NODES, &cache.host());
    eprintln!("{:?}", fleet.left());
}
