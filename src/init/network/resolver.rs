//! `/etc/resolv.conf`: who is asked for addresses of names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};

/// The C library asks no more than three (resolv.conf(5)).
const LIMIT: usize = 3;

/// Name servers and search domains of all interfaces.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    given: Vec<IpAddr>,
    learned: BTreeMap<String, (Vec<IpAddr>, Option<String>)>,
}

impl Resolver {
    /// Starts with the name servers of the kernel command line.
    pub(super) fn with(given: Vec<IpAddr>) -> Self {
        Self {
            given,
            learned: BTreeMap::new(),
        }
    }

    /// Takes what was learned on an interface, instead of what it knew of it, and writes the file.
    pub(super) fn learn(
        &mut self,
        interface: &str,
        servers: Vec<IpAddr>,
        domain: Option<String>,
    ) -> Result<()> {
        self.learned.insert(interface.to_owned(), (servers, domain));
        let text = self.text();
        if text.is_empty() {
            return Ok(());
        }
        fs::create_dir_all("/etc").context("mkdir(/etc)")?;
        fs::write("/etc/resolv.conf", text).context("writing /etc/resolv.conf")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let learned = self.learned.values();
        let domains: Vec<_> = learned
            .clone()
            .filter_map(|(_, domain)| domain.as_deref())
            .collect();
        if !domains.is_empty() {
            let _ = writeln!(text, "search {}", domains.join(" "));
        }
        let mut servers: Vec<&IpAddr> = Vec::new();
        for server in self.given.iter().chain(learned.flat_map(|(servers, _)| servers)) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        for server in servers.into_iter().take(LIMIT) {
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn given_servers_come_first_and_three_are_enough() {
        let mut resolver = Resolver::with(vec![address(9)]);
        assert_eq!(resolver.text(), "nameserver 10.0.0.9\n");
        resolver.learned.insert(
            "eth1".into(),
            (vec![address(2), address(3)], Some("b.example".into())),
        );
        resolver.learned.insert(
            "eth0".into(),
            (vec![address(9), address(1)], Some("a.example".into())),
        );
        assert_eq!(
            resolver.text(),
            "search a.example b.example\nnameserver 10.0.0.9\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n"
        );
        assert_eq!(Resolver::default().text(), "");
    }
}
