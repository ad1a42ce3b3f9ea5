//! What the interfaces were given, so that they can be taken down and come up again as they were.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

use super::nic::CLASS;
use crate::sys::net::{Interfaces, Route, netmask};

/// An address, its network, and the way out of that.
#[derive(Clone, Copy)]
pub(super) struct Address {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub gateway: Option<Ipv4Addr>,
}

/// The addresses and routes of all interfaces. Copies are the same.
#[derive(Clone, Default)]
pub struct Addresses(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What was given to an interface last, and how its routes are preferred.
    given: BTreeMap<String, (Address, i16)>,
    /// The interfaces that were taken down and are to come up again.
    down: Vec<String>,
}

impl Addresses {
    /// Gives an interface an address and its routes, instead of those that it may have: at once, or when it
    /// comes up again.
    pub(super) fn give(&self, interface: &str, given: Address, metric: i16) -> Result<()> {
        let mut state = self.lock();
        let is_down = state.down.iter().any(|name| name == interface);
        let applied = if is_down {
            Ok(())
        } else {
            apply(interface, &given, metric)
        };
        state.given.insert(interface.to_owned(), (given, metric));
        applied
    }

    /// Takes all interfaces down that are up, but loopback.
    pub fn take_down(&self) -> Result<()> {
        let (mut state, interfaces) = (self.lock(), Interfaces::open()?);
        for name in interfaces_that_are_up(Path::new(CLASS))? {
            interfaces.set_down(&name)?;
            state.down.push(name);
        }
        Ok(())
    }

