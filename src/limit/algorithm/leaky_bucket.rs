//! Leaky bucket as a shaper: delays up to `max_delay`, then refuses; at most `1 + rate * t` forwarded.

use super::token_bucket::Level;
use super::{Answer, Reading};
use crate::limit::rate::{MICRO, Rate};

/// One unit forwarded every `period / count`; later ones wait up to `max_delay_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakyBucket {
    pub(crate) count: u64,
    pub(crate) rate: Rate,
    pub(crate) max_delay_us: u64,
}

impl LeakyBucket {
    /// Micro-units of backlog that leak within the longest allowed delay.
    fn deepest(&self) -> u64 {
        self.rate.leaked(self.max_delay_us)
    }

    /// Is the wait short enough, and how long is it? A request waits for the backlog before it to
    /// leak; its own cost delays those behind it.
    pub fn answer(&self, backlog: Level, now_us: u64, cost: u64) -> Answer {
        if cost == 0 {
            return Answer::NOW;
        }
        if cost > self.count {
            return Answer::Refuse {
                retry_after_us: None,
            };
        }
        let delay_us = backlog.time_until(self.rate, now_us, 0);
        if delay_us <= self.max_delay_us {
            return Answer::Admit { delay_us };
        }
        // the least wait after which the delay itself is at most max_delay
        Answer::Refuse {
            retry_after_us: Some(delay_us - self.max_delay_us),
        }
    }

    /// What to report: how many requests of cost 1 would be taken now, at most `count`.
    pub fn reading(&self, backlog: Level, now_us: u64) -> Reading {
        let delay_us = backlog.time_until(self.rate, now_us, 0);
        let remaining = if delay_us > self.max_delay_us {
            0
        } else {
            let room = self.deepest().saturating_sub(backlog.at(self.rate, now_us));
            (room / MICRO + 1).min(self.count)
        };
        Reading {
            remaining,
            reset_after_us: delay_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten_a_second_waiting_half_a_second() -> LeakyBucket {
        LeakyBucket {
            count: 10,
            rate: Rate::new(10, 1_000_000),
            max_delay_us: 500_000,
        }
    }

    #[test]
    fn a_burst_is_spaced_out_and_the_rest_is_refused() {
        let bucket = ten_a_second_waiting_half_a_second();
        let mut backlog = Level::default();
        for nth in 0..6 {
            assert_eq!(
                bucket.answer(backlog, 1, 1),
                Answer::Admit {
                    delay_us: nth * 100_000
                }
            );
            backlog.raise(bucket.rate, 1, 1);
        }
        assert_eq!(
            bucket.answer(backlog, 1, 1),
            Answer::Refuse {
                retry_after_us: Some(100_000)
            }
        );
        assert_eq!(bucket.reading(backlog, 1).remaining, 0);
        assert!(bucket.answer(backlog, 100_001, 1).admits());
    }

    #[test]
    fn a_cost_above_the_count_is_refused_for_ever() {
        let bucket = ten_a_second_waiting_half_a_second();
        let answer = bucket.answer(Level::default(), 1, 11);
        assert_eq!(
            answer,
            Answer::Refuse {
                retry_after_us: None
            }
        );
    }

    #[test]
    fn without_a_delay_only_one_at_a_time_passes() {
        let bucket = LeakyBucket {
            max_delay_us: 0,
            ..ten_a_second_waiting_half_a_second()
        };
        let mut backlog = Level::default();
        assert_eq!(bucket.reading(backlog, 9).remaining, 1);
        backlog.raise(bucket.rate, 9, 1);
        assert_eq!(
            bucket.answer(backlog, 10, 1),
            Answer::Refuse {
                retry_after_us: Some(99_999)
            }
        );
    }
}
