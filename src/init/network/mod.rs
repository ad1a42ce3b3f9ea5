//! The network of a ramdisk: DHCP on every wired interface, or what the kernel command line says.
//!
//! Each interface has a thread that sets it up and keeps its lease for as long as the machine runs.

mod addresses;
mod device;
mod dhcp;
mod nic;
mod resolver;
mod worker;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cmdline::ip::{Method, Network, Setup};
use crate::console::progress::{Progress, Wait};
use crate::sys::net::Interfaces;
pub(super) use addresses::Addresses;
use nic::{CLASS, wired};
use resolver::Resolver;
use worker::{State, Worker};

/// Switches that look for loops first pass nothing on for up to 50 seconds after the link came up.
const LIMIT: Duration = Duration::from_secs(90);

/// How long the other interfaces have once one is ready: the registry may be reachable through any of them.
const GRACE: Duration = Duration::from_secs(3);

/// How often new interfaces are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Brings the network up and returns as soon as it can be used, with what its interfaces are given.
/// `look_for_devices` is called again and again meanwhile.
pub(super) fn bring_up(
    network: &Network,
    mut look_for_devices: impl FnMut(),
    progress: &Progress,
) -> Result<Addresses> {
    Interfaces::open()?.set_up("lo")?;
    if network.is_off() {
        return Ok(Addresses::default());
    }
    let mut bringing = Bringing::new(network, progress);
    let summary = Arc::clone(&bringing.shown);
    let wait = Wait::telling(move || format!("waiting for the network: {}", text(&summary)));
    let _waiting = progress.waiting(wait.at_most(LIMIT));
    let (sender, changes) = channel();
    let mut next_look = Instant::now();
    loop {
        if Instant::now() >= next_look {
            look_for_devices();
            bringing.take_up_new(&sender);
            *text(&bringing.shown) = bringing.summary();
            next_look = Instant::now() + LOOK_EVERY;
        }
        match changes.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
            Ok((name, state)) => bringing.note(name, state),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the threads of all network interfaces ended"),
        }
        if bringing.is_done() {
            return Ok(bringing.addresses);
        }
        if bringing.since.elapsed() > LIMIT {
            bail!("no network after {} s: {}", LIMIT.as_secs(), bringing.summary());
        }
    }
}

fn text(shared: &Mutex<String>) -> MutexGuard<'_, String> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes all interfaces down, as far as they let us.
pub(super) fn take_down() {
    let Ok(interfaces) = Interfaces::open() else {
        return;
    };
    for nic in wired(Path::new(CLASS)) {
        let _ = interfaces.set_down(&nic.name);
    }
}

/// What is known while the network comes up.
struct Bringing<'a> {
    network: &'a Network,
    progress: &'a Progress,
    resolver: Arc<Mutex<Resolver>>,
    addresses: Addresses,
    states: BTreeMap<String, (State, String)>,
    since: Instant,
    ready_since: Option<Instant>,
    /// The summary, for those who wait.
    shown: Arc<Mutex<String>>,
}

impl<'a> Bringing<'a> {
    fn new(network: &'a Network, progress: &'a Progress) -> Self {
        Self {
            network,
            progress,
            resolver: Arc::new(Mutex::new(Resolver::with(network.nameservers.clone()))),
            addresses: Addresses::default(),
            states: BTreeMap::new(),
            since: Instant::now(),
            ready_since: None,
            shown: Arc::default(),
        }
    }

    /// Starts a thread for each interface that was not there before.
    fn take_up_new(&mut self, sender: &Sender<(String, State)>) {
        for nic in wired(Path::new(CLASS)) {
            if self.states.contains_key(&nic.name) {
                continue;
            }
            let (name, driver) = (nic.name.clone(), nic.driver.clone());
            let state = match self.network.setup_for(&nic.name, nic.address) {
                None => State::NotWanted,
                Some(Setup {
                    method: Method::Off, ..
                }) => State::NotWanted,
                Some(setup) => {
                    let worker = Worker {
                        nic,
                        setup,
                        resolver: Arc::clone(&self.resolver),
                        addresses: self.addresses.clone(),
                        sender: sender.clone(),
                        progress: self.progress.clone(),
                        metric: 100 + i16::try_from(self.states.len()).unwrap_or(0),
                    };
                    thread::spawn(move || worker.work());
                    State::NoLink
                }
            };
            self.states.insert(name, (state, driver));
        }
    }