    /// Brings up what was taken down, with the addresses and routes that it has had; waits for nothing. All are
    /// tried: the one that is wanted may be the last.
    pub fn bring_up(&self) -> Result<()> {
        let (mut state, interfaces) = (self.lock(), Interfaces::open()?);
        let down = std::mem::take(&mut state.down);
        let outcomes: Vec<_> = down
            .iter()
            .map(|name| {
                interfaces.set_up(name)?;
                match state.given.get(name) {
                    Some((given, metric)) => apply(name, given, *metric),
                    None => Ok(()),
                }
            })
            .collect();
        outcomes.into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(interface: &str, given: &Address, metric: i16) -> Result<()> {
    let interfaces = Interfaces::open()?;
    interfaces.set_address(interface, given.address, given.prefix_length)?;
    routes(given, interface, metric)
        .iter()
        .try_for_each(|route| interfaces.add_route(route))
}

/// The interfaces in `class` that are up, but loopback.
fn interfaces_that_are_up(class: &Path) -> Result<Vec<String>> {
    let mut up = Vec::new();
    for entry in fs::read_dir(class).with_context(|| format!("reading {}", class.display()))? {
        let entry = entry?;
        // One that is gone by now, or no interface (`bonding_masters`).
        let Ok(flags) = fs::read_to_string(entry.path().join("flags")) else {
            continue;
        };
        let flags = u32::from_str_radix(flags.trim_end().trim_start_matches("0x"), 16);
        let flags = flags.with_context(|| format!("reading {}/flags", entry.path().display()))?;
        let is = |flag: i32| flags & flag.cast_unsigned() != 0;
        if is(libc::IFF_UP) && !is(libc::IFF_LOOPBACK) {
            up.extend(entry.file_name().into_string());
        }
    }
    up.sort();
    Ok(up)
}

/// The routes beyond that to the interface's own network, which the kernel makes itself.
fn routes<'a>(given: &Address, interface: &'a str, metric: i16) -> Vec<Route<'a>> {
    let Some(gateway) = given.gateway.filter(|gateway| !gateway.is_unspecified()) else {
        return Vec::new();
    };
    let route = |destination, prefix_length, gateway| Route {
        destination,
        prefix_length,
        gateway,
        interface,
        metric,
    };
    let by_gateway = route(Ipv4Addr::UNSPECIFIED, 0, Some(gateway));
    let mask = u32::from(netmask(given.prefix_length));
    if u32::from(gateway) & mask == u32::from(given.address) & mask {
        return vec![by_gateway];
    }
    // Clouds give single addresses (/32) and a gateway outside of them.
    vec![route(gateway, 32, None), by_gateway]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::enter_private_mounts;
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    #[test]
    fn a_gateway_outside_the_network_gets_a_route_of_its_own() {
        for (prefix_length, gateway, expected) in [
            (24, None, &[][..]),
            (24, Some([0, 0, 0, 0]), &[]),
            (24, Some([10, 0, 0, 1]), &["0.0.0.0/0 via 10.0.0.1 dev eth0"]),
            (
                32,
                Some([10, 0, 0, 1]),
                &["10.0.0.1/32 dev eth0", "0.0.0.0/0 via 10.0.0.1 dev eth0"],
            ),
            (
                24,
                Some([10, 0, 1, 1]),
                &["10.0.1.1/32 dev eth0", "0.0.0.0/0 via 10.0.1.1 dev eth0"],
            ),
        ] {
            let gateway = gateway.map(Ipv4Addr::from);
            let given = Address {
                address: [10, 0, 0, 9].into(),
                prefix_length,
                gateway,
            };
            let found: Vec<_> = routes(&given, "eth0", 100).iter().map(Route::to_string).collect();
            assert_eq!(found, expected, "/{prefix_length} {gateway:?}");
        }
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// `/proc/net/route`: interface, destination, gateway, metric and mask.
    fn kernels_routes() -> Vec<String> {
        let text = fs::read_to_string("/proc/thread-self/net/route").unwrap();
        let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows = text.lines().skip(1).map(fields);
        let mut rows: Vec<_> = rows
            .map(|row| [0, 1, 2, 6, 7].map(|field| row[field].clone()).join(" "))
            .collect();
        rows.sort();
        rows
    }

    fn up() -> Vec<String> {
        interfaces_that_are_up(Path::new(CLASS)).unwrap()
    }

    fn address(last: u8, gateway: [u8; 4]) -> Address {
        Address {
            address: [10, 0, 0, last].into(),
            prefix_length: 24,
            gateway: Some(gateway.into()),
        }
    }

    /// In a network of its own: a cable with two ends, and another one that is not up.
    fn in_a_network_of_its_own(work: fn()) {
        let enter = move || {
            enter_private_mounts().unwrap();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            mount(
                Some("sysfs"),
                "/sys",
                Some("sysfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            for arguments in [
                "link set lo up",
                "link add near type veth peer name far",
                "link add unused type veth peer name too",
                "link set near up",
                "link set far up",
            ] {
                ip(arguments);
            }
            work();
        };
        std::thread::spawn(enter).join().unwrap();
    }

    #[test]
    fn interfaces_come_up_again_with_their_addresses_and_routes() {
        in_a_network_of_its_own(|| {
            let addresses = Addresses::default();
            addresses.give("near", address(9, [10, 0, 0, 1]), 100).unwrap();
            // A gateway outside of the network.
            addresses.give("far", address(8, [192, 0, 2, 1]), 101).unwrap();
            let before = kernels_routes();
            assert_eq!(
                (before.len(), up()),
                (5, vec!["far".to_owned(), "near".to_owned()])
            );
            addresses.take_down().unwrap();
            assert_eq!((kernels_routes(), up()), (vec![], vec![]));
            addresses.bring_up().unwrap();
            assert_eq!((kernels_routes(), up().len()), (before.clone(), 2));
            // That was all.
            ip("link set near down");
            addresses.bring_up().unwrap();
            assert_eq!(up(), ["far"]);
        });
    }

    #[test]
    fn a_lease_that_changes_meanwhile_waits() {
        in_a_network_of_its_own(|| {
            let addresses = Addresses::default();
            addresses.give("near", address(9, [10, 0, 0, 1]), 100).unwrap();
            addresses.take_down().unwrap();
            addresses.give("near", address(7, [10, 0, 0, 2]), 100).unwrap();
            assert_eq!(up(), [""; 0]);
            addresses.bring_up().unwrap();
            assert_eq!(
                kernels_routes(),
                [
                    "near 00000000 0200000A 100 00000000",
                    "near 0000000A 00000000 0 00FFFFFF"
                ]
            );
        });
    }
}
