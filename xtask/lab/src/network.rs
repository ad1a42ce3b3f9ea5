//! A lab of network namespaces: an origin, a cache, and nodes that reach nothing but the cache.
//!
//! ```text
//! origin 10.77.254.2 ── cache 10.77.255.1 ──┬── node 0 10.77.0.2
//!                                            ├── node 1 10.77.1.2 …
//! ```

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::command;

/// The cache's address, as its nodes know it.
pub const CACHE_ADDRESS: &str = "10.77.255.1";
/// The origin's address, which the cache alone reaches.
pub const ORIGIN_ADDRESS: &str = "10.77.254.2";
const ORIGIN_NET: u8 = 254;

/// The namespaces. Dropping it removes them.
pub struct Network {
    prefix: String,
    nodes: u8,
}

impl Network {
    /// Makes them, and the wires between them.
    pub fn new(nodes: u8) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            prefix: format!("fleet{}-{number}", std::process::id()),
            nodes,
        };
        for namespace in network.all() {
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        let cache = network.cache();
        ip(&["-n", &cache, "address", "add", CACHE_ADDRESS, "dev", "lo"])?;
        wire(&cache, &network.origin(), ORIGIN_NET)?;
        for node in 0..nodes {
            let namespace = network.node(node);
            wire(&cache, &namespace, node)?;
            let gateway = format!("10.77.{node}.1");
            ip(&["-n", &namespace, "route", "add", "default", "via", &gateway])?;
        }
        Ok(network)
    }

    /// The namespace of the origin.
    pub fn origin(&self) -> String {
        format!("{}-origin", self.prefix)
    }

    /// The namespace of the cache.
    pub fn cache(&self) -> String {
        format!("{}-cache", self.prefix)
    }

    /// The namespace of a node.
    pub fn node(&self, number: u8) -> String {
        format!("{}-node{number}", self.prefix)
    }

    fn all(&self) -> impl Iterator<Item = String> {
        let nodes = (0..self.nodes).map(|number| self.node(number));
        [self.origin(), self.cache()].into_iter().chain(nodes)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.all() {
            // The first failure is what a test tells.
            let _ = Command::new("ip").args(["netns", "delete", &namespace]).status();
        }
    }
}

/// A program to be run in a namespace.
pub fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// A wire from the cache (10.77.NET.1) to another namespace (10.77.NET.2).
fn wire(cache: &str, other: &str, net: u8) -> Result<()> {
    let name = format!("net{net}");
    ip(&[
        "link", "add", &name, "netns", cache, "type", "veth", "peer", "name", "eth0", "netns", other,
    ])?;
    for (namespace, device, host) in [(cache, name.as_str(), 1), (other, "eth0", 2)] {
        let address = format!("10.77.{net}.{host}/24");
        ip(&["-n", namespace, "address", "add", &address, "dev", device])?;
        ip(&["-n", namespace, "link", "set", device, "up"])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::run(Command::new("ip").args(arguments))
}
