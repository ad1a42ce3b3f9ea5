//! How long each phase took, and how much memory the machine had in use for it.
//!
//! Memory is what the whole machine has less of than at the start: the store, this process, the image's programs and
//! what they hold in page caches that cannot be dropped. It's sampled, so a peak shorter than the interval is missed.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::progress::Phase;

const INTERVAL: Duration = Duration::from_millis(50);

/// What one phase cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// The phase.
    pub phase: Phase,
    /// Wall-clock time.
    pub seconds: f64,
    /// The most memory in use at once, in bytes, beyond what was in use at the start.
    pub peak_memory_bytes: u64,
}

/// Measures phase after phase.
pub struct Meter {
    lowest_available: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    available_at_start: u64,
    costs: Mutex<Vec<Cost>>,
}

impl Meter {
    /// Starts sampling.
    pub fn start() -> Self {
        let available_at_start = available_memory_bytes().unwrap_or(0);
        let meter = Self {
            lowest_available: Arc::new(AtomicU64::new(available_at_start)),
            stop: Arc::default(),
            available_at_start,
            costs: Mutex::default(),
        };
        let (lowest, stop) = (Arc::clone(&meter.lowest_available), Arc::clone(&meter.stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                sample(&lowest);
                thread::sleep(INTERVAL);
            }
        });
        meter
    }

    /// Runs `work` as `phase` and notes what it cost, however it ends.
    pub async fn measure<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        self.lowest_available.store(u64::MAX, Ordering::Relaxed);
        sample(&self.lowest_available);
        let result = work.await;
        sample(&self.lowest_available);
        let lowest = self.lowest_available.load(Ordering::Relaxed);
        let cost = Cost {
            phase,
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_bytes: self.available_at_start.saturating_sub(lowest),
        };
        self.costs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(cost);
        result
    }

    /// What was measured so far.
    pub fn costs(&self) -> Vec<Cost> {
        self.costs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(lowest: &AtomicU64) {
    if let Some(available) = available_memory_bytes() {
        lowest.fetch_min(available, Ordering::Relaxed);
    }
}

/// The memory that new work can have without swapping, in bytes: `MemAvailable` of proc(5).
pub fn available_memory_bytes() -> Option<u64> {
    parse_available(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_as_the_kernel_writes_it() {
        let meminfo = "MemTotal:       24000000 kB\nMemFree:         100 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(parse_available(meminfo), Some(2 << 20));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }

    #[tokio::test]
    async fn every_phase_has_its_cost() {
        let meter = Meter::start();
        assert_eq!(meter.measure(Phase::Plan, async { 7 }).await, 7);
        meter.measure(Phase::Pull, std::future::ready(())).await;
        let phases: Vec<_> = meter.costs().iter().map(|cost| cost.phase).collect();
        assert_eq!(phases, [Phase::Plan, Phase::Pull]);
    }
}
