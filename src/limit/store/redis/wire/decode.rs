//! Replies of the scripts. Whatever a server answers, it becomes a value or an error.

use super::{After, Bucket, Granted, Set};
use crate::limit::algorithm::fixed_window::Counted;
use crate::limit::algorithm::sliding_window_counter::TwoWindows;
use crate::limit::algorithm::token_bucket::Level;
use crate::limit::quota::{Quota, State};
use redis::Value;

/// A reply no script of ours gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// not a list of numbers, or a negative one among them
    #[error("the script replied something other than whole numbers")]
    NotNumbers,
    /// more or fewer numbers than were asked for
    #[error("the script replied {found} numbers where {expected} were due")]
    Length {
        /// numbers in the reply
        found: usize,
        /// numbers for the sets of the call
        expected: usize,
    },
}

/// The reply to [`spend`](super::spend) or [`peek`](super::peek) for these sets, in their order.
pub fn decode(reply: &Value, sets: &[Set]) -> Result<Vec<Granted>, BadReply> {
    let Value::Array(values) = reply else {
        return Err(BadReply::NotNumbers);
    };
    let per_set = sets.iter().map(|set| 1 + 4 * set.buckets.len());
    let expected = 1 + per_set.sum::<usize>();
    let found = values.len();
    if found != expected {
        return Err(BadReply::Length { found, expected });
    }
    let mut numbers = values.iter().map(number);
    let mut next = || {
        numbers
            .next()
            .unwrap_or(Err(BadReply::Length { found, expected }))
    };
    let now_us = next()?;
    let mut granted = Vec::with_capacity(sets.len());
    for set in sets {
        let mut answer = Granted {
            now_us,
            granted: next()?,
            buckets: Default::default(),
        };
        for wanted in set.buckets.iter() {
            answer.buckets.push(Bucket {
                taken: next()?,
                state: state(&wanted.quota, [next()?, next()?, next()?]),
            });
        }
        granted.push(answer);
    }
    Ok(granted)
}

fn state(quota: &Quota, [first, second, third]: [u64; 3]) -> After {
    let level = Level {
        micro: first,
        ts_us: second,
    };
    let units = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
    match quota {
        Quota::TokenBucket(_) => After::State(State::Level(level)),
        Quota::LeakyBucket(_) => After::Backlog {
            backlog: level,
            first_delay_us: third,
        },
        Quota::FixedWindow(_) => After::State(State::Counted(Counted {
            ts_us: second,
            units: first,
        })),
        Quota::SlidingWindowCounter(_) => After::State(State::TwoWindows(TwoWindows {
            ts_us: third,
            current: units(first),
            previous: units(second),
        })),
        Quota::SlidingWindow(_) => After::Log {
            used: first,
            newest_us: second,
            retry_after_us: third,
        },
        Quota::Concurrency(_) => After::State(State::InFlight(first)),
    }
}

/// The reply to [`refund`](super::refund) or [`renew`](super::renew): the store's time,
/// microseconds.
pub fn time(reply: &Value) -> Result<u64, BadReply> {
    number(reply)
}

/// The reply to [`announce`](super::announce): the store's time in microseconds, live gateways.
pub fn announced(reply: &Value) -> Result<(u64, u64), BadReply> {
    match reply {
        Value::Array(values) => match values.as_slice() {
            [now_us, gateways] => Ok((number(now_us)?, number(gateways)?)),
            other => Err(BadReply::Length {
                found: other.len(),
                expected: 2,
            }),
        },
        _ => Err(BadReply::NotNumbers),
    }
}

fn number(value: &Value) -> Result<u64, BadReply> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| BadReply::NotNumbers),
        _ => Err(BadReply::NotNumbers),
    }
}
