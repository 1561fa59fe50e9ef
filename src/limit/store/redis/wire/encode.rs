//! Calls of the scripts: a Redis command for each, which may be sent again as it is.

use super::super::script::{Script, Scripts, on_given_clock};
use super::{Frame, Mode, Refund, Set, Wanted};
use crate::limit::algorithm::fixed_window::Window;
use crate::limit::descriptor::{BucketKey, MAX_KEY};
use crate::limit::quota::{PERIOD_US, Quota};
use crate::limit::rate::MAX_UNITS;
use hashbrown::HashSet;
use redis::{Arg, Cmd, RedisWrite};
use smallvec::SmallVec;

/// Bytes an argument takes on average, to reserve room.
const ARGUMENT_BYTES: usize = 12;

/// Arguments a bucket has at most but for calendar windows.
const BUCKET_ARGUMENTS: usize = 7;

/// A call of a script.
pub struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// `EVALSHA`, which may be sent again as it is.
    pub fn command(&self) -> &Cmd {
        &self.command
    }

    /// The same call with the text of the script, for a server that answered `NOSCRIPT`: it loads
    /// the script as well.
    pub fn with_text(&self) -> Cmd {
        self.evaluating(self.script.text())
    }

    /// The same call at a time that is given, microseconds, by a script that no gateway sends.
    pub fn at(&self, now_us: u64) -> Cmd {
        let mut command = self.evaluating(&on_given_clock(self.script.text()));
        command.arg(now_us);
        command
    }

    fn evaluating(&self, text: &str) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(text);
        for argument in self.command.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }
}

/// A call being written.
struct Writer {
    script: &'static Script,
    command: Cmd,
    digits: itoa::Buffer,
}

impl Writer {
    fn new(script: &'static Script, keys: usize) -> Self {
        let arguments = 8 + keys * (2 + BUCKET_ARGUMENTS);
        let bytes = 64 + arguments * ARGUMENT_BYTES + keys * MAX_KEY;
        let mut writer = Writer {
            script,
            command: Cmd::with_capacity(arguments, bytes),
            digits: itoa::Buffer::new(),
        };
        writer.text(b"EVALSHA");
        writer.text(script.hash().as_bytes());
        writer.number(u64::try_from(keys).unwrap_or(u64::MAX));
        writer
    }

    fn finish(self) -> Call {
        Call {
            script: self.script,
            command: self.command,
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.command.write_arg(text);
    }

    // there once, not at each place: a lone call finds little of its code in the caches
    #[inline(never)]
    fn number(&mut self, number: u64) {
        self.command
            .write_arg(self.digits.format(number).as_bytes());
    }

    fn key(&mut self, prefix: &str, key: &BucketKey) {
        let mut whole: SmallVec<[u8; 96]> = SmallVec::from_slice(prefix.as_bytes());
        whole.extend_from_slice(key.as_bytes());
        self.command.write_arg(&whole);
    }

    /// The parameters of a quota.
    fn quota(&mut self, quota: &Quota, now_guess_us: u64) {
        for number in parameters(quota, now_guess_us) {
            self.number(number);
        }
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            self.number(number);
        }
    }
}

/// What buckets of one quota have in common, written once in a call.
#[derive(Default)]
struct Classes(SmallVec<[Class; 4]>);

#[derive(PartialEq, Eq)]
struct Class {
    letter: &'static [u8],
    mode: Mode,
    cost: u64,
    parameters: Parameters,
}

impl Classes {
    /// The number of a bucket's class, from 1.
    fn number_of(&mut self, wanted: &Wanted, now_guess_us: u64) -> u64 {
        let class = Class {
            letter: letter(&wanted.quota),
            mode: wanted.mode,
            cost: units(wanted.cost),
            parameters: parameters(&wanted.quota, now_guess_us),
        };
        let known = self.0.iter().position(|known| *known == class);
        let index = known.unwrap_or_else(|| {
            self.0.push(class);
            self.0.len() - 1
        });
        u64::try_from(index + 1).unwrap_or(u64::MAX)
    }

    fn write(&self, writer: &mut Writer) {
        writer.number(u64::try_from(self.0.len()).unwrap_or(u64::MAX));
        for class in &self.0 {
            writer.text(class.letter);
            writer.text(match class.mode {
                Mode::Enforce => b"e",
                Mode::Shadow => b"s",
                Mode::Force => b"f",
            });
            writer.number(class.cost);
            for number in &class.parameters {
                writer.number(*number);
            }
        }
    }
}

