//! The thread of one interface: link, address, lease.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::addresses::{Address, Addresses};
use super::device::Device;
use super::dhcp::{self, Change, Lease};
use super::nic::{CLASS, Nic};
use super::resolver::Resolver;
use crate::console::progress::Progress;
use crate::init::cmdline::ip::{Method, Setup};
use crate::sys::net::Interfaces;
use crate::sys::packet::PacketSocket;

/// How far an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    NotWanted,
    NoLink,
    Asking,
    Ready(String),
    Failed(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("not asked for"),
            Self::NoLink => f.write_str("no link: is the cable plugged in?"),
            Self::Asking => f.write_str("link is up, but no DHCP server answers"),
            Self::Ready(how) | Self::Failed(how) => f.write_str(how),
        }
    }
}

/// The thread of one interface.
pub(super) struct Worker {
    pub nic: Nic,
    pub setup: Setup,
    pub resolver: Arc<Mutex<Resolver>>,
    pub addresses: Addresses,
    pub sender: Sender<(String, State)>,
    pub progress: Progress,
    pub metric: i16,
}

impl Worker {
    /// Sets the interface up, and keeps its lease as long as the machine runs.
    pub(super) fn work(self) {
        if let Err(error) = self.set_up() {
            self.tell(State::Failed(format!("{error:#}")));
        }
    }

    /// Nobody listens any more once the network can be used.
    fn tell(&self, state: State) {
        let _ = self.sender.send((self.nic.name.clone(), state));
    }

    fn set_up(&self) -> Result<()> {
        Interfaces::open()?.set_up(&self.nic.name)?;
        self.wait_for_link();
        match self.setup.method {
            Method::Off => Ok(()),
            Method::Static {
                address,
                prefix_length,
                gateway,
            } => {
                let given = Given {
                    address: Address {
                        address,
                        prefix_length,
                        gateway,
                    },
                    nameservers: Vec::new(),
                    domain: None,
                };
                self.apply(&given, self.setup.hostname.as_deref(), self.setup.mtu_bytes)?;
                self.tell(State::Ready(format!(
                    "{address}/{prefix_length}, from the kernel command line"
                )));
                Ok(())
            }
            Method::Dhcp => {
                self.tell(State::Asking);
                let socket = PacketSocket::open(self.nic.index)?;
                dhcp::keep(Device(socket), self.nic.address, |change| self.follow(change))
            }
        }
    }

    fn wait_for_link(&self) {
        let carrier = Path::new(CLASS).join(&self.nic.name).join("carrier");
        while fs::read_to_string(&carrier).map_or(true, |text| text.trim_end() != "1") {
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn follow(&self, change: Change) {
        let lease = match change {
            Change::Given(lease) => lease,
            // Its address is kept until there is another: an installation that could go on must not end here.
            Change::Lost => {
                return self.progress.warn(format!(
                    "{}: the DHCP lease has expired; asking for another",
                    self.nic.name
                ));
            }
        };
        let hostname = self.setup.hostname.as_deref();
        let hostname = hostname.or(lease.extras.hostname.as_deref());
        let mtu_bytes = self.setup.mtu_bytes.or(lease.extras.mtu_bytes);
        match self.apply(&Given::by(&lease), hostname, mtu_bytes) {
            Ok(()) => self.tell(State::Ready(described(&lease))),
            Err(error) => self.tell(State::Failed(format!("{error:#}"))),
        }
    }

    fn warn_unless(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.progress.warn(format!("{}: {error:#}", self.nic.name));
        }
    }

    fn apply(&self, given: &Given, hostname: Option<&str>, mtu_bytes: Option<u16>) -> Result<()> {
        let name = self.nic.name.as_str();
        self.addresses.give(name, given.address, self.metric)?;
        // These two make a network better, not possible.
        if let Some(mtu_bytes) = mtu_bytes {
            self.warn_unless(Interfaces::open()?.set_mtu(name, mtu_bytes));
        }
        if let Some(hostname) = hostname {
            let set = nix::unistd::sethostname(hostname);
            self.warn_unless(set.with_context(|| format!("sethostname({hostname})")));
        }
        let mut servers = self.setup.nameservers.clone();
        servers.extend(given.nameservers.iter().map(|address| IpAddr::V4(*address)));
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        resolver.learn(name, servers, given.domain.clone())
    }
}

/// What an interface is set up with.
struct Given {
    address: Address,
    nameservers: Vec<Ipv4Addr>,
    domain: Option<String>,
}

impl Given {
    fn by(lease: &Lease) -> Self {
        Self {
            address: Address {
                address: lease.address,
                prefix_length: lease.prefix_length,
                gateway: lease.gateway,
            },
            nameservers: lease.nameservers.clone(),
            domain: lease.extras.domain.clone(),
        }
    }
}

fn described(lease: &Lease) -> String {
    let (address, prefix_length, server) = (lease.address, lease.prefix_length, lease.server);
    let gateway = lease.gateway.map(|gateway| format!(", gateway {gateway}"));
    let gateway = gateway.unwrap_or_default();
    format!("{address}/{prefix_length}{gateway}, by DHCP from {server}")
}
