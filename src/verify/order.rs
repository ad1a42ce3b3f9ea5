//! Which boot entry comes first, as the boot loaders sort them. Pure.

use std::cmp::Reverse;

/// What entries are sorted by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Key<'a> {
    /// The file's name, without `.conf`.
    pub(super) name: &'a str,
    pub(super) sort_key: Option<&'a str>,
    pub(super) machine_id: Option<&'a str>,
    pub(super) version: Option<&'a str>,
}

impl<'a> Key<'a> {
    /// The least is first for systemd-boot (UAPI.1 Boot Loader Specification, "Sorting").
    pub(super) fn for_systemd_boot(self) -> impl Ord + use<'a> {
        (
            self.sort_key.is_none(),
            self.sort_key,
            self.machine_id,
            Reverse(pieces(self.version.unwrap_or_default())),
            Reverse(pieces(self.name)),
        )
    }

    /// The least is first for GRUB's `blscfg`, which reads the file's name as that of an RPM package: name,
    /// version, release.
    pub(super) fn for_grub(self) -> impl Ord + use<'a> {
        let mut parts: Vec<_> = self.name.rsplitn(3, '-').map(pieces).collect();
        parts.reverse();
        Reverse(parts)
    }
}

/// A piece of a version. Letters come before numbers.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'a> {
    Letters(&'a [u8]),
    /// How many digits there are, without leading zeros, and which.
    Number(usize, &'a [u8]),
}

/// A version as rpm and systemd compare it: numbers as numbers, letters as letters, and anything else
/// separates.
fn pieces(version: &str) -> Vec<Piece<'_>> {
    let words = version.as_bytes().split(|byte| !byte.is_ascii_alphanumeric());
    words
        .flat_map(|word| word.chunk_by(|one, next| one.is_ascii_digit() == next.is_ascii_digit()))
        .map(|piece| {
            if !piece[0].is_ascii_digit() {
                return Piece::Letters(piece);
            }
            let zeros = piece.iter().take_while(|digit| **digit == b'0').count();
            Piece::Number(piece.len() - zeros, &piece[zeros..])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_starts_what_has_the_greatest_name() {
        for names in [
            // ostree, with and without the stateroot; the newest deployment has the greatest number.
            &["ostree-2", "ostree-1"][..],
            &["ostree-10-default", "ostree-9-default", "ostree-2-default"],
            // bootc: the one that is upgraded to is 1.
            &["bootc_fedora-41.20251125.0-1", "bootc_fedora-41.20251124.0-0"],
            &["bootc_fedora-41.20251125.0-1", "bootc_fedora-41.20251125.0-0"],
            &["bootc_fedora-41.20251125.0-1", "bootc_fedora-41.20251125-1"],
            &["bootc_fedora-42-0", "bootc_fedora-41-1"],
        ] {
            let mut sorted = names.to_vec();
            sorted.reverse();
            sorted.sort_by_key(|name| {
                Key {
                    name,
                    ..Key::default()
                }
                .for_grub()
            });
            assert_eq!(sorted, names);
        }
    }

    #[test]
    fn systemd_boot_goes_by_sort_key_then_by_version() {
        let key = |name, sort_key, version| Key {
            name,
            sort_key,
            version,
            machine_id: None,
        };
        let sorted = [
            key("a", Some("bootc-fedora-0"), Some("41")),
            key("b", Some("bootc-fedora-1"), Some("42.10")),
            key("c", Some("bootc-fedora-1"), Some("42.9")),
            key("z", None, Some("43")),
            key("y", None, Some("43")),
        ];
        let mut keys = sorted;
        keys.reverse();
        keys.sort_by_key(|key| key.for_systemd_boot());
        assert_eq!(keys.map(|key| key.name), sorted.map(|key| key.name));
    }
}
