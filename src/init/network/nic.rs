//! The wired network interfaces of this machine, as sysfs shows them.

use std::fs;
use std::path::Path;

/// Where the kernel shows its network interfaces.
pub(super) const CLASS: &str = "/sys/class/net";

/// A wired network interface.
pub(super) struct Nic {
    pub name: String,
    pub index: u32,
    pub address: [u8; 6],
    pub driver: String,
}

/// The wired interfaces in `class` (`/sys/class/net`), by name.
pub(super) fn wired(class: &Path) -> Vec<Nic> {
    let Ok(entries) = fs::read_dir(class) else {
        return Vec::new();
    };
    let nics = entries.flatten().filter_map(|entry| nic_at(&entry.path()));
    let mut nics: Vec<_> = nics.collect();
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

fn nic_at(dir: &Path) -> Option<Nic> {
    let text = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        Some(text.trim_end().to_owned())
    };
    // ARPHRD_ETHER, backed by a device (not a bridge, a bond, a tunnel), and no radio.
    let is_wired = text("type")? == "1" && dir.join("device").exists() && !dir.join("phy80211").exists();
    if !is_wired {
        return None;
    }
    let bytes: Option<Vec<u8>> = text("address")?
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let driver = fs::read_link(dir.join("device/driver")).ok();
    Some(Nic {
        name: dir.file_name()?.to_str()?.to_owned(),
        index: text("ifindex")?.parse().ok()?,
        address: bytes?.try_into().ok()?,
        driver: driver
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .unwrap_or_else(|| "unknown driver".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_wired_interfaces_count() {
        let class = tempfile::tempdir().unwrap();
        for (name, kind, device, radio) in [
            ("eth1", "1", true, false),
            ("eth0", "1", true, false),
            ("lo", "772", false, false),
            ("br0", "1", false, false),
            ("wlan0", "1", true, true),
            ("ib0", "32", true, false),
        ] {
            let dir = class.path().join(name);
            fs::create_dir(&dir).unwrap();
            for (file, text) in [("type", kind), ("address", "52:54:00:12:34:ab"), ("ifindex", "7")] {
                fs::write(dir.join(file), format!("{text}\n")).unwrap();
            }
            if device {
                fs::create_dir(dir.join("device")).unwrap();
                symlink("../../drivers/virtio_net", dir.join("device/driver")).unwrap();
            }
            if radio {
                fs::create_dir(dir.join("phy80211")).unwrap();
            }
        }
        let nics = wired(class.path());
        let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        let Nic {
            index,
            address,
            driver,
            ..
        } = &nics[0];
        assert_eq!(
            (*index, *address, driver.as_str()),
            (7, [0x52, 0x54, 0, 0x12, 0x34, 0xab], "virtio_net")
        );
    }
}
