//! What the kernel command line says of modules: elsewhere modprobe(8) reads that.

/// The parameters of a module on the kernel command line: the kernel looks at them for built-in ones only.
pub(super) fn parameters(words: &[String], name: &str) -> String {
    let of_module = |word: &String| -> Option<String> {
        let (module, parameter) = word.split_once('.')?;
        if module.replace('-', "_") != name {
            return None;
        }
        Some(match parameter.split_once('=') {
            Some((key, value)) if value.contains(' ') => format!("{key}=\"{value}\""),
            _ => parameter.to_owned(),
        })
    };
    words.iter().filter_map(of_module).collect::<Vec<_>>().join(" ")
}

/// Whether the kernel command line says that no device's wish is to load it.
pub(super) fn is_blacklisted(words: &[String], name: &str) -> bool {
    let lists = words.iter().filter_map(|word| match word.split_once('=')? {
        ("modprobe.blacklist" | "rd.driver.blacklist", list) => Some(list),
        _ => None,
    });
    lists
        .flat_map(|list| list.split(','))
        .any(|listed| listed.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn parameters_come_from_the_kernel_command_line() {
        let mut words = words(
            "quiet nvme.timeout=9 nvme_core.x=1 nvme.flag usb-storage.quirks=1:2:u landfall.image=nvme",
        );
        words.push("nvme.text=a b".to_owned());
        for (name, expected) in [
            ("nvme", "timeout=9 flag text=\"a b\""),
            ("usb_storage", "quirks=1:2:u"),
            ("overlay", ""),
        ] {
            assert_eq!(parameters(&words, name), expected);
        }
    }

    #[test]
    fn blacklists_come_from_the_kernel_command_line() {
        let words = words("modprobe.blacklist=ahci,mpt3-sas rd.driver.blacklist=ixgbe blacklist=x");
        for (name, expected) in [("ahci", true), ("mpt3_sas", true), ("ixgbe", true), ("x", false)] {
            assert_eq!(is_blacklisted(&words, name), expected, "{name}");
        }
    }
}