    fn note(&mut self, name: String, state: State) {
        match &state {
            State::Ready(how) => {
                self.progress.note(format!("{name}: {how}"));
                self.ready_since.get_or_insert_with(Instant::now);
            }
            State::Failed(why) => self.progress.warn(format!("{name}: {why}")),
            State::NotWanted | State::NoLink | State::Asking => {}
        }
        if let Some((known, _)) = self.states.get_mut(&name) {
            *known = state;
        }
    }

    fn is_done(&self) -> bool {
        let Some(ready_since) = self.ready_since else {
            return false;
        };
        let is_ready = |name: &String| matches!(self.states.get(name), Some((State::Ready(_), _)));
        let named = self.network.setups.iter();
        let named = named.filter(|setup| setup.method != Method::Off);
        if !named.filter_map(|setup| setup.interface.as_ref()).all(is_ready) {
            return false;
        }
        let asks = |(state, _): &(State, String)| matches!(state, State::Asking | State::NoLink);
        !self.states.values().any(asks) || ready_since.elapsed() >= GRACE
    }

    fn summary(&self) -> String {
        if self.states.is_empty() {
            return "no wired interface found: is the module of this machine's network card in the ramdisk?"
                .to_owned();
        }
        let found = self.states.iter();
        let found = found.map(|(name, (state, driver))| format!("{name} ({driver}): {state}"));
        let named = self.network.setups.iter();
        let named = named.filter_map(|setup| setup.interface.as_ref());
        let missing = named.filter(|name| !self.states.contains_key(*name));
        let missing = missing.map(|name| format!("{name}: no such wired interface"));
        found.chain(missing).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bringing<'a>(network: &'a Network, progress: &'a Progress, states: &[(&str, State)]) -> Bringing<'a> {
        let mut bringing = Bringing::new(network, progress);
        for (name, state) in states {
            bringing
                .states
                .insert((*name).to_owned(), (State::NoLink, "e1000".to_owned()));
            bringing.note((*name).to_owned(), state.clone());
        }
        bringing
    }

    fn parsed(cmdline: &str) -> Network {
        Network::parse(&crate::machine::kernel::command_line::words(cmdline)).unwrap()
    }

    #[test]
    fn the_network_is_up_when_nothing_more_is_to_be_expected() {
        let ready = || State::Ready("10.0.0.9/24".into());
        for (cmdline, states, done) in [
            ("", &[][..], false),
            ("", &[("eth0", State::Asking)], false),
            ("", &[("eth0", ready())], true),
            ("", &[("eth0", ready()), ("eth1", State::Asking)], false),
            (
                "",
                &[("eth0", ready()), ("eth1", State::Failed("x".into()))],
                true,
            ),
            ("", &[("eth0", State::Failed("x".into()))], false),
            (
                "ip=eth1:dhcp",
                &[("eth0", State::NotWanted), ("eth1", ready())],
                true,
            ),
            ("ip=eth1:dhcp ip=eth2:dhcp", &[("eth1", ready())], false),
            ("ip=eth1:dhcp ip=eth2:off", &[("eth1", ready())], true),
        ] {
            let (network, progress) = (parsed(cmdline), Progress::silent());
            assert_eq!(
                bringing(&network, &progress, states).is_done(),
                done,
                "{cmdline:?} {states:?}"
            );
        }
    }

    #[test]
    fn a_failure_names_every_interface() {
        let (network, progress) = (parsed("ip=eth2:dhcp"), Progress::silent());
        let states = [("eth0", State::NoLink), ("eth1", State::Asking)];
        assert_eq!(
            bringing(&network, &progress, &states).summary(),
            "eth0 (e1000): no link: is the cable plugged in?; eth1 (e1000): link is up, but no DHCP server \
             answers; eth2: no such wired interface"
        );
    }
}