/// The numbers of a quota, at most those of a calendar window.
type Parameters = SmallVec<[u64; 6]>;

fn parameters(quota: &Quota, now_guess_us: u64) -> Parameters {
    match quota {
        Quota::TokenBucket(quota) => {
            let (numerator, denominator) = quota.rate.fraction();
            SmallVec::from_slice(&[quota.burst, numerator, denominator])
        }
        Quota::LeakyBucket(quota) => {
            let (numerator, denominator) = quota.rate.fraction();
            SmallVec::from_slice(&[quota.count, numerator, denominator, quota.max_delay_us])
        }
        Quota::FixedWindow(quota) => match &quota.window {
            Window::Aligned { period_us } => SmallVec::from_slice(&[quota.count, *period_us]),
            Window::Calendar(calendar) => {
                let mut numbers = Parameters::from_slice(&[quota.count, 0]);
                numbers.extend_from_slice(&calendar.boundaries(now_guess_us));
                numbers
            }
        },
        Quota::SlidingWindowCounter(quota) => SmallVec::from_slice(&[quota.count, quota.period_us]),
        Quota::SlidingWindow(quota) => SmallVec::from_slice(&[quota.count, quota.period_us]),
        Quota::Concurrency(quota) => SmallVec::from_slice(&[quota.count]),
    }
}

/// Takes units from the buckets of all sets; the reply is for [`decode`](super::decode).
///
/// Every key begins with `prefix`, which in a cluster holds the hash tag of all buckets of the call.
/// `now_guess_us` is the store's clock as this gateway estimates it: only for the boundaries of
/// calendar windows, from which the script picks by its own clock.
pub fn spend(frame: &Frame<'_>, prefix: &str, sets: &[Set], now_guess_us: u64) -> Call {
    decide(&Scripts::get().spend, frame, prefix, sets, now_guess_us)
}

/// What [`spend`] would answer for each set alone; the reply is for [`decode_peek`](super::decode_peek).
pub fn peek(frame: &Frame<'_>, prefix: &str, sets: &[Set], now_guess_us: u64) -> Call {
    decide(&Scripts::get().peek, frame, prefix, sets, now_guess_us)
}

fn decide(
    script: &'static Script,
    frame: &Frame<'_>,
    prefix: &str,
    sets: &[Set],
    now_guess_us: u64,
) -> Call {
    let mut writer = Writer::new(script, sets.iter().map(|set| set.buckets.len()).sum());
    for wanted in sets.iter().flat_map(|set| set.buckets.iter()) {
        writer.key(prefix, &wanted.key);
    }
    writer.text(frame.gateway.as_bytes());
    writer.number(duration(frame.permit_ttl_us));
    writer.number(frame.gateways.clamp(1, MAX_UNITS));
    writer.number(u64::from(share_buckets(sets)));
    let mut classes = Classes::default();
    let likenesses: SmallVec<[Likeness; 1]> = sets
        .iter()
        .map(|set| Likeness {
            extra: set.extra.min(MAX_UNITS),
            lease_us: duration(set.lease_us),
            classes: set
                .buckets
                .iter()
                .map(|wanted| classes.number_of(wanted, now_guess_us))
                .collect(),
        })
        .collect();
    classes.write(&mut writer);
    let mut sets = sets.iter();
    for run in likenesses.chunk_by(PartialEq::eq) {
        if let Some(alike) = run.first() {
            alike.write(run.len(), &mut writer);
        }
        for set in sets.by_ref().take(run.len()) {
            writer.number(set.requests.min(MAX_UNITS));
        }
    }
    writer.finish()
}

/// What sets that follow one another may have in common, written once for all of them.
#[derive(PartialEq, Eq)]
struct Likeness {
    extra: u64,
    lease_us: u64,
    /// the number of each bucket's class
    classes: SmallVec<[u64; 4]>,
}

impl Likeness {
    fn write(&self, sets: usize, writer: &mut Writer) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        writer.numbers([
            count(sets),
            self.extra,
            self.lease_us,
            count(self.classes.len()),
        ]);
        for class in &self.classes {
            writer.number(*class);
        }
    }
}

/// Does a bucket occur in several sets? In one set it does not occur twice.
fn share_buckets(sets: &[Set]) -> bool {
    if sets.len() < 2 {
        return false;
    }
    let mut buckets = sets.iter().flat_map(|set| set.buckets.iter());
    let mut seen = HashSet::with_capacity(sets.len() * 2);
    buckets.any(|wanted| !seen.insert(&wanted.key))
}

