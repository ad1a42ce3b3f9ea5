//! When to try again: exponential backoff with jitter, bounded in number; a server's `Retry-After` is obeyed
//! within reason (RFC 9110, section 10.2.3). Any progress starts the count anew, unless it is too slow to be
//! of use.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The longest wait that a server's `Retry-After` can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// How often and how patiently to try again.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many times a request is repeated without progress.
    pub retries: u32,
    /// The first wait; each further one is twice as long.
    pub first_wait: Duration,
    /// No wait is longer than this, unless the server asks for it.
    pub longest_wait: Duration,
    /// A transfer that brings fewer bytes than this …
    pub least_bytes: u64,
    /// … in this time is too slow. Time in which the reader is not ready doesn't count.
    pub slow_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            least_bytes: 16 << 10,
            slow_after: Duration::from_secs(30),
        }
    }
}

impl Policy {
    /// How many times a request is repeated where nothing has ever listened: mostly a typo.
    pub fn retries_if_refused(&self) -> u32 {
        (self.retries / 2).max(1).min(self.retries)
    }
}

/// The state of one operation that may be repeated.
#[derive(Debug)]
pub struct Backoff {
    policy: Policy,
    /// Failures since the last progress.
    in_a_row: u32,
    /// How many times in a row it was too slow.
    slow: u32,
    /// How long was waited since the pace was looked at, and what came meanwhile.
    waited: Duration,
    bytes: u64,
}

impl Backoff {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            in_a_row: 0,
            slow: 0,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Notes bytes that came, and how long that took.
    pub fn received(&mut self, bytes: u64, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
    }

    /// Something was brought forward.
    pub fn progress(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether too little came in the time that it took. Each such time is one failure, whatever came.
    pub fn is_too_slow(&mut self) -> bool {
        if self.waited < self.policy.slow_after {
            return false;
        }
        let is_slow = self.bytes < self.policy.least_bytes;
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        is_slow
    }

    /// How many failures there were before this one.
    pub fn failures(&self) -> u32 {
        self.in_a_row.max(self.slow.saturating_sub(1))
    }

    /// After a failure: how long to wait before the next try, or `None` to give up. `asked` is what the
    /// server said.
    pub fn next_wait(&mut self, asked: Option<Duration>) -> Option<Duration> {
        // A connection that breaks all the time is slow, too.
        self.is_too_slow();
        let failures = self.failures();
        if failures >= self.policy.retries {
            return None;
        }
        self.in_a_row += 1;
        let doubled = self.policy.first_wait.saturating_mul(1 << failures.min(16));
        let own = jitter(doubled.min(self.policy.longest_wait));
        self.waited += own;
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
            ..Policy::default()
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
    fn every_bit_of_progress_forgives() {
        let mut backoff = Backoff::new(policy(1));
        for _ in 0..1000 {
            assert!(backoff.next_wait(None).is_some());
            backoff.received(16 << 10, Duration::ZERO);
            backoff.progress();
        }
        assert!(backoff.next_wait(None).is_some());
        assert_eq!(backoff.next_wait(None), None);
    }

    #[test]
    fn what_is_too_slow_is_given_up_although_it_moves() {
        let mut backoff = Backoff::new(policy(2));
        let (second, mut seconds) = (Duration::from_secs(1), 0);
        let mut drip = |backoff: &mut Backoff, bytes| loop {
            backoff.received(bytes, second);
            backoff.progress();
            seconds += 1;
            if backoff.is_too_slow() || bytes >= 1024 && seconds > 1000 {
                return;
            }
        };
        for tries in 0..2 {
            drip(&mut backoff, 1);
            assert_eq!(backoff.failures(), tries);
            assert!(backoff.next_wait(None).is_some());
        }
        // A good while begins anew.
        drip(&mut backoff, 1024);
        for _ in 0..2 {
            drip(&mut backoff, 1);
            assert!(backoff.next_wait(None).is_some());
        }
        drip(&mut backoff, 1);
        assert_eq!((backoff.failures(), backoff.next_wait(None)), (2, None));
    }

    #[test]
    fn a_byte_a_request_is_too_slow() {
        let mut backoff = Backoff::new(policy(2));
        let requests = std::iter::from_fn(|| {
            backoff.received(1, Duration::ZERO);
            backoff.progress();
            backoff.next_wait(None)
        });
        let waited: Duration = requests.take(10_000).sum();
        assert!(waited < 5 * policy(2).slow_after, "{waited:?}");
    }

    #[test]
    fn who_never_listened_is_asked_less_often() {
        for (retries, expected) in [(0, 0), (1, 1), (2, 1), (5, 2), (50, 25)] {
            assert_eq!(policy(retries).retries_if_refused(), expected);
        }
    }

    #[test]
    fn no_retries_means_none() {
        assert_eq!(Backoff::new(policy(0)).next_wait(None), None);
    }
}
