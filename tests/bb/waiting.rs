//! Waiting for conditions, never longer than a deadline.

use std::time::{Duration, Instant};

/// Longest wait for anything: generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Looks again and again until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks again and again until there is something, and returns it.
pub(crate) fn find<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, || {
        found = look();
        found.is_some()
    });
    found.unwrap()
}

/// Waits exactly as long as an answer asked for.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// How long something took, with what it gave.
pub(crate) fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = act();
    (done, begin.elapsed())
}
