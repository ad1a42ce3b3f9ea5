//! Preflight: pure decisions over facts that others have gathered. Nothing is read or written here.

use anyhow::{Result, bail};
use serde::Serialize;

/// What Landfall itself needs while it pulls, in bytes.
const PULL_BYTES: u64 = 64 << 20;
/// What the image's bootc, skopeo and their like need beyond the unpacked image, in bytes (seen: 170 to 185 MiB).
const INSTALL_BYTES: u64 = 224 << 20;

/// What is to be done with an image; it decides how much memory that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A command is run in it.
    Run,
    /// It installs itself.
    Install,
}

/// How memory is shared out, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What is needed at least.
    pub needed_bytes: u64,
    /// What there is, or what the user allows.
    pub available_bytes: u64,
    /// How large the store may grow.
    pub store_bytes: u64,
    /// Whether compressed blobs are kept where there is room, for the image's own skopeo to read again.
    pub keep_blobs: bool,
}

impl Memory {
    /// Shares out `available_bytes` for an image that takes (an estimate of) `unpacked_bytes` in the store.
    pub fn plan(purpose: Purpose, unpacked_bytes: u64, available_bytes: u64) -> Result<Self> {
        let beside = match purpose {
            Purpose::Run => PULL_BYTES,
            Purpose::Install => PULL_BYTES + INSTALL_BYTES,
        };
        let needed_bytes = unpacked_bytes.saturating_add(beside);
        if needed_bytes > available_bytes {
            bail!(
                "the image needs {} of memory, {} is available: use a machine with more, or a smaller image",
                size(needed_bytes),
                size(available_bytes)
            );
        }
        // What is kept free for programs isn't the store's; what the estimate was wrong by may be.
        let store_bytes = available_bytes - beside;
        Ok(Self {
            needed_bytes,
            available_bytes,
            store_bytes,
            keep_blobs: purpose == Purpose::Install,
        })
    }
}

/// A size as people read it, e.g. `2.6 GiB`.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} bytes")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let needed = 1000 * MIB + PULL_BYTES + INSTALL_BYTES;
        let fits = Memory::plan(Purpose::Install, 1000 * MIB, needed).unwrap();
        assert_eq!(
            (fits.needed_bytes, fits.store_bytes, fits.keep_blobs),
            (needed, 1000 * MIB, true)
        );
        let error = Memory::plan(Purpose::Install, 1000 * MIB, needed - 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the image needs 1.3 GiB of memory, 1.3 GiB is available"),
            "{error}"
        );
        assert!(Memory::plan(Purpose::Install, u64::MAX, needed).is_err());
    }

    #[test]
    fn a_command_needs_less_and_keeps_nothing() {
        let plan = Memory::plan(Purpose::Run, 100 * MIB, 200 * MIB).unwrap();
        assert_eq!(
            (plan.needed_bytes, plan.keep_blobs),
            (100 * MIB + PULL_BYTES, false)
        );
    }

    #[test]
    fn sizes_as_people_read_them() {
        assert_eq!(
            [0, 1023, 1536, 64 * MIB, 5 << 40].map(size),
            ["0 bytes", "1023 bytes", "1.5 KiB", "64.0 MiB", "5.0 TiB"]
        );
    }
}
