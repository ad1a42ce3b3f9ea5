//! How long each phase took, and how much memory the machine had in use for it. A phase is measured as it is
//! shown: it begins when it is announced, and ends when the next begins.
//!
//! Memory is what the whole machine has less of than at the start: the store, this process, the image's
//! programs and what they hold in page caches that cannot be dropped. It's sampled, so a peak shorter than
//! the interval is missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::console::progress::{Event, Phase, Progress};
use crate::machine::memory::available_memory_bytes;

const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    pub phase: Phase,
    /// Wall-clock time.
    pub seconds: f64,
    /// The most memory in use at once, in bytes, beyond what was in use at the start.
    pub peak_memory_bytes: u64,
}

/// Measures phase after phase, as they are told.
pub struct Meter(Arc<Measured>);

struct Measured {
    lowest_available: AtomicU64,
    available_at_start: u64,
    phases: Mutex<Phases>,
}

#[derive(Default)]
struct Phases {
    over: Vec<Cost>,
    current: Option<(Phase, Instant)>,
}

impl Meter {
    /// Starts sampling. What is told to the progress that this gives is told to `progress`, and its phases
    /// are measured.
    pub fn start(progress: &Progress) -> (Self, Progress) {
        let available_at_start = available_memory_bytes().unwrap_or(0);
        let measured = Arc::new(Measured {
            lowest_available: AtomicU64::new(available_at_start),
            available_at_start,
            phases: Mutex::default(),
        });
        let meter = Self(Arc::clone(&measured));
        // For as long as anybody measures.
        let sampled = Arc::downgrade(&measured);
        thread::spawn(move || {
            while sampled.upgrade().map(|measured| measured.sample()).is_some() {
                thread::sleep(INTERVAL);
            }
        });
        let progress = progress.clone();
        let metered = Progress::to(move |event| {
            if let Event::Phase(phase) = event {
                measured.begin(phase);
            }
            progress.tell(event);
        });
        (meter, metered)
    }

    /// What each phase cost. The last one is over now.
    pub fn costs(&self) -> Vec<Cost> {
        let mut phases = self.0.phases();
        self.0.end(&mut phases);
        phases.over.clone()
    }
}

impl Measured {
    /// The phase before is over.
    fn begin(&self, phase: Phase) {
        let mut phases = self.phases();
        self.end(&mut phases);
        self.lowest_available.store(u64::MAX, Ordering::Relaxed);
        self.sample();
        phases.current = Some((phase, Instant::now()));
    }

    fn phases(&self) -> MutexGuard<'_, Phases> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, phases: &mut Phases) {
        let Some((phase, since)) = phases.current.take() else {
            return;
        };
        self.sample();
        let lowest = self.lowest_available.load(Ordering::Relaxed);
        phases.over.push(Cost {
            phase,
            seconds: since.elapsed().as_secs_f64(),
            peak_memory_bytes: self.available_at_start.saturating_sub(lowest),
        });
    }

    fn sample(&self) {
        if let Some(available) = available_memory_bytes() {
            self.lowest_available.fetch_min(available, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_is_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let (meter, progress) = Meter::start(&Progress::to(move |event| {
            if let Event::Phase(phase) = event {
                sink.lock().unwrap().push(phase);
            }
        }));
        assert!(meter.costs().is_empty());
        progress.enter(Phase::Plan);
        progress.enter(Phase::Pull);
        let measured: Vec<_> = meter.costs().iter().map(|cost| cost.phase).collect();
        assert_eq!(measured, [Phase::Plan, Phase::Pull]);
        assert_eq!(*told.lock().unwrap(), measured);
        assert_eq!(meter.costs().len(), 2);
    }
}
