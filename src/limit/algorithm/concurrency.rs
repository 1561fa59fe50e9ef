//! Concurrency: at most `count` requests in flight.

use super::{Answer, Reading};

/// `count` requests in flight at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub(crate) count: u64,
}

impl Concurrency {
    /// Is there room for `cost` more? When there will be cannot be known.
    pub fn answer(&self, in_flight: u64, cost: u64) -> Answer {
        if cost == 0 || in_flight.saturating_add(cost) <= self.count {
            Answer::NOW
        } else {
            Answer::Refuse {
                retry_after_us: None,
            }
        }
    }

    /// What to report; there is no time at which it is whole again.
    pub fn reading(&self, in_flight: u64) -> Reading {
        Reading {
            remaining: self.count.saturating_sub(in_flight),
            reset_after_us: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_above_the_count_is_refused_without_a_promise_when() {
        let two = Concurrency { count: 2 };
        assert!(two.answer(1, 1).admits());
        assert_eq!(
            two.answer(2, 1),
            Answer::Refuse {
                retry_after_us: None
            }
        );
        assert_eq!(two.reading(1).remaining, 1);
    }
}
