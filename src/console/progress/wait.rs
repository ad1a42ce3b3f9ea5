//! What the program waits for, and for how long: announced when it begins and when it ends, shown while
//! nothing else is.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something that may take long.
#[derive(Clone)]
pub struct Wait(Arc<Awaited>);

struct Awaited {
    what: Box<dyn Fn() -> String + Send + Sync>,
    limit: Option<Duration>,
}

impl Wait {
    /// Waits for what a text says, such as "asking the registry".
    pub fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        Self::telling(move || what.clone())
    }

    /// Waits for something that changes: `what` is asked each time it is shown, and must tell no events.
    pub fn telling(what: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (what, limit) = (Box::new(what) as Box<_>, None);
        Self(Arc::new(Awaited { what, limit }))
    }

    /// After `limit` it will be over, one way or the other.
    pub fn at_most(self, limit: Duration) -> Self {
        let limit = Some(limit);
        match Arc::try_unwrap(self.0) {
            Ok(awaited) => Self(Arc::new(Awaited { limit, ..awaited })),
            Err(shared) => Self(Arc::new(Awaited {
                what: Box::new(move || (shared.what)()),
                limit,
            })),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Wait({:?})", (self.0.what)())
    }
}

/// All waits, as the one who shows them keeps them.
#[derive(Default)]
pub(super) struct Waits(Vec<(Wait, Instant)>);

impl Waits {
    pub(super) fn begin(&mut self, wait: Wait, now: Instant) {
        self.0.push((wait, now));
    }

    pub(super) fn end(&mut self, over: &Wait) {
        self.0.retain(|(wait, _)| !Arc::ptr_eq(&wait.0, &over.0));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is waited for since the shortest time: the others wait for that.
    pub(super) fn latest(&self, now: Instant) -> Option<String> {
        let (wait, since) = self.0.last()?;
        let (what, time) = ((wait.0.what)(), seconds(now.duration_since(*since)));
        Some(match wait.0.limit {
            Some(limit) => format!("{what} ({time} of at most {})", seconds(limit)),
            None => format!("{what} ({time} so far)"),
        })
    }
}

/// A time as people say it.
pub(super) fn human(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        seconds(time)
    }
}

/// The same without fractions, for a time that goes on.
pub(super) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (millis, text) in [
            (0, "0.0 s"),
            (9_949, "9.9 s"),
            (10_999, "10 s"),
            (200_000, "3 min 20 s"),
            (7_380_000, "2 h 3 min"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), text);
        }
    }
}
