//! Random sequences of calls: the same decisions from Redis and from the process.

use super::*;
use crate::limit::decision::{Charge, Decision, Terms};
use crate::limit::quota::PERIOD_US;
use crate::limit::rate::{MAX_UNITS, Rate};
use crate::limit::store::memory::MemoryStore;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;

/// One of each algorithm and a second of the usual one: few, so that calls meet what others left.
const BUCKETS: [&str; 7] = ["t1", "t2", "s1", "n1", "f1", "l1", "c1"];

/// Longer steps would outlive what is held in flight, microseconds.
const WEEK_US: u64 = 7 * 86_400 * 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// on the store's clock, microseconds
    Time(i64),
    /// eighths of a bucket's period, and microseconds more
    Eighths(usize, i64, i64),
    /// another quota for a bucket
    Edit(usize, Numbers),
    /// sets of one call
    Spend(Vec<Asked>),
    /// requests in flight that end
    Release(usize, u64),
}

#[derive(Clone, Copy, Debug)]
struct Numbers {
    count: u64,
    period_us: u64,
    burst: Option<u64>,
    max_delay_us: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    /// bucket, cost, does it enforce?
    buckets: Vec<(usize, Cost, bool)>,
    requests: u64,
}

#[derive(Clone, Copy, Debug)]
enum Cost {
    Units(u64),
    /// of the bucket's capacity, in quarters
    Quarters(u64),
}

impl Numbers {
    fn quota(self, bucket: usize) -> Quota {
        let Numbers {
            count, period_us, ..
        } = self;
        match BUCKETS[bucket].as_bytes()[0] {
            b't' => Quota::token_bucket(count, period_us, self.burst),
            b's' => Quota::sliding_window(count.min(10_000), period_us),
            b'n' => Quota::sliding_window_counter(count, period_us),
            b'f' => Quota::fixed_window(count, period_us),
            b'l' => {
                // a script counts a backlog exactly up to 2^53 micro-units
                let rate = Rate::new(count, period_us);
                let longest = rate.time_to_leak(7_000_000_000_000_000);
                Quota::leaky_bucket(count, period_us, self.max_delay_us.min(longest))
            }
            _ => Quota::concurrency(count),
        }
        .unwrap()
    }
}

