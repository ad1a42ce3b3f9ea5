//! `ip=`, `nameserver=` and `BOOTIF=`: how the network comes up.
//!
//! Pure. The kernel's own grammar (Documentation/admin-guide/nfs/nfsroot.rst) and those of dracut's forms
//! (dracut.cmdline(7)) that speak of IPv4.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, anyhow, bail};

/// How the network comes up. The default is DHCP on every wired interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// What `ip=` said, each time.
    pub setups: Vec<Setup>,
    /// What `nameserver=` said; they are asked first.
    pub nameservers: Vec<IpAddr>,
    /// The hardware address of the interface that the machine was booted from (`BOOTIF=`).
    pub boot_interface: Option<[u8; 6]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The interface it is for; without, any.
    pub interface: Option<String>,
    pub method: Method,
    pub hostname: Option<String>,
    /// Name servers, after those of `nameserver=`.
    pub nameservers: Vec<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu_bytes: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Dhcp,
    /// Not at all.
    Off,
    /// It is given.
    Static {
        address: Ipv4Addr,
        /// How many of its leading bits name the network.
        prefix_length: u8,
        gateway: Option<Ipv4Addr>,
    },
}

impl Network {
    pub fn off() -> Self {
        let setup = Setup {
            method: Method::Off,
            ..Setup::default()
        };
        Self {
            setups: vec![setup],
            ..Self::default()
        }
    }

    /// Reads the words of the kernel command line.
    pub fn parse(words: &[String]) -> Result<Self> {
        let mut network = Self::default();
        for (key, value) in words.iter().filter_map(|word| word.split_once('=')) {
            let outcome = match key {
                "ip" => Setup::parse(value).map(|setup| network.setups.push(setup)),
                "nameserver" => nameserver(value).map(|address| network.nameservers.push(address)),
                "BOOTIF" => hardware_address(value).map(|address| network.boot_interface = Some(address)),
                // Better no network than one that is not the one that was meant.
                "bond" | "bridge" | "team" | "vlan" => {
                    Err(anyhow!("only plain interfaces can be set up here"))
                }
                _ => Ok(()),
            };
            outcome.with_context(|| format!("reading {key}={value} on the kernel command line"))?;
        }
        Ok(network)
    }

    /// How the interface of this name and hardware address is to be set up; `None` if it's left alone.
    pub fn setup_for(&self, name: &str, address: [u8; 6]) -> Option<Setup> {
        let is_named = |setup: &&Setup| setup.interface.as_deref() == Some(name);
        if let Some(setup) = self.setups.iter().find(is_named) {
            return Some(setup.clone());
        }
        if self.boot_interface.is_some_and(|boot| boot != address) {
            return None;
        }
        if self.setups.is_empty() {
            return Some(Setup::default());
        }
        let mut setups = self.setups.iter();
        setups.find(|setup| setup.interface.is_none()).cloned()
    }

    pub fn is_off(&self) -> bool {
        !self.setups.is_empty() && self.setups.iter().all(|setup| setup.method == Method::Off)
    }
}

impl Setup {
    fn parse(value: &str) -> Result<Self> {
        if value.contains('[') || value.contains("6:") || value.ends_with('6') && !value.contains('.') {
            bail!("only IPv4 can be set here; IPv6 comes from router advertisements");
        }
        let fields: Vec<_> = value.split(':').collect();
        match fields[..] {
            [word] if !is_address(word) => Ok(Self {
                method: method_named(word)?,
                ..Self::default()
            }),
            [first, ..] if first.is_empty() || is_address(first) => Self::with_addresses(&fields),
            [device, word, ref rest @ ..] if rest.len() <= 2 => Ok(Self {
                interface: Some(device.to_owned()),
                method: method_named(word)?,
                mtu_bytes: optional(rest.first().unwrap_or(&""), "an MTU")?,
                ..Self::default()
            }),
            _ => bail!(
                "neither ip=dhcp, nor ip=DEVICE:dhcp, nor ip=ADDRESS:SERVER:GATEWAY:NETMASK:HOST:DEVICE:..."
            ),
        }
    }

