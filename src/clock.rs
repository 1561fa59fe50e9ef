//! The only place that reads a clock: microseconds since the Unix epoch that never step back.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A wall clock carried forward by the monotonic one.
///
/// A step of the system clock forwards (a machine that woke up, the first NTP answer) is followed
/// at the next [`Clock::follow_wall`]; a step back is waited out, so buckets never see time run
/// backwards and nobody gains or loses units by it.
pub struct Clock {
    started: Instant,
    /// wall time at `started`, plus every forward step followed since, in microseconds
    base_us: AtomicU64,
    /// how far the wall was ahead (positive) or behind at the last look, in microseconds
    last_drift_us: AtomicI64,
}

/// A drift below this is jitter between two reads of two clocks, not a step.
const STEP_US: i64 = 500_000;

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that agrees with the wall now.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that may read the clock"
    )]
    pub fn new() -> Self {
        Clock {
            started: Instant::now(),
            base_us: AtomicU64::new(wall_us()),
            last_drift_us: AtomicI64::new(0),
        }
    }

    /// Microseconds since the Unix epoch.
    pub fn now_us(&self) -> u64 {
        self.base_us.load(Ordering::Relaxed) + micros(self.started.elapsed())
    }

    /// The time a stopwatch was started at, without another look at the hardware.
    pub fn at_start_of(&self, stopwatch: Stopwatch) -> u64 {
        let since = stopwatch.0.saturating_duration_since(self.started);
        self.base_us.load(Ordering::Relaxed) + micros(since)
    }

    /// Follows the wall clock if it has stepped forward; returns the drift in microseconds that
    /// was found (positive: the wall was ahead). Meant to be called once a second.
    pub fn follow_wall(&self) -> i64 {
        let drift = wall_us() as i64 - self.now_us() as i64;
        if drift > STEP_US {
            self.base_us.fetch_add(drift as u64, Ordering::Relaxed);
        }
        self.last_drift_us.store(drift, Ordering::Relaxed);
        drift
    }
}

/// A stopwatch for latencies: started at a request's arrival, read when it is logged.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that may read the clock"
    )]
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The moment so long after the start.
    pub fn after(&self, wait: Duration) -> Instant {
        self.0.checked_add(wait).unwrap_or(self.0)
    }

    /// Microseconds since the start.
    pub fn elapsed_us(&self) -> u64 {
        micros(self.0.elapsed())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that may read the clock"
)]
fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards_and_is_close_to_the_wall() {
        let clock = Clock::new();
        let first = clock.now_us();
        let second = clock.now_us();
        assert!(second >= first);
        assert!(clock.follow_wall().abs() < STEP_US);
    }

    #[test]
    fn a_wall_clock_that_is_ahead_is_followed_and_one_behind_is_waited_out() {
        let clock = Clock::new();
        clock.base_us.fetch_sub(3_600_000_000, Ordering::Relaxed);
        let behind = clock.now_us();
        assert!(clock.follow_wall() > STEP_US);
        assert!(clock.now_us() >= behind + 3_599_000_000);

        clock.base_us.fetch_add(3_600_000_000, Ordering::Relaxed);
        let ahead = clock.now_us();
        assert!(clock.follow_wall() < -STEP_US);
        assert!(clock.now_us() >= ahead);
    }
}
