//! Which disk is meant: the first that satisfies the root device hints, or "the obvious one"
//! (ironic-python-agent, `guess_root_disk`).

use std::fmt;

use serde::Serialize;

use super::discover::BlockDevice;
use super::hints::Hints;

/// What the obvious disk has at least, in bytes.
const OBVIOUS_AT_LEAST_BYTES: u64 = 4 << 30;

#[derive(Debug, thiserror::Error)]
#[error("no disk matches: {}", list(.rejected))]
pub struct NoDisk {
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    pub name: String,
    pub because: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name, self.because)
    }
}

fn list(rejected: &[Rejected]) -> String {
    if rejected.is_empty() {
        return "this kernel sees no disks".into();
    }
    let rejected: Vec<_> = rejected.iter().map(Rejected::to_string).collect();
    rejected.join("; ")
}

/// Chooses among `found`; the rest is told why not. With hints it is the first that satisfies them, in the
/// order of `lsblk`, as ironic-python-agent finds them; without any the smallest disk of 4 GiB or more that
/// is not removable, and of several the first by name.
pub fn choose(found: &[BlockDevice], hints: &Hints) -> Result<(BlockDevice, Vec<Rejected>), NoDisk> {
    let (mut fitting, mut rejected) = (Vec::new(), Vec::new());
    for each in found {
        match mismatch(each, hints) {
            None => fitting.push(each),
            Some(because) => rejected.push(Rejected {
                name: each.disk.name.clone(),
                because,
            }),
        }
    }
    if hints.is_empty() {
        fitting.sort_by_key(|each| (each.disk.size_bytes, &each.disk.name));
    }
    let mut fitting = fitting.into_iter();
    let Some(chosen) = fitting.next() else {
        return Err(NoDisk { rejected });
    };
    let because = format!("{} comes first", chosen.disk.name);
    rejected.extend(fitting.map(|each| Rejected {
        name: each.disk.name.clone(),
        because: because.clone(),
    }));
    Ok((chosen.clone(), rejected))
}

fn mismatch(device: &BlockDevice, hints: &Hints) -> Option<String> {
    if let Some(excluded) = device.excluded {
        Some(excluded.into())
    } else if !hints.is_empty() {
        hints.mismatch(&device.disk)
    } else if device.removable {
        Some("its medium is removable".into())
    } else if device.disk.size_bytes < OBVIOUS_AT_LEAST_BYTES {
        Some("smaller than 4 GiB".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::disk::find::sysfs_fixture::disk;

    const GIB: u64 = 1 << 30;

    fn chosen(found: &[BlockDevice], hints: &Hints) -> Result<String, String> {
        choose(found, hints)
            .map(|(chosen, _)| chosen.disk.name)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_the_smallest_that_is_large_enough() {
        let mut stick = disk("/dev/sda", 8 * GIB);
        stick.removable = true;
        let mut locked = disk("/dev/sdb", 8 * GIB);
        locked.excluded = Some("read-only");
        let found = [
            stick,
            locked,
            disk("/dev/sdc", 4 * GIB - 1),
            disk("/dev/sde", 4 * GIB),
            disk("/dev/sdd", 4 * GIB),
        ];
        assert_eq!(chosen(&found, &Hints::default()), Ok("/dev/sdd".into()));
        assert_eq!(
            chosen(&found[..3], &Hints::default()),
            Err(
                "no disk matches: /dev/sda: its medium is removable; /dev/sdb: read-only; /dev/sdc: smaller \
                 than 4 GiB"
                    .into()
            )
        );
        assert_eq!(
            chosen(&[], &Hints::default()),
            Err("no disk matches: this kernel sees no disks".into())
        );
    }

    #[test]
    fn hints_take_the_first_and_say_why_not_the_others() {
        let found = [
            disk("/dev/sda", GIB),
            disk("/dev/sdb", 10 * GIB),
            disk("/dev/sdc", 10 * GIB),
        ];
        let hints = "size=10".parse().unwrap();
        let (chosen, rejected) = choose(&found, &hints).unwrap();
        assert_eq!(chosen.disk.name, "/dev/sdb");
        let rejected: Vec<_> = rejected.iter().map(Rejected::to_string).collect();
        assert_eq!(
            rejected,
            [
                "/dev/sda: size is 1 GiB, wanted \"10\"",
                "/dev/sdc: /dev/sdb comes first"
            ]
        );
    }
}
