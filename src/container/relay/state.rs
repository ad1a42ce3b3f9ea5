//! What all connections of a relay share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::image::oci::{Digest, Image};
use crate::image::source::Source;

/// This many failures are remembered.
const MAX_FAILURES: usize = 8;

/// Where the relay takes the layers' blobs from.
pub struct Blobs {
    /// Files that hold verified blobs. They may vanish at any time; then the source is asked.
    pub cached: HashMap<Digest, PathBuf>,
    /// Where the other blobs come from, unverified.
    pub source: Arc<dyn Source>,
}

/// What all connections share.
pub struct State {
    pub image: Arc<Image>,
    pub blobs: Blobs,
    pub counters: Counters,
}

/// What was given out so far.
#[derive(Default)]
pub struct Counters {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub from_cache: AtomicU64,
    pub from_source: AtomicU64,
    pub failures: Mutex<Vec<String>>,
}

impl Counters {
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    pub fn failed(&self, why: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // Clients try again.
        if failures.len() < MAX_FAILURES && !failures.contains(&why) {
            failures.push(why);
        }
    }
}
