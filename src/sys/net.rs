//! Network interfaces by the classic ioctls (netdevice(7)), and a network namespace with nothing but `lo` in
//! it.
//!
//! The ioctls answer for the network namespace of the calling thread. Only IPv4 is configured with them.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An interface's name is refused from this length on; the kernel wants room for a final NUL.
const NAME_LIMIT: usize = libc::IFNAMSIZ;

pub struct Interfaces(OwnedFd);

impl Interfaces {
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)
            .context("socket(AF_INET, SOCK_DGRAM)")?;
        Ok(Self(socket))
    }

    pub fn set_up(&self, name: &str) -> Result<()> {
        self.change_flags(name, |flags| flags | libc::IFF_UP as libc::c_short)
    }

    /// Takes the interface `name` down: its driver stops.
    pub fn set_down(&self, name: &str) -> Result<()> {
        self.change_flags(name, |flags| flags & !(libc::IFF_UP as libc::c_short))
    }

    fn change_flags(&self, name: &str, change: impl FnOnce(libc::c_short) -> libc::c_short) -> Result<()> {
        let mut request = request_for(name)?;
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)
            .with_context(|| format!("ioctl(SIOCGIFFLAGS, {name})"))?;
        // SAFETY: the kernel has just filled the union's flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = change(flags);
        self.ioctl(libc::SIOCSIFFLAGS, &mut request)
            .with_context(|| format!("ioctl(SIOCSIFFLAGS, {name})"))
    }

    /// Gives the interface `name` an address instead of the one that it may have.
    pub fn set_address(&self, name: &str, address: Ipv4Addr, prefix_length: u8) -> Result<()> {
        let mut request = request_for(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.ioctl(libc::SIOCSIFADDR, &mut request)
            .with_context(|| format!("ioctl(SIOCSIFADDR, {name}, {address})"))?;
        let mask = netmask(prefix_length);
        request.ifr_ifru.ifru_netmask = socket_address(mask);
        self.ioctl(libc::SIOCSIFNETMASK, &mut request)
            .with_context(|| format!("ioctl(SIOCSIFNETMASK, {name}, {mask})"))
    }

    pub fn set_mtu(&self, name: &str, mtu_bytes: u16) -> Result<()> {
        let mut request = request_for(name)?;
        request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu_bytes);
        self.ioctl(libc::SIOCSIFMTU, &mut request)
            .with_context(|| format!("ioctl(SIOCSIFMTU, {name}, {mtu_bytes})"))
    }

    /// Adds a route through the interface; one that is there already is fine.
    pub fn add_route(&self, route: &Route<'_>) -> Result<()> {
        let device = CString::new(route.interface).context("an interface's name holds no NUL")?;
        // SAFETY: `rtentry` is plain data and pointers, for which all zeros is a valid value.
        let mut entry: libc::rtentry = unsafe { std::mem::zeroed() };
        entry.rt_dst = socket_address(route.destination);
        entry.rt_genmask = socket_address(netmask(route.prefix_length));
        entry.rt_flags = libc::RTF_UP;
        if let Some(gateway) = route.gateway {
            entry.rt_gateway = socket_address(gateway);
            entry.rt_flags |= libc::RTF_GATEWAY;
        }
        // The kernel takes one off: 0 in this field means "not given".
        entry.rt_metric = route.metric.saturating_add(1);
        entry.rt_dev = device.as_ptr().cast_mut();
        // SAFETY: SIOCADDRT reads one `rtentry`, and the name it points to outlives the call; it writes to
        // neither.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCADDRT, &entry) };
        match Errno::result(answer) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)).with_context(|| format!("ioctl(SIOCADDRT, {route})")),
        }
    }

    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the descriptor is open, and every number used in this file takes a pointer to one `ifreq`,
        // which the exclusive reference gives for the duration of the call.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), number, request as *mut libc::ifreq) };
        Ok(Errno::result(answer).map(drop)?)
    }
}

pub struct Route<'a> {
    pub destination: Ipv4Addr,
    /// How many leading bits of the destination count; 0 is the default route.
    pub prefix_length: u8,
    /// Who passes them on; without, the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
    pub interface: &'a str,
    /// Of two routes to the same place the kernel takes the one with the lower metric.
    pub metric: i16,
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_length)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.interface)
    }
}

