//! The circuit breaker: after a few failures in a row nobody waits for the store any more, until a
//! probe has found it well.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Failures in a row that open it.
const FAILURES: u32 = 5;

/// Open: do not ask. It starts open, and only [`Breaker::close`] closes it.
pub struct Breaker {
    open: AtomicBool,
    failures: AtomicU32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
        }
    }
}

impl Breaker {
    /// Is nobody to ask?
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// A request waited in vain. True if that opened the breaker.
    pub fn failed(&self) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        before + 1 >= FAILURES && self.trip()
    }

    /// A call was answered in time.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Opens it at once: there is no connection. True if it was closed.
    pub fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::Relaxed)
    }

    /// A probe was answered in time: ask again. True if it was open.
    pub fn close(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.open.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_in_a_row_open_it_and_one_success_starts_the_count_anew() {
        let breaker = Breaker::default();
        assert!(breaker.is_open() && breaker.close());
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failed());
        }
        breaker.succeeded();
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failed());
        }
        assert!(breaker.failed() && breaker.is_open());
        assert!(!breaker.failed() && !breaker.trip(), "told once");
    }
}
