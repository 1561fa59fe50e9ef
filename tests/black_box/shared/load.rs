//! Demand from many connections at once, and what may be concluded from its answers.
//!
//! A decision falls between sending and answer. All conclusions hold wherever in between: what is
//! called wrong here is wrong for sure.

use crate::client::{Connection, head};
use crate::gateway::Gateway;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// One request, in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) sent_us: u64,
    pub(super) answered_us: u64,
    pub(super) admitted: bool,
}

/// How long a connection rests after an answer.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) after_admitted: Duration,
    pub(super) after_refused: Duration,
}

impl Pace {
    /// As fast as it is admitted; a refused connection comes back some 25 times a second.
    pub(super) const GREEDY: Pace = Pace {
        after_admitted: Duration::ZERO,
        after_refused: Duration::from_millis(40),
    };

    pub(super) const fn every(rest: Duration) -> Self {
        Pace {
            after_admitted: rest,
            after_refused: rest,
        }
    }
}

/// All samples of one run, in the order of sending.
pub(super) struct Samples(pub(super) Vec<Sample>);

/// Demand on all gateways for so long; `pace` says for a gateway and the time since the beginning
/// how its connections behave, `None`: they rest.
pub(super) fn demand(
    gateways: &[Gateway],
    connections: usize,
    length: Duration,
    pace: impl Fn(usize, Duration) -> Option<Pace> + Sync,
) -> Samples {
    let samples = Mutex::new(Vec::new());
    let wall_us = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (index, gateway) in gateways.iter().enumerate() {
            for _ in 0..connections {
                let (samples, pace) = (&samples, &pace);
                scope.spawn(move || {
                    let own = converse(gateway, begin, wall_us, length, |at| pace(index, at));
                    samples.lock().unwrap().extend(own);
                });
            }
        }
    });
    let mut samples = samples.into_inner().unwrap();
    samples.sort_by_key(|sample: &Sample| sample.sent_us);
    Samples(samples)
}

fn converse(
    gateway: &Gateway,
    begin: Instant,
    wall_us: u64,
    length: Duration,
    pace: impl Fn(Duration) -> Option<Pace>,
) -> Vec<Sample> {
    let mut connection = Connection::open(gateway.address);
    let mut samples = Vec::new();
    let now_us = || wall_us + begin.elapsed().as_micros() as u64;
    while begin.elapsed() < length {
        let Some(pace) = pace(begin.elapsed()) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let sent_us = now_us();
        connection.send(head("GET", "/", &[], 0));
        let response = connection.answer_to("GET").unwrap_or_else(|none| {
            let said = gateway.stderr.text();
            panic!("{none:?} after {:?}: {said}", begin.elapsed())
        });
        let admitted = response.status == 200;
        assert!(admitted || response.status == 429, "{response}");
        samples.push(Sample {
            sent_us,
            answered_us: now_us(),
            admitted,
        });
        std::thread::sleep(if admitted {
            pace.after_admitted
        } else {
            pace.after_refused
        });
    }
    samples
}

impl Samples {
    pub(super) fn admitted(&self) -> u64 {
        self.only_admitted().count() as u64
    }

    fn only_admitted(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(|sample| sample.admitted)
    }

    /// From the first answer to the last sending: demand was there all that time.
    pub(super) fn seconds(&self) -> f64 {
        let first = self.0.iter().map(|sample| sample.answered_us).min();
        let last = self.0.last().map(|sample| sample.sent_us);
        last.unwrap().saturating_sub(first.unwrap()) as f64 / 1e6
    }

    /// When the first request was sent and the last answered.
    pub(super) fn ends(&self) -> (u64, u64) {
        let last = self.0.iter().map(|sample| sample.answered_us).max();
        (self.0[0].sent_us, last.unwrap())
    }

    /// What a limiter that knows all at once admits of the same requests, decided when they were sent or when they
    /// were answered, whichever is less: on a busy machine demand has gaps. `limiter` makes one that is asked in
    /// the order of time.
    pub(super) fn ideally<L: FnMut(u64) -> bool>(&self, limiter: impl Fn() -> L) -> u64 {
        let moments: [fn(&Sample) -> u64; 2] =
            [|sample| sample.sent_us, |sample| sample.answered_us];
        let admitted = moments.map(|moment| {
            let mut times: Vec<u64> = self.0.iter().map(moment).collect();
            times.sort_unstable();
            let mut admits = limiter();
            times.into_iter().filter(|time| admits(*time)).count() as u64
        });
        admitted[0].min(admitted[1])
    }

    /// The most by which admissions exceed what an interval of so many microseconds allows, over
    /// all intervals.
    pub(super) fn largest_excess(&self, allowed: impl Fn(u64) -> f64) -> f64 {
        let mut by_answer: Vec<_> = self.only_admitted().copied().collect();
        by_answer.sort_by_key(|sample| sample.answered_us);
        let mut largest = f64::MIN;
        for first in self.only_admitted() {
            let mut inside = 0.0;
            for sample in &by_answer {
                if sample.sent_us >= first.sent_us {
                    inside += 1.0;
                    let excess = inside - allowed(sample.answered_us - first.sent_us);
                    largest = largest.max(excess);
                }
            }
        }
        largest
    }

    /// The most that were admitted within any one period for sure.
    pub(super) fn most_within(&self, period_us: u64) -> u64 {
        let none = |length_us: u64| match length_us < period_us {
            true => 0.0,
            false => f64::MAX,
        };
        self.largest_excess(none) as u64
    }

    /// What happened in each aligned window that demand covers whole.
    pub(super) fn windows(&self, period_us: u64) -> Vec<Window> {
        let first_us = self.0.iter().map(|sample| sample.answered_us).min();
        let last_us = self.0.last().unwrap().sent_us;
        let begin = first_us.unwrap().div_ceil(period_us);
        let whole = (begin..last_us / period_us).map(|number| number * period_us);
        whole
            .map(|from_us| self.window(from_us, period_us))
            .collect()
    }

    fn window(&self, from_us: u64, period_us: u64) -> Window {
        let to_us = from_us + period_us;
        let surely = |sample: &&Sample| sample.sent_us >= from_us && sample.answered_us < to_us;
        let perhaps = |sample: &&Sample| sample.sent_us < to_us && sample.answered_us >= from_us;
        let last_us = self.0.iter().filter(surely).map(|sample| sample.sent_us);
        Window {
            requests: self.0.iter().filter(surely).count() as u64,
            surely: self.only_admitted().filter(surely).count() as u64,
            perhaps: self.only_admitted().filter(perhaps).count() as u64,
            idle: (to_us - last_us.max().unwrap_or(from_us)) as f64 / period_us as f64,
        }
    }
}

/// What happened in one window.
#[derive(Debug)]
pub(super) struct Window {
    /// requests that were surely decided in it
    pub(super) requests: u64,
    /// admitted in it for sure
    pub(super) surely: u64,
    /// admitted in it perhaps
    pub(super) perhaps: u64,
    /// the part of it after the last of its requests
    pub(super) idle: f64,
}
