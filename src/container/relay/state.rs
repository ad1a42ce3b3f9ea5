//! What all connections of a relay share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::place::Door;
use crate::image::oci::{Digest, Image};
use crate::image::source::Source;

/// This many failures are remembered.
const MAX_FAILURES: usize = 8;

/// Where the relay takes the layers' blobs from.
pub struct Blobs {
    /// Files that hold verified blobs. They may vanish at any time; then the source is asked.
    pub cached: HashMap<Digest, PathBuf>,
    /// Where the other blobs come from, unverified; `None` if all are cached.
    pub source: Option<Arc<dyn Source>>,
}

/// What the relay gave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub requests: u64,
    /// How many of them asked for something else than the image, or to write.
    pub refused: u64,
    /// Bytes of blobs that came from the cache, the config included.
    pub bytes_from_cache: u64,
    /// Bytes of blobs that came from the source again.
    pub bytes_from_source: u64,
    /// Why blobs could not be given, at most a few different reasons.
    pub failures: Vec<String>,
}

pub struct State {
    pub door: Door,
    pub image: Arc<Image>,
    pub blobs: Blobs,
    pub served: Mutex<Served>,
}

impl State {
    pub fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn failed(&self, why: String) {
        let failures = &mut self.served().failures;
        // Clients try again.
        if failures.len() < MAX_FAILURES && !failures.contains(&why) {
            failures.push(why);
        }
    }
}
