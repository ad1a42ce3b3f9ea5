//! Fuzz targets: what strangers' bytes may do to this program, and what never happens whatever they are.
//!
//! A target is one function of [`TARGETS`] that panics where its invariant is broken, and seeds made by code:
//! those that a person would try first. `tests/fuzz` runs them under libFuzzer; the test below replays the
//! seeds on every change. Built for tests and for the fuzzer only.

mod boot_entry;
mod config_drive;
mod filesystem;
mod gpt;
mod hints;
mod image;
mod layer;
mod registry;
pub(crate) mod shown;

use std::path::Path;

/// What the fuzzer calls, and what it begins with.
pub struct Target {
    /// Its name, which is also that of its file in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Does it with these bytes.
    pub run: fn(&[u8]),
    /// Bytes that are worth a try, each with a name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "auth_file",
        run: auth_file,
        seeds: registry::auth_files,
    },
    Target {
        name: "boot_entry",
        run: boot_entry,
        seeds: boot_entry::seeds,
    },
    Target {
        name: "challenge",
        run: challenge,
        seeds: registry::challenges,
    },
    Target {
        name: "config_drive",
        run: config_drive,
        seeds: config_drive::seeds,
    },
    Target {
        name: "error_body",
        run: error_body,
        seeds: registry::error_bodies,
    },
    Target {
        name: "filesystem",
        run: filesystem,
        seeds: filesystem::seeds,
    },
    Target {
        name: "gpt",
        run: gpt,
        seeds: gpt::seeds,
    },
    Target {
        name: "hints",
        run: hints,
        seeds: hints::seeds,
    },
    Target {
        name: "layer",
        run: layer,
        seeds: layer::seeds,
    },
    Target {
        name: "manifest",
        run: manifest,
        seeds: image::manifests,
    },
    Target {
        name: "reference",
        run: reference,
        seeds: image::references,
    },
    Target {
        name: "registries_conf",
        run: registries_conf,
        seeds: registry::registries_confs,
    },
];

/// A boot entry of the firmware: what is read is written alike.
pub fn boot_entry(data: &[u8]) {
    boot_entry::run(data);
}

/// A config drive in any packing: bounded, and nothing is lost on its way to FAT.
pub fn config_drive(data: &[u8]) {
    config_drive::run(data);
}

/// A file system, read from its bytes: bounded, and labels cannot steer a terminal.
pub fn filesystem(data: &[u8]) {
    filesystem::run(data);
}

/// A partition table, read, added to and written: it stays on the disk, and loses nothing.
pub fn gpt(data: &[u8]) {
    gpt::run(data);
}

/// Root device hints: whatever they are, the reason why a disk is not chosen cannot steer a terminal.
pub fn hints(data: &[u8]) {
    hints::run(data);
}

/// A layer's blob, unpacked over another one: nothing outside its directory changes, what can be unpacked can
/// be merged, and what cannot leaves nothing.
pub fn layer(data: &[u8]) {
    layer::run(data);
}

/// The name of an image, wherever it is: what is a name means the same when it is written and read again.
pub fn reference(data: &[u8]) {
    image::reference(data);
}

/// A manifest or an index, and a config: whatever they say, an image has no more layers and bytes than can be
/// worked with.
pub fn manifest(data: &[u8]) {
    image::manifest(data);
}

/// A file of credentials, or a pull secret.
pub fn auth_file(data: &[u8]) {
    registry::auth_file(data);
}

/// A registries.conf: every image is somewhere, under a name that is one.
pub fn registries_conf(data: &[u8]) {
    registry::registries_conf(data);
}

/// What a registry demands.
pub fn challenge(data: &[u8]) {
    registry::challenge(data);
}

/// What a registry or a token server says when it fails.
pub fn error_body(data: &[u8]) {
    registry::error_body(data);
}

/// Puts the seeds of the target `name` into `corpus`, a directory, before the fuzzer reads it.
pub fn plant(name: &str, corpus: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    for (seed, bytes) in (target.expect("a target of that name").seeds)() {
        let path = Path::new(corpus).join(format!("seed {seed}"));
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("writing {path:?}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_breaks_its_target() {
        for target in TARGETS {
            for (seed, bytes) in (target.seeds)() {
                let run = || (target.run)(&bytes);
                assert!(
                    std::panic::catch_unwind(run).is_ok(),
                    "{}: {seed}: see above",
                    target.name
                );
            }
        }
    }

    #[test]
    fn every_target_has_its_file_for_the_fuzzer() {
        for target in TARGETS {
            let file = format!(
                "{}/tests/fuzz/fuzz_targets/{}.rs",
                env!("CARGO_MANIFEST_DIR"),
                target.name
            );
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(
                text.contains(&format!("landfall::fuzz::{}(", target.name)),
                "{file}"
            );
        }
    }
}