/// The mask of which the leading bits are set.
pub fn netmask(prefix_length: u8) -> Ipv4Addr {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix_length.min(32)));
    Ipv4Addr::from(bits.unwrap_or(0))
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: `sockaddr_in` is plain data for which all zeros is a valid value.
    let mut inet: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    inet.sin_family = libc::AF_INET as libc::sa_family_t;
    inet.sin_addr.s_addr = u32::from(address).to_be();
    // SAFETY: both are plain data of the same size, made to be cast into each other.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(inet) }
}

fn request_for(name: &str) -> Result<libc::ifreq> {
    if name.is_empty() || name.len() >= NAME_LIMIT || name.bytes().any(|byte| byte == 0 || byte == b'/') {
        return Err(anyhow!("{name:?} cannot be the name of a network interface"));
    }
    // SAFETY: `ifreq` is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Makes a network namespace that holds nothing but `lo`, up, and a listener on a free port of its 127.0.0.1.
///
/// The caller's own namespace stays as it is: the work is done by a thread that ends with it. The namespace
/// lives as long as the returned descriptor or the listener.
pub fn loopback_only_namespace() -> Result<(OwnedFd, TcpListener)> {
    thread::spawn(enter_loopback_only_namespace)
        .join()
        .map_err(|_| anyhow!("the thread that made the network namespace panicked"))?
        .context("making a network namespace with loopback only")
}

fn enter_loopback_only_namespace() -> Result<(OwnedFd, TcpListener)> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
    Interfaces::open()?.set_up("lo")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind(127.0.0.1:0)")?;
    let path = "/proc/thread-self/ns/net";
    let namespace = File::open(path).with_context(|| format!("open({path})"))?;
    Ok((OwnedFd::from(namespace), listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::setns;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn names() -> Vec<String> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        text.lines()
            .skip(2)
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect()
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "a/b", "a\0b", "sixteen-letters!"] {
            assert!(request_for(name).is_err(), "{name:?}");
        }
        assert!(request_for("fifteen-letters").is_ok());
    }

    #[test]
    fn masks_of_all_lengths() {
        for (length, mask) in [
            (0, "0.0.0.0"),
            (1, "128.0.0.0"),
            (24, "255.255.255.0"),
            (31, "255.255.255.254"),
        ] {
            assert_eq!(netmask(length).to_string(), mask, "/{length}");
        }
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
        assert_eq!(netmask(33), Ipv4Addr::BROADCAST);
    }

    /// `/proc/net/route` of a new namespace, after `configure` had its way with `lo`.
    fn routes_after(configure: impl FnOnce(&Interfaces) -> Result<()> + Send + 'static) -> Vec<String> {
        let work = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let interfaces = Interfaces::open().unwrap();
            interfaces.set_up("lo").unwrap();
            configure(&interfaces).unwrap();
            std::fs::read_to_string("/proc/thread-self/net/route").unwrap()
        };
        let text = thread::spawn(work).join().unwrap();
        // Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
        let fields = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let rows = text.lines().skip(1).map(fields);
        rows.map(|row| format!("{} {} via {} metric {}", row[1], row[7], row[2], row[6]))
            .collect()
    }

    #[test]
    fn addresses_and_routes_reach_the_kernel() {
        let routes = routes_after(|interfaces| {
            interfaces.set_address("lo", Ipv4Addr::new(192, 0, 2, 9), 24)?;
            interfaces.set_mtu("lo", 1400)?;
            let default = Route {
                destination: Ipv4Addr::UNSPECIFIED,
                prefix_length: 0,
                gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
                interface: "lo",
                metric: 100,
            };
            interfaces.add_route(&default)?;
            interfaces.add_route(&default)
        });
        assert!(
            routes.contains(&"00000000 00000000 via 010200C0 metric 100".to_owned()),
            "{routes:?}"
        );
    }

    #[test]
    fn an_address_that_the_kernel_refuses_is_named() {
        let work = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Interfaces::open()
                .unwrap()
                .set_address("nosuch0", Ipv4Addr::LOCALHOST, 8)
                .unwrap_err()
        };
        let error = thread::spawn(work).join().unwrap();
        assert_eq!(
            format!("{error:#}"),
            "ioctl(SIOCSIFADDR, nosuch0, 127.0.0.1): No such device (os error 19)"
        );
    }

    #[test]
    fn the_namespace_has_only_lo_and_the_listener_answers_in_it_alone() {
        let outside = names();
        let (namespace, listener) = loopback_only_namespace().unwrap();
        assert_eq!(names(), outside, "the caller's namespace stays");
        let address = listener.local_addr().unwrap();
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens there outside"
        );
        let client = thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"hello").unwrap();
            names()
        });
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(client.join().unwrap(), ["lo"]);
    }
}
