//! Replies of the scripts. Whatever a server answers, it becomes a value or an error.

use super::{After, Bucket, Granted, Mode, Set, Wanted};
use crate::limit::algorithm::fixed_window::Counted;
use crate::limit::algorithm::sliding_window_counter::TwoWindows;
use crate::limit::algorithm::token_bucket::Level;
use crate::limit::quota::{Quota, State};
use redis::Value;
use smallvec::SmallVec;

/// A reply no script of ours gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// not whole numbers
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

/// The reply to [`spend`](super::spend) for these sets, in their order.
pub fn decode(reply: &Value, sets: &[Set]) -> Result<Vec<Granted>, BadReply> {
    read(reply, sets, Taken::Granted)
}

/// The reply to [`peek`](super::peek) for these sets, in their order: nothing was taken.
pub fn decode_peek(reply: &Value, sets: &[Set]) -> Result<Vec<Granted>, BadReply> {
    read(reply, sets, Taken::Nothing)
}

/// What was taken from buckets that enforce, which the reply does not repeat.
#[derive(Clone, Copy)]
enum Taken {
    Granted,
    Nothing,
}

fn read(reply: &Value, sets: &[Set], enforced: Taken) -> Result<Vec<Granted>, BadReply> {
    let Value::BulkString(text) = reply else {
        return Err(BadReply::NotNumbers);
    };
    let mut numbers = Numbers { rest: Some(text) };
    let length = || BadReply::Length {
        found: text.split(|byte| is_between(*byte)).count(),
        expected: numbers_for(sets),
    };
    let mut next = || match numbers.next() {
        Some(number) => number,
        None => Err(length()),
    };
    let now_us = next()?;
    let mut answers = Vec::with_capacity(sets.len());
    for set in sets {
        let granted = next()?;
        let mut buckets = SmallVec::with_capacity(set.buckets.len());
        for wanted in set.buckets.iter() {
            let third = has_third(&wanted.quota);
            let state = [next()?, next()?, if third { next()? } else { 0 }];
            let taken = match (wanted.mode, enforced) {
                (Mode::Shadow | Mode::Force, _) => next()?,
                (Mode::Enforce, Taken::Granted) => granted,
                (Mode::Enforce, Taken::Nothing) => 0,
            };
            let state = self::state(&wanted.quota, state);
            buckets.push(Bucket { taken, state });
        }
        answers.push(Granted {
            now_us,
            granted,
            buckets,
        });
    }
    match numbers.rest.is_none() {
        true => Ok(answers),
        false => Err(length()),
    }
}

/// How many numbers a reply to these sets has.
fn numbers_for(sets: &[Set]) -> usize {
    let of_bucket = |wanted: &Wanted| {
        2 + usize::from(has_third(&wanted.quota)) + usize::from(wanted.mode != Mode::Enforce)
    };
    let of_set = |set: &Set| 1 + set.buckets.iter().map(of_bucket).sum::<usize>();
    1 + sets.iter().map(of_set).sum::<usize>()
}

/// Token buckets are most of all, and their state is two numbers.
fn has_third(quota: &Quota) -> bool {
    !matches!(quota, Quota::TokenBucket(_))
}

/// Larger than any number a script replies, and yet one that can be added to another.
const LARGEST: u64 = u64::MAX / 2;

/// The whole numbers of a reply.
struct Numbers<'a> {
    /// what follows; none: that was the last
    rest: Option<&'a [u8]>,
}

impl Iterator for Numbers<'_> {
    type Item = Result<u64, BadReply>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = self.rest.take()?.iter();
        let mut number = None;
        for &byte in bytes.by_ref() {
            match byte {
                b'0'..=b'9' => {
                    let before: u64 = number.unwrap_or(0);
                    let digit = u64::from(byte - b'0');
                    number = Some(before.saturating_mul(10).saturating_add(digit));
                }
                byte if is_between(byte) => {
                    self.rest = Some(bytes.as_slice());
                    break;
                }
                _ => return Some(Err(BadReply::NotNumbers)),
            }
        }
        // a bucket that somebody else has written may have more digits than are of use
        let number = number.map(|number| number.min(LARGEST));
        Some(number.ok_or(BadReply::NotNumbers))
    }
}

fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b':')
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::algorithm::token_bucket::TokenBucket;
    use crate::limit::descriptor::KeyWriter;
    use crate::limit::rate::Rate;
    use std::sync::Arc;

    fn set(mode: Mode) -> Set {
        let wanted = Wanted {
            key: KeyWriter::new(b't', "p").finish(),
            quota: Quota::TokenBucket(TokenBucket {
                burst: 1,
                rate: Rate::new(1, 1_000_000),
            }),
            cost: 1,
            mode,
        };
        Set {
            buckets: Arc::new(std::iter::once(wanted).collect()),
            requests: 1,
            extra: 0,
            lease_us: 0,
        }
    }

    fn decoded(text: &str, modes: &[Mode]) -> Result<Vec<(u64, u64)>, BadReply> {
        let sets: Vec<Set> = modes.iter().copied().map(set).collect();
        let reply = Value::BulkString(text.as_bytes().to_vec());
        let answers = decode(&reply, &sets)?;
        let taken = |answer: &Granted| (answer.granted, answer.buckets[0].taken);
        Ok(answers.iter().map(taken).collect())
    }

    #[test]
    fn what_was_taken_is_what_was_granted_unless_it_is_told() {
        assert_eq!(decoded("9 3 1:2", &[Mode::Enforce]), Ok(vec![(3, 3)]));
        assert_eq!(
            decoded("9 3 1:2 3 1:2 2", &[Mode::Enforce, Mode::Shadow]),
            Ok(vec![(3, 3), (3, 2)])
        );
        let reply = Value::BulkString(b"9 3 1:2".to_vec());
        let peeked = decode_peek(&reply, &[set(Mode::Enforce)]).unwrap();
        assert_eq!((peeked[0].granted, peeked[0].buckets[0].taken), (3, 0));
    }

    #[test]
    fn a_reply_of_something_else_is_an_error() {
        let length = |found| Err(BadReply::Length { found, expected: 4 });
        for (text, expected) in [
            ("9 3 1", length(3)),
            ("9 3 1:2 4", length(5)),
            ("9 3 1:2:", length(5)),
            ("", Err(BadReply::NotNumbers)),
            ("9 3 1:-2", Err(BadReply::NotNumbers)),
            ("9 3 1:2x", Err(BadReply::NotNumbers)),
            ("9  3 1:2", Err(BadReply::NotNumbers)),
            ("OK", Err(BadReply::NotNumbers)),
        ] {
            assert_eq!(decoded(text, &[Mode::Enforce]), expected, "{text:?}");
        }
        let huge = format!("9 1 {}:1", "9".repeat(40));
        assert_eq!(decoded(&huge, &[Mode::Enforce]), Ok(vec![(1, 1)]));
        assert!(decode(&Value::Int(9), &[set(Mode::Enforce)]).is_err());
    }
}