    /// `client:server:gateway:netmask:hostname:device:autoconf:dns0:dns1:ntp0`, or with `mtu:mac` after
    /// `autoconf`.
    fn with_addresses(fields: &[&str]) -> Result<Self> {
        if fields.len() > 10 {
            bail!("there are more than ten fields");
        }
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        let autoconf = field(6);
        let method = match optional::<Ipv4Addr>(field(0), "an address")? {
            Some(address) => Method::Static {
                address,
                prefix_length: prefix_length(field(3))?,
                gateway: optional(field(2), "a gateway")?,
            },
            None if autoconf.is_empty() => Method::Dhcp,
            None => method_named(autoconf)?,
        };
        let text = |index| Some(field(index).to_owned()).filter(|text| !text.is_empty());
        let mut setup = Self {
            interface: text(5),
            method,
            hostname: text(4),
            ..Self::default()
        };
        if !field(7).is_empty() && field(7).bytes().all(|byte| byte.is_ascii_digit()) {
            setup.mtu_bytes = optional(field(7), "an MTU")?;
        } else {
            let servers = [field(7), field(8)].into_iter();
            let servers = servers.filter(|server| !matches!(*server, "" | "0.0.0.0"));
            setup.nameservers = servers.map(nameserver).collect::<Result<_>>()?;
        }
        Ok(setup)
    }
}

