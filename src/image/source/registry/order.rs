//! Which of several endpoints is asked next. Mirrors come first, the registry itself last; it is never given
//! up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::image::oci::Digest;

/// What is known of the endpoints, by their numbers.
pub struct Order {
    /// Those that failed; the last one's entry means nothing.
    given_up: Vec<AtomicBool>,
    blobs: Mutex<HashMap<Digest, Provenance>>,
}

#[derive(Clone, Copy, Default)]
struct Provenance {
    /// The first that may still be asked for it.
    from: usize,
    /// Where its first bytes came from the last time.
    served_by: Option<usize>,
}

impl Order {
    pub fn new(count: usize) -> Self {
        Self {
            given_up: (0..count).map(|_| AtomicBool::new(false)).collect(),
            blobs: Mutex::default(),
        }
    }

    pub fn first(&self) -> usize {
        self.next(0)
    }

    /// The endpoint to ask after `endpoint`; none after the last.
    pub fn after(&self, endpoint: usize) -> Option<usize> {
        (endpoint + 1 < self.given_up.len()).then(|| self.next(endpoint + 1))
    }

    /// Who is asked first for `blob`.
    pub fn first_for(&self, blob: &Digest) -> usize {
        let from = self.blobs().get(blob).map_or(0, |known| known.from);
        self.next(from)
    }

    pub fn give_up(&self, endpoint: usize) {
        self.given_up[endpoint].store(true, Ordering::Relaxed);
    }

    pub fn given_up<'a, T>(&self, endpoints: &'a [T]) -> impl Iterator<Item = &'a T> {
        let gone = |index: &usize| self.given_up[*index].load(Ordering::Relaxed);
        let indexes: Vec<usize> = (0..endpoints.len()).filter(gone).collect();
        indexes.into_iter().map(|index| &endpoints[index])
    }

    /// The first bytes of `blob` came from this one.
    pub fn served(&self, blob: &Digest, endpoint: usize) {
        self.blobs().entry(blob.clone()).or_default().served_by = Some(endpoint);
    }

    /// What came for `blob` was something else. Gives the endpoint that sent it and the one to ask now;
    /// `None` if none is left.
    pub fn distrust(&self, blob: &Digest) -> Option<(usize, usize)> {
        let served_by = self.blobs().get_mut(blob)?.served_by.take()?;
        let next = self.after(served_by)?;
        self.blobs().entry(blob.clone()).or_default().from = next;
        Some((served_by, next))
    }

    /// The first from `from` on that isn't given up.
    fn next(&self, from: usize) -> usize {
        let last = self.given_up.len() - 1;
        let alive = |index: &usize| !self.given_up[*index].load(Ordering::Relaxed);
        (from..last).find(alive).unwrap_or(last)
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Provenance>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::digest::sha256;

    #[test]
    fn what_failed_is_not_asked_again_but_for_the_last() {
        let order = Order::new(3);
        assert_eq!(
            (order.first(), order.after(0), order.after(2)),
            (0, Some(1), None)
        );
        order.give_up(1);
        assert_eq!((order.first(), order.after(0)), (0, Some(2)));
        order.give_up(0);
        order.give_up(2);
        assert_eq!(
            (order.first(), order.after(0), order.after(2)),
            (2, Some(2), None)
        );
        assert_eq!(Order::new(1).first(), 0);
    }

    #[test]
    fn wrong_bytes_are_one_blobs_affair() {
        let (order, blob, other) = (Order::new(3), sha256(b"a"), sha256(b"b"));
        assert_eq!(order.distrust(&blob), None);
        order.served(&blob, 1);
        assert_eq!(order.distrust(&blob), Some((1, 2)));
        assert_eq!(
            (order.first_for(&blob), order.first_for(&other), order.first()),
            (2, 0, 0)
        );
        // It is told once.
        assert_eq!(order.distrust(&blob), None);
        order.served(&blob, 2);
        assert_eq!(order.distrust(&blob), None);
    }
}
