//! When to try again: exponential backoff with jitter, bounded in number; a server's `Retry-After` is obeyed within
//! reason (RFC 9110, section 10.2.3).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The longest wait that a server's `Retry-After` can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A transfer that has moved on by so many bytes is healthy again; its failures in a row are forgotten.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Even a transfer that always moves on is given up after this many times the allowed retries.
const TOTAL_FACTOR: u32 = 20;

/// How often and how patiently to try again.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many times a request is repeated without progress.
    pub retries: u32,
    /// The first wait; each further one is twice as long.
    pub first_wait: Duration,
    /// No wait is longer than this, unless the server asks for it.
    pub longest_wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// The state of one operation that may be repeated.
#[derive(Debug)]
pub struct Backoff {
    policy: Policy,
    in_a_row: u32,
    total: u32,
    progress_bytes: u64,
}

impl Backoff {
    /// No failures yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            in_a_row: 0,
            total: 0,
            progress_bytes: 0,
        }
    }

    /// So many bytes have arrived.
    pub fn progress(&mut self, bytes: u64) {
        self.progress_bytes += bytes;
        if self.progress_bytes >= PROGRESS_BYTES {
            self.in_a_row = 0;
        }
    }

    /// How many failures there were so far.
    pub fn failures(&self) -> u32 {
        self.total
    }

    /// After a failure: how long to wait before the next try, or `None` to give up. `asked` is what the server said.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.in_a_row >= self.policy.retries || self.total >= self.policy.retries * TOTAL_FACTOR {
            return None;
        }
        let doubled = self.policy.first_wait.saturating_mul(1 << self.in_a_row.min(16));
        self.in_a_row += 1;
        self.total += 1;
        self.progress_bytes = 0;
        let own = jitter(doubled.min(self.policy.longest_wait));
        Some(asked.map_or(own, |asked| asked.min(LONGEST_WAIT).max(own)))
    }
}

/// Something between half of `wait` and all of it: machines that failed together don't come back together.
fn jitter(wait: Duration) -> Duration {
    // The standard library seeds each `RandomState` differently; nothing here needs better randomness.
    let random = RandomState::new().build_hasher().finish();
    wait.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retries: u32) -> Policy {
        Policy {
            retries,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(4),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let mut backoff = Backoff::new(policy(4));
        for longest in [1, 2, 4, 4] {
            let wait = backoff.next_wait(None).unwrap();
            let longest = Duration::from_secs(longest);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
        }
        assert_eq!(backoff.next_wait(None), None);
    }

    #[test]
    fn the_server_is_obeyed_within_reason() {
        let mut backoff = Backoff::new(policy(3));
        assert_eq!(
            backoff.next_wait(Some(Duration::from_secs(7))),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            backoff.next_wait(Some(Duration::from_secs(86_400))),
            Some(LONGEST_WAIT)
        );
        // Zero would mean a busy loop.
        assert!(backoff.next_wait(Some(Duration::ZERO)).unwrap() >= Duration::from_secs(2));
    }

    #[test]
    fn progress_forgives_but_not_for_ever() {
        let mut backoff = Backoff::new(policy(1));
        assert!(backoff.next_wait(None).is_some());
        backoff.progress(PROGRESS_BYTES - 1);
        assert_eq!(backoff.next_wait(None), None);
        backoff.progress(1);
        let more = std::iter::from_fn(|| {
            let wait = backoff.next_wait(None);
            backoff.progress(PROGRESS_BYTES);
            wait
        });
        assert_eq!(more.take(1000).count(), TOTAL_FACTOR as usize - 1);
    }

    #[test]
    fn no_retries_means_none() {
        assert_eq!(Backoff::new(policy(0)).next_wait(None), None);
    }
}
