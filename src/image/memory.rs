//! Preflight: pure decisions on facts that others have gathered. Nothing is read or written here.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::console::text::size;
use crate::image::estimate::Estimate;

/// What Landfall itself needs while it pulls, in bytes.
const PULL_BYTES: u64 = 64 << 20;
/// What the image's bootc, skopeo and their like need beyond the unpacked image, in bytes (seen: 170 to 185
/// MiB).
pub const INSTALL_BYTES: u64 = 224 << 20;

/// What a program of the image needs when nothing is installed, in bytes.
const RUN_BYTES: u64 = 32 << 20;

/// What is to be done with an image; it decides how much memory that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Run,
    Install,
}

/// How memory is shared out, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the image takes in the store.
    #[serde(skip)]
    pub unpacked: Estimate,
    pub needed_at_least_bytes: u64,
    pub needed_bytes: u64,
    pub is_guess: bool,
    /// What there is, or what the user allows.
    pub available_bytes: u64,
    /// How large the store may grow.
    pub store_bytes: u64,
    /// Whether compressed blobs are kept where there is room, for the image's own skopeo to read again.
    pub keep_blobs: bool,
}

impl Memory {
    /// Shares out `available_bytes` for an image that takes `unpacked` in the store. What isn't known is no
    /// reason to refuse.
    pub fn plan(purpose: Purpose, unpacked: Estimate, available_bytes: u64) -> Result<Self> {
        let beside = match purpose {
            Purpose::Run => PULL_BYTES + unpacked.window_bytes,
            // Nothing is unpacked any more when the image installs itself.
            Purpose::Install => PULL_BYTES + INSTALL_BYTES.max(unpacked.window_bytes),
        };
        let needed_at_least_bytes = unpacked.at_least_bytes.saturating_add(beside);
        if needed_at_least_bytes > available_bytes {
            bail!(
                "the image needs {} of memory, but {} is available: use a machine with more, or a smaller \
                 image",
                size(needed_at_least_bytes),
                size(available_bytes)
            );
        }
        // What is kept free for programs isn't the store's; what the estimate was wrong by may be.
        let store_bytes = available_bytes - beside;
        Ok(Self {
            unpacked,
            needed_at_least_bytes,
            needed_bytes: unpacked.likely_bytes.saturating_add(beside),
            is_guess: unpacked.is_guess,
            available_bytes,
            store_bytes,
            keep_blobs: purpose == Purpose::Install,
        })
    }

    /// What a container may use, in bytes: what is `available_bytes` now and allowed still, when `stored_bytes`
    /// are in the store, but for what Landfall needs itself. Never less than what the image was let in for.
    pub fn of_programs(&self, available_bytes: u64, stored_bytes: u64) -> u64 {
        let least = if self.keep_blobs { INSTALL_BYTES } else { RUN_BYTES };
        let allowed = self.available_bytes.saturating_sub(stored_bytes);
        let left = allowed.min(available_bytes).saturating_sub(PULL_BYTES);
        left.max(least)
    }

    /// What to say where the image may turn out not to fit.
    pub fn doubt(&self) -> Option<String> {
        let guess = if self.is_guess {
            " (a guess: its source does not say how large it is)"
        } else {
            ""
        };
        (self.needed_bytes > self.available_bytes).then(|| {
            format!(
                "the image may need about {} of memory{guess}, but {} is available: if that is too little, \
                 the pull stops before anything is written",
                size(self.needed_bytes),
                size(self.available_bytes)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn unpacked(at_least_bytes: u64, likely_bytes: u64) -> Estimate {
        Estimate {
            at_least_bytes,
            likely_bytes,
            is_guess: likely_bytes / 2 > at_least_bytes,
            window_bytes: 0,
        }
    }

    #[test]
    fn what_surely_does_not_fit_is_refused_with_both_figures() {
        let needed = 1000 * MIB + PULL_BYTES + INSTALL_BYTES;
        let image = unpacked(1000 * MIB, 1000 * MIB);
        let fits = Memory::plan(Purpose::Install, image, needed).unwrap();
        assert_eq!(
            (fits.needed_bytes, fits.store_bytes, fits.keep_blobs),
            (needed, 1000 * MIB, true)
        );
        assert_eq!(fits.doubt(), None);
        let error = Memory::plan(Purpose::Install, image, needed - 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the image needs 1.3 GiB of memory, but 1.3 GiB is available"),
            "{error}"
        );
        let endless = unpacked(u64::MAX, u64::MAX);
        assert!(Memory::plan(Purpose::Install, endless, needed).is_err());
    }

    #[test]
    fn what_may_not_fit_is_said_with_both_figures() {
        for (likely, expected) in [
            (
                1080 * MIB,
                "may need about 1.3 GiB of memory, but 1.3 GiB is available",
            ),
            (
                5 << 30,
                "may need about 5.3 GiB of memory (a guess: its source does not say how large it is), but 1.3 GiB",
            ),
        ] {
            let needed = 1000 * MIB + PULL_BYTES + INSTALL_BYTES;
            let plan = Memory::plan(Purpose::Install, unpacked(1000 * MIB, likely), needed).unwrap();
            assert_eq!(plan.store_bytes, 1000 * MIB);
            let doubt = plan.doubt().unwrap();
            assert!(doubt.contains(expected), "{doubt}");
        }
    }

    #[test]
    fn a_command_needs_less_and_keeps_nothing() {
        let plan = Memory::plan(Purpose::Run, unpacked(100 * MIB, 100 * MIB), 200 * MIB).unwrap();
        assert_eq!(
            (plan.needed_bytes, plan.keep_blobs),
            (100 * MIB + PULL_BYTES, false)
        );
    }

    #[test]
    fn programs_have_what_is_left() {
        let plan = |purpose| Memory::plan(purpose, unpacked(100 * MIB, 100 * MIB), 1000 * MIB).unwrap();
        let (install, run) = (plan(Purpose::Install), plan(Purpose::Run));
        let mib = |plan: Memory, available, stored| plan.of_programs(available * MIB, stored * MIB) / MIB;
        assert_eq!(mib(install, 5000, 100), 836);
        assert_eq!(mib(install, 500, 100), 436);
        assert_eq!((mib(install, 5000, 900), mib(run, 5000, 900)), (224, 36));
        assert_eq!((mib(install, 10, 100), mib(run, 10, 100)), (224, 32));
    }

    #[test]
    fn a_large_window_has_room_beside_the_layers() {
        let image = Estimate {
            window_bytes: 64 * MIB,
            ..unpacked(100 * MIB, 100 * MIB)
        };
        let plan = Memory::plan(Purpose::Run, image, 300 * MIB).unwrap();
        assert_eq!(
            (plan.needed_bytes, plan.store_bytes),
            (164 * MIB + PULL_BYTES, 236 * MIB - PULL_BYTES)
        );
        // It is closed before anybody needs what an installation needs.
        let plan = Memory::plan(Purpose::Install, image, 500 * MIB).unwrap();
        assert_eq!(plan.needed_bytes, 100 * MIB + PULL_BYTES + INSTALL_BYTES);
    }
}