/// Of all magnitudes alike.
fn up_to(digits: u32) -> impl Strategy<Value = u64> {
    (0..=digits).prop_flat_map(|digits| 0..=10u64.pow(digits))
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let count = || prop_oneof![2 => 1..=20u64, 1 => up_to(9).prop_map(|n| n.clamp(1, MAX_UNITS))];
    let period = prop_oneof![
        Just(60_000_000u64),
        up_to(14).prop_map(|us| us.clamp(*PERIOD_US.start(), *PERIOD_US.end())),
    ];
    (count(), period, proptest::option::of(count()), up_to(9)).prop_map(
        |(count, period_us, burst, max_delay_us)| Numbers {
            count,
            period_us,
            burst,
            max_delay_us,
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let cost = prop_oneof![
        4 => Just(Cost::Units(1)),
        2 => (0..4u64).prop_map(Cost::Units),
        2 => (1..6u64).prop_map(Cost::Quarters),
        1 => Just(Cost::Units(u64::MAX)),
    ];
    let bucket = (0..BUCKETS.len(), cost, proptest::bool::weighted(0.7));
    (proptest::collection::vec(bucket, 1..4), 1..=5u64).prop_map(|(mut buckets, requests)| {
        buckets.sort_by_key(|(bucket, ..)| *bucket);
        buckets.dedup_by_key(|(bucket, ..)| *bucket);
        Asked { buckets, requests }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let time = (up_to(11), proptest::bool::weighted(0.3)).prop_map(|(us, back)| {
        let us = us as i64;
        Step::Time(if back { -us } else { us })
    });
    let eighths = (0..BUCKETS.len(), -3..=9i64, -1..=1i64)
        .prop_map(|(bucket, eighths, more)| Step::Eighths(bucket, eighths, more));
    prop_oneof![
        2 => time,
        4 => eighths,
        1 => (0..BUCKETS.len(), numbers()).prop_map(|(bucket, numbers)| Step::Edit(bucket, numbers)),
        8 => proptest::collection::vec(asked(), 1..4).prop_map(Step::Spend),
        1 => (0..BUCKETS.len(), 1..4u64).prop_map(|(bucket, units)| Step::Release(bucket, units)),
    ]
}

struct Both<'a> {
    redis: &'a mut Store,
    memory: MemoryStore,
    numbers: Vec<Numbers>,
    quotas: Vec<Quota>,
    now_us: u64,
}

impl Both<'_> {
    fn set(&self, asked: &Asked) -> Set {
        let wanted = |&(bucket, cost, enforce): &(usize, Cost, bool)| {
            let quota = &self.quotas[bucket];
            let cost = match cost {
                Cost::Units(units) => units,
                Cost::Quarters(quarters) => quota.capacity() * quarters / 4,
            };
            let mode = if enforce { Mode::Enforce } else { Mode::Shadow };
            in_mode(mode, super::wanted(BUCKETS[bucket], quota, cost))
        };
        Set {
            buckets: Arc::new(asked.buckets.iter().map(wanted).collect()),
            requests: asked.requests,
            extra: 0,
            lease_us: 0,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Time(us) => self.now_us = self.now_us.saturating_add_signed(us),
            Step::Eighths(bucket, eighths, more) => {
                let eighth = self.numbers[bucket].period_us.min(WEEK_US) as i64 / 8;
                self.now_us = self.now_us.saturating_add_signed(eighth * eighths + more);
            }
            Step::Edit(bucket, numbers) => {
                self.numbers[bucket] = numbers;
                self.quotas[bucket] = numbers.quota(bucket);
            }
            Step::Spend(asked) => {
                let sets: Vec<Set> = asked.iter().map(|asked| self.set(asked)).collect();
                return self.spend(&sets);
            }
            Step::Release(bucket, units) if self.quotas[bucket].is_concurrency() => {
                let owed = [(key(BUCKETS[bucket]), units)];
                let call = wire::release(&FRAME, PREFIX, &owed);
                self.redis.call_at(&call, self.now_us);
                self.memory.release(&owed[0].0, units);
            }
            Step::Release(..) => {}
        }
        Ok(())
    }

    /// One call to Redis, and the same requests one after the other in process.
    fn spend(&mut self, sets: &[Set]) -> Result<(), TestCaseError> {
        for (set, granted) in sets.iter().zip(self.redis.peek_at(sets, self.now_us)) {
            if set.requests == 1 {
                let peeked = self.memory.peek(&charges(set), self.now_us);
                prop_assert_eq!(granted.decision(set, 0), shared(peeked), "peek {:?}", set);
            }
        }
        for (set, granted) in sets.iter().zip(self.redis.spend_at(sets, self.now_us)) {
            for nth in 0..set.requests {
                let alone = self.memory.spend(&charges(set), self.now_us);
                let told = granted.decision(set, nth);
                prop_assert_eq!(told, shared(alone), "request {} of {:?}", nth, set);
            }
        }
        Ok(())
    }
}

fn charges(set: &Set) -> Vec<Charge<'_>> {
    let charge = |wanted: &'_ Wanted| (wanted.key, wanted.cost, wanted.mode == Mode::Enforce);
    let charges = set.buckets.iter().map(|wanted| {
        let (key, cost, enforce) = charge(wanted);
        Charge {
            key,
            quota: &wanted.quota,
            cost,
            enforce,
            terms: Terms::STRICT,
        }
    });
    charges.collect()
}

/// The same, decided by Redis.
fn shared(decision: Decision) -> Decision {
    Decision {
        source: crate::limit::decision::Source::Redis,
        ..decision
    }
}

fn same_decisions(
    redis: &mut Store,
    quotas: Vec<Numbers>,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    redis.ask::<()>(&["FLUSHALL"]);
    let mut both = Both {
        redis,
        memory: MemoryStore::new(10_000),
        quotas: quotas
            .iter()
            .enumerate()
            .map(|(bucket, numbers)| numbers.quota(bucket))
            .collect(),
        numbers: quotas,
        now_us: EPOCH_US,
    };
    for step in steps {
        both.take(step)?;
    }
    Ok(())
}

/// The same steps, all of them about one bucket.
fn about(bucket: usize, step: Step) -> Step {
    match step {
        Step::Time(us) => Step::Time(us),
        Step::Eighths(_, eighths, more) => Step::Eighths(bucket, eighths, more),
        Step::Edit(_, numbers) => Step::Edit(bucket, numbers),
        Step::Release(_, units) => Step::Release(bucket, units),
        Step::Spend(mut sets) => {
            for asked in &mut sets {
                asked.buckets.truncate(1);
                for wanted in &mut asked.buckets {
                    wanted.0 = bucket;
                }
            }
            Step::Spend(sets)
        }
    }
}

/// Sequences tried; as many found each deliberate mistake in the scripts that shows in a decision.
const CASES: u32 = 192;

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn whatever_happens_redis_decides_as_the_process_does() {
    let redis = RefCell::new(Store::start());
    let quotas = proptest::collection::vec(numbers(), BUCKETS.len());
    let steps = proptest::collection::vec(step(), 1..40);
    let same = |(quotas, steps)| same_decisions(&mut redis.borrow_mut(), quotas, steps);
    runner().run(&(quotas, steps), same).unwrap();
}

#[test]
fn whatever_happens_to_one_bucket_redis_decides_as_the_process_does() {
    let redis = RefCell::new(Store::start());
    let quotas = proptest::collection::vec(numbers(), BUCKETS.len());
    let steps = proptest::collection::vec(step(), 1..60);
    let same = |(quotas, steps, bucket): (_, Vec<Step>, usize)| {
        let steps = steps.into_iter().map(|step| about(bucket, step));
        same_decisions(&mut redis.borrow_mut(), quotas, steps.collect())
    };
    runner()
        .run(&(quotas, steps, 0..BUCKETS.len()), same)
        .unwrap();
}
