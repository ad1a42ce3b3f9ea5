//! The DHCP client of one interface (RFC 2131), which keeps its lease as long as it runs.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::device::Device;

/// The first answer may take a while where switches look for loops first, so it's asked often rather than
/// long.
const REPEAT_AFTER: Duration = Duration::from_secs(4);

/// Options of RFC 2132.
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const INTERFACE_MTU: u8 = 26;

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub gateway: Option<Ipv4Addr>,
    pub nameservers: Vec<Ipv4Addr>,
    pub server: Ipv4Addr,
    pub extras: Extras,
}

/// What a server may give besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub hostname: Option<String>,
    pub domain: Option<String>,
    pub mtu_bytes: Option<u16>,
}

/// What becomes of the lease.
pub(super) enum Change {
    /// A new one, or the same with other contents.
    Given(Lease),
    /// It expired without being renewed.
    Lost,
}

/// Asks for a lease and keeps it; tells of every change. Ends only with an error.
pub(super) fn keep(mut device: Device, address: [u8; 6], mut tell: impl FnMut(Change)) -> Result<()> {
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(address)));
    config.random_seed = random_seed()?;
    let mut interface = Interface::new(config, &mut device, Instant::now());
    let mut packet = [0; 1500];
    let mut socket = dhcpv4::Socket::new();
    let mut retry = socket.get_retry_config();
    retry.discover_timeout = REPEAT_AFTER;
    retry.initial_request_timeout = REPEAT_AFTER;
    socket.set_retry_config(retry);
    socket.set_parameter_request_list(&[
        SUBNET_MASK,
        ROUTER,
        NAME_SERVER,
        HOST_NAME,
        DOMAIN_NAME,
        INTERFACE_MTU,
    ]);
    socket.set_receive_packet_buffer(&mut packet);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);
    let mut current = None;
    loop {
        interface.poll(Instant::now(), &mut device, &mut sockets);
        match sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                let lease = lease_of(&config);
                use_address(&mut interface, &lease);
                if current.as_ref() != Some(&lease) {
                    current = Some(lease.clone());
                    tell(Change::Given(lease));
                }
            }
            Some(dhcpv4::Event::Deconfigured) => {
                interface.update_ip_addrs(|addresses| addresses.clear());
                if current.take().is_some() {
                    tell(Change::Lost);
                }
            }
            None => {}
        }
        let delay = interface.poll_delay(Instant::now(), &sockets);
        wait(&device, delay.map(time::Duration::from))?;
    }
}

/// The client asks its server directly when it renews the lease, so it has to know its own address.
fn use_address(interface: &mut Interface, lease: &Lease) {
    let address = smoltcp::wire::Ipv4Cidr::new(lease.address, lease.prefix_length);
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        // There is room for at least one.
        let _ = addresses.push(IpCidr::Ipv4(address));
    });
    match lease.gateway {
        Some(gateway) => drop(interface.routes_mut().add_default_ipv4_route(gateway)),
        None => drop(interface.routes_mut().remove_default_ipv4_route()),
    }
}

fn lease_of(config: &dhcpv4::Config<'_>) -> Lease {
    let extras = match &config.packet {
        Some(packet) => extras(packet.options().map(|option| (option.kind, option.data))),
        None => Extras::default(),
    };
    Lease {
        address: config.address.address(),
        prefix_length: config.address.prefix_len(),
        gateway: config.router,
        nameservers: config.dns_servers.to_vec(),
        server: config.server.identifier,
        extras,
    }
}

fn extras<'a>(options: impl Iterator<Item = (u8, &'a [u8])>) -> Extras {
    let mut extras = Extras::default();
    for (kind, data) in options {
        match kind {
            HOST_NAME => extras.hostname = domain_name(data),
            DOMAIN_NAME => extras.domain = domain_name(data),
            // RFC 2132 5.1 allows 68; RFC 791 asks every host for 576, and less is an attack on our patience.
            INTERFACE_MTU => {
                let mtu = data.try_into().map(u16::from_be_bytes).ok();
                extras.mtu_bytes = mtu.filter(|mtu| *mtu >= 576);
            }
            _ => {}
        }
    }
    extras
}

/// A name that may go to the kernel and into `resolv.conf`: whoever answers first isn't to be trusted with
/// more.
fn domain_name(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok()?;
    let text = text.trim_end_matches('\0').trim_end_matches('.');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (!text.is_empty() && text.bytes().all(fits)).then(|| text.to_owned())
}

/// Waits for a frame, or until the client has something to do.
fn wait(device: &Device, delay: Option<time::Duration>) -> Result<()> {
    let timeout = delay.map_or(PollTimeout::NONE, |delay| {
        // Rounded up: it must not come early and then turn in circles.
        let millis = delay.as_millis().saturating_add(1);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("poll(packet socket)"),
    }
    let failed = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    if fds[0].revents().is_some_and(|events| events.intersects(failed)) {
        // The interface is down or gone; don't turn in circles meanwhile.
        sleep(time::Duration::from_secs(1));
    }
    Ok(())
}

fn random_seed() -> Result<u64> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("reading /dev/urandom")?;
    Ok(u64::from_ne_bytes(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_strangers() {
        for (data, name) in [
            (&b"node7"[..], Some("node7")),
            (b"lab.example.com\0", Some("lab.example.com")),
            (b"lab.", Some("lab")),
            (b"", None),
            (b"\0", None),
            (b"a b", None),
            (b"a\nnameserver 192.0.2.66", None),
            (b"\xff", None),
        ] {
            assert_eq!(domain_name(data).as_deref(), name, "{data:?}");
        }
    }

    #[test]
    fn options_that_serve_and_options_that_do_not() {
        let options = [
            (HOST_NAME, &b"n"[..]),
            (DOMAIN_NAME, b"d.e"),
            (INTERFACE_MTU, &[0x05, 0xdc]),
            (53, &[5]),
        ];
        let expected = Extras {
            hostname: Some("n".into()),
            domain: Some("d.e".into()),
            mtu_bytes: Some(1500),
        };
        assert_eq!(extras(options.into_iter()), expected);
        for (data, mtu) in [
            (&[0x02, 0x3f][..], None),
            (&[0x02, 0x40], Some(576)),
            (&[5], None),
            (&[0, 5, 0xdc], None),
        ] {
            assert_eq!(
                extras([(INTERFACE_MTU, data)].into_iter()).mtu_bytes,
                mtu,
                "{data:?}"
            );
        }
    }
}