fn method_named(word: &str) -> Result<Method> {
    match word {
        "dhcp" | "on" | "any" | "both" | "single-dhcp" => Ok(Method::Dhcp),
        "off" | "none" => Ok(Method::Off),
        other => bail!("{other:?} is not a way to get an address: use dhcp or off"),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

fn optional<T: std::str::FromStr>(text: &str, what: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = text.parse().map(Some);
    value.map_err(|_| anyhow!("{text:?} is not {what}"))
}

/// Reads `255.255.255.0` or `24`.
fn prefix_length(text: &str) -> Result<u8> {
    if let Ok(length @ 0..=32) = text.parse() {
        return Ok(length);
    }
    let mask: Option<Ipv4Addr> = text.parse().ok();
    match mask.map(u32::from) {
        Some(mask) if mask.leading_ones() + mask.trailing_zeros() == 32 => Ok(mask.leading_ones() as u8),
        Some(0) => Ok(0),
        _ => bail!("{text:?} is not a netmask: write e.g. 255.255.255.0"),
    }
}

fn nameserver(text: &str) -> Result<IpAddr> {
    let text = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .map_err(|_| anyhow!("{text:?} is not the address of a name server"))
}

/// Reads `01-52-54-00-12-34-56` (as PXE boot loaders write it: 01 is Ethernet), also without `01` and with
/// colons.
fn hardware_address(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(['-', ':']).map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().unwrap_or_default();
    let address = match bytes.len() {
        7 if bytes[0] == 1 => &bytes[1..],
        _ => &bytes[..],
    };
    address
        .try_into()
        .map_err(|_| anyhow!("{text:?} is not the hardware address of an Ethernet interface"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::kernel::command_line::words;

    fn setup(value: &str) -> Result<Setup> {
        Setup::parse(value)
    }

    fn dhcp() -> Setup {
        Setup::default()
    }

    fn fixed(address: [u8; 4], prefix_length: u8, gateway: Option<[u8; 4]>) -> Method {
        Method::Static {
            address: address.into(),
            prefix_length,
            gateway: gateway.map(Ipv4Addr::from),
        }
    }

    #[test]
    fn the_forms_of_the_kernel_and_of_dracut() {
        let eth0 = || Some("eth0".to_owned());
        for (value, expected) in [
            ("dhcp", dhcp()),
            ("on", dhcp()),
            (
                "off",
                Setup {
                    method: Method::Off,
                    ..dhcp()
                },
            ),
            (
                "none",
                Setup {
                    method: Method::Off,
                    ..dhcp()
                },
            ),
            (
                "eth0:dhcp",
                Setup {
                    interface: eth0(),
                    ..dhcp()
                },
            ),
            (
                "eth0:dhcp:9000",
                Setup {
                    interface: eth0(),
                    mtu_bytes: Some(9000),
                    ..dhcp()
                },
            ),
            (
                "eth0:off",
                Setup {
                    interface: eth0(),
                    method: Method::Off,
                    ..dhcp()
                },
            ),
            (
                "::::node7:eth0:dhcp",
                Setup {
                    interface: eth0(),
                    hostname: Some("node7".into()),
                    ..dhcp()
                },
            ),
            (
                ":::::eth0",
                Setup {
                    interface: eth0(),
                    ..dhcp()
                },
            ),
            (
                "10.0.0.9:::24",
                Setup {
                    method: fixed([10, 0, 0, 9], 24, None),
                    ..dhcp()
                },
            ),
            (
                "10.0.0.9::10.0.0.1:255.255.255.0:node7:eth0:off:10.0.0.2:10.0.0.3:10.0.0.4",
                Setup {
                    interface: eth0(),
                    method: fixed([10, 0, 0, 9], 24, Some([10, 0, 0, 1])),
                    hostname: Some("node7".into()),
                    nameservers: vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
                    mtu_bytes: None,
                },
            ),
            (
                "10.0.0.9::10.0.0.1:255.255.0.0::eth0:none:1400:52:54",
                Setup {
                    interface: eth0(),
                    method: fixed([10, 0, 0, 9], 16, Some([10, 0, 0, 1])),
                    mtu_bytes: Some(1400),
                    ..dhcp()
                },
            ),
        ] {
            assert_eq!(setup(value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for value in [
            "",
            "dhcp6",
            "auto6",
            "eth0:dhcp6",
            "[2001:db8::1]::[2001:db8::2]:64::eth0:none",
            "10.0.0.9",
            "10.0.0.9:::255.0.255.0",
            "10.0.0.9:::33",
            "10.0.0.9::gw:24",
            "eth0:static",
            "eth0:dhcp:mtu",
            "eth0:dhcp:1400:52:54",
            "10.0.0.9:::24:::::::x",
            "10.0.0.9:::24:::off:dns",
        ] {
            assert!(setup(value).is_err(), "{value}");
        }
    }

    #[test]
    fn netmasks() {
        for (text, length) in [
            ("0", Some(0)),
            ("32", Some(32)),
            ("0.0.0.0", Some(0)),
            ("128.0.0.0", Some(1)),
            ("255.255.255.255", Some(32)),
            ("255.255.255.1", None),
            ("", None),
        ] {
            assert_eq!(prefix_length(text).ok(), length, "{text}");
        }
    }

    fn network(cmdline: &str) -> Network {
        Network::parse(&words(cmdline)).unwrap()
    }

    #[test]
    fn the_rest_of_the_network() {
        let network = network("nameserver=10.0.0.2 nameserver=[fd00::1] BOOTIF=01-52-54-00-12-34-AB quiet");
        assert_eq!(
            network.nameservers,
            ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        assert_eq!(network.boot_interface, Some([0x52, 0x54, 0, 0x12, 0x34, 0xab]));
        let error = Network::parse(&words("BOOTIF=52-54")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "reading BOOTIF=52-54 on the kernel command line: \"52-54\" is not the hardware address of an Ethernet \
             interface"
        );
    }

    #[test]
    fn what_is_not_understood_is_not_ignored() {
        for key in ["bond", "bridge", "team", "vlan"] {
            let error = Network::parse(&words(&format!("{key}=x0:eth0"))).unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                format!(
                    "reading {key}=x0:eth0 on the kernel command line: only plain interfaces can be set up here"
                )
            );
        }
    }

    #[test]
    fn which_interface_gets_what() {
        const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
        const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
        for (cmdline, eth0, eth1) in [
            ("", true, true),
            ("ip=dhcp", true, true),
            ("ip=eth1:dhcp", false, true),
            ("BOOTIF=01-02-00-00-00-00-0a", true, false),
            ("ip=dhcp BOOTIF=02:00:00:00:00:0b", false, true),
            ("ip=eth0:dhcp BOOTIF=01-02-00-00-00-00-0b", true, false),
        ] {
            let network = network(cmdline);
            let found = (
                network.setup_for("eth0", A).is_some(),
                network.setup_for("eth1", B).is_some(),
            );
            assert_eq!(found, (eth0, eth1), "{cmdline}");
        }
        assert!(network("ip=off").is_off() && network("ip=eth0:off").is_off());
        assert!(!network("").is_off() && !network("ip=eth0:off ip=eth1:dhcp").is_off());
    }
}