/// Gives units back; the reply is for [`time`](super::time). `now_guess_us` as for [`spend`].
pub fn refund(frame: &Frame<'_>, prefix: &str, refunds: &[Refund], now_guess_us: u64) -> Call {
    let mut writer = Writer::new(&Scripts::get().refund, refunds.len());
    for refund in refunds {
        writer.key(prefix, &refund.key);
    }
    writer.text(frame.gateway.as_bytes());
    for refund in refunds {
        writer.text(letter(&refund.quota));
        writer.numbers([units(refund.units), refund.at_us, duration(refund.lease_us)]);
        writer.quota(&refund.quota, now_guess_us);
    }
    writer.finish()
}

/// Gives back units of concurrency buckets; the reply is for [`time`](super::time).
pub fn release(frame: &Frame<'_>, prefix: &str, owed: &[(BucketKey, u64)]) -> Call {
    let mut writer = Writer::new(&Scripts::get().refund, owed.len());
    for (key, _) in owed {
        writer.key(prefix, key);
    }
    writer.text(frame.gateway.as_bytes());
    for (_, owed) in owed {
        writer.text(b"c");
        // charged when, dated ahead by and the count do not matter
        writer.numbers([units(*owed), 0, 0, 1]);
    }
    writer.finish()
}

/// Empties buckets and publishes their keys, prefix included, joined by a space, on `channel`. The
/// reply is the number of those that were there.
pub fn reset(prefix: &str, channel: &str, keys: &[BucketKey]) -> Call {
    let mut writer = Writer::new(&Scripts::get().reset, keys.len());
    for key in keys {
        writer.key(prefix, key);
    }
    writer.text(channel.as_bytes());
    writer.finish()
}

/// Says that a gateway is alive, in the sorted set `gateways` behind the prefix, and how often which
/// buckets have refused; the reply is for [`announced`](super::announced).
pub fn announce(
    frame: &Frame<'_>,
    prefix: &str,
    ttl_us: u64,
    refused: &[(BucketKey, u64)],
) -> Call {
    let mut writer = Writer::new(&Scripts::get().announce, 2);
    writer.text(format!("{prefix}gateways").as_bytes());
    // in a cluster beside the other
    writer.text(format!("{prefix}refused{{{prefix}gateways}}").as_bytes());
    writer.text(frame.gateway.as_bytes());
    writer.number(duration(ttl_us));
    for (key, refusals) in refused {
        writer.text(key.as_bytes());
        writer.number(units(*refusals));
    }
    writer.finish()
}

/// Keeps the units this gateway holds in concurrency buckets from expiring, however many the store
/// has counted; the reply is for [`time`](super::time).
pub fn keep(frame: &Frame<'_>, prefix: &str, keys: &[BucketKey]) -> Call {
    let mut writer = Writer::new(&Scripts::get().renew, keys.len());
    for key in keys {
        writer.key(prefix, key);
    }
    writer.text(frame.gateway.as_bytes());
    writer.number(duration(frame.permit_ttl_us));
    for _ in keys {
        writer.text(b"-1");
    }
    writer.finish()
}

/// Sets the units this gateway holds in each concurrency bucket to exactly the number given, 0 for
/// none; the reply is for [`time`](super::time).
pub fn renew(frame: &Frame<'_>, prefix: &str, held: &[(BucketKey, u64)]) -> Call {
    let mut writer = Writer::new(&Scripts::get().renew, held.len());
    for (key, _) in held {
        writer.key(prefix, key);
    }
    writer.text(frame.gateway.as_bytes());
    writer.number(duration(frame.permit_ttl_us));
    for (_, held) in held {
        writer.number(units(*held));
    }
    writer.finish()
}

/// The letter of a quota's algorithm, the same as in bucket keys.
fn letter(quota: &Quota) -> &'static [u8] {
    match quota {
        Quota::TokenBucket(_) => b"t",
        Quota::SlidingWindow(_) => b"s",
        Quota::SlidingWindowCounter(_) => b"n",
        Quota::FixedWindow(_) => b"f",
        Quota::LeakyBucket(_) => b"l",
        Quota::Concurrency(_) => b"c",
    }
}

/// Units as the scripts can multiply them; what is above is beyond any capacity as well.
fn units(units: u64) -> u64 {
    units.min(MAX_UNITS + 1)
}

/// A duration the scripts can add, microseconds.
fn duration(duration_us: u64) -> u64 {
    duration_us.min(*PERIOD_US.end())
}
