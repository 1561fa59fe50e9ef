//! Properties: every algorithm against its bound, over random traffic and a clock that steps back.

use super::algorithm::Answer;
use super::calendar::{Calendar, Unit};
use super::decision::{Charge, Terms};
use super::descriptor::{BucketKey, KeyWriter};
use super::quota::Quota;
use super::store::memory::MemoryStore;
use proptest::prelude::*;

/// A time far from zero, not aligned to any window.
const START_US: u64 = 1_900_000_000_123_457;

/// One request: microseconds since the one before (negative: the clock stepped back) and its cost.
type Traffic = Vec<(i64, u64)>;

fn traffic(period_us: u64) -> impl Strategy<Value = Traffic> {
    let period = period_us as i64;
    let pause = prop_oneof![
        4 => 0..period / 50,
        3 => 0..period / 3,
        1 => 0..period * 2,
        1 => -period / 10..=0,
        1 => Just(period),
    ];
    let cost = prop_oneof![6 => Just(1u64), 2 => 0u64..4, 1 => 0u64..20];
    proptest::collection::vec((pause, cost), 1..120)
}

/// What was admitted: the store's time, which never steps back, delay included, and the cost.
type Admitted = Vec<(u64, u64)>;

fn key() -> BucketKey {
    KeyWriter::new(b'x', "bounds").finish()
}

fn spend(store: &MemoryStore, quota: &Quota, now_us: u64, cost: u64) -> Answer {
    let charge = Charge {
        key: key(),
        quota,
        cost,
        enforce: true,
        terms: Terms::STRICT,
    };
    store.spend(&[charge], now_us).buckets[0].answer
}

/// Runs traffic through the store. On the way it checks what holds for every algorithm: `remaining`
/// is what is admitted, and waiting exactly `retry_after` helps, a microsecond less does not.
fn run(quota: &Quota, traffic: &Traffic) -> Result<Admitted, TestCaseError> {
    let store = MemoryStore::new(1_000);
    let (mut now_us, mut latest_us) = (START_US, 0);
    let mut admitted = Vec::new();
    for &(pause_us, cost) in traffic {
        now_us = now_us.saturating_add_signed(pause_us);
        let peek = store.peek(
            &[Charge {
                key: key(),
                quota,
                cost,
                enforce: true,
                terms: Terms::STRICT,
            }],
            now_us,
        );
        let answer = spend(&store, quota, now_us, cost);
        prop_assert_eq!(peek.buckets[0].answer, answer, "peek says what spend does");
        if !matches!(quota, Quota::LeakyBucket(_)) && cost > 0 {
            prop_assert_eq!(peek.buckets[0].reading.remaining >= cost, answer.admits());
        }
        match answer {
            // what costs nothing leaves no trace, not even of the time
            Answer::Admit { .. } if cost == 0 => (),
            Answer::Admit { delay_us } => {
                latest_us = latest_us.max(now_us);
                admitted.push((latest_us.max(now_us + delay_us), cost));
            }
            Answer::Refuse {
                retry_after_us: Some(wait_us),
            } => {
                prop_assert!(wait_us > 0);
                let at = |us| {
                    let charge = Charge {
                        key: key(),
                        quota,
                        cost,
                        enforce: true,
                        terms: Terms::STRICT,
                    };
                    store.peek(&[charge], us).allowed
                };
                prop_assert!(at(now_us + wait_us), "waiting {wait_us} helps");
                prop_assert!(
                    !at(now_us + wait_us - 1),
                    "waiting less than {wait_us} does not"
                );
            }
            Answer::Refuse {
                retry_after_us: None,
            } => prop_assert!(cost > quota.capacity()),
        }
    }
    Ok(admitted)
}

/// Every interval that begins and ends with an admitted request: its length and its units.
fn intervals(admitted: &Admitted) -> impl Iterator<Item = (u64, u64)> + '_ {
    (0..admitted.len()).flat_map(move |first| {
        let mut units = 0;
        admitted[first..].iter().map(move |&(at_us, cost)| {
            units += cost;
            (at_us - admitted[first].0, units)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn token_bucket_admits_at_most_burst_and_rate_times_t(
        traffic in traffic(1_000_000), count in 1u64..40, burst in 1u64..40,
    ) {
        let quota = Quota::token_bucket(count, 1_000_000, Some(burst)).unwrap();
        for (length_us, units) in intervals(&run(&quota, &traffic)?) {
            prop_assert!(units * 1_000_000 <= burst * 1_000_000 + count * length_us);
        }
    }

    #[test]
    fn sliding_window_admits_at_most_count_in_any_period(
        traffic in traffic(1_000_000), count in 1u64..40,
    ) {
        let quota = Quota::sliding_window(count, 1_000_000).unwrap();
        for (length_us, units) in intervals(&run(&quota, &traffic)?) {
            prop_assert!(length_us >= 1_000_000 || units <= count);
        }
    }

    #[test]
    fn sliding_window_counter_admits_at_most_twice_the_count_in_a_trailing_period(
        traffic in traffic(1_000_000), count in 1u64..40,
    ) {
        let quota = Quota::sliding_window_counter(count, 1_000_000).unwrap();
        for (length_us, units) in intervals(&run(&quota, &traffic)?) {
            prop_assert!(length_us >= 1_000_000 || units <= 2 * count);
        }
    }

    #[test]
    fn fixed_window_admits_at_most_count_per_window_touched(
        traffic in traffic(1_000_000), count in 1u64..40,
    ) {
        let quota = Quota::fixed_window(count, 1_000_000).unwrap();
        for (length_us, units) in intervals(&run(&quota, &traffic)?) {
            prop_assert!(units <= count * (length_us / 1_000_000 + 2));
        }
    }

    #[test]
    fn calendar_windows_admit_at_most_count_per_day(
        traffic in traffic(86_400_000_000), count in 1u64..40,
    ) {
        let quota = Quota::calendar(count, Calendar::new(Unit::Day, "Europe/Berlin").unwrap()).unwrap();
        for (length_us, units) in intervals(&run(&quota, &traffic)?) {
            // the shortest day has 23 hours
            prop_assert!(units <= count * (length_us / (23 * 3_600_000_000) + 2));
        }
    }

    #[test]
    fn leaky_bucket_forwards_at_most_one_and_rate_times_t(
        traffic in traffic(1_000_000), count in 1u64..40, max_delay_us in 0u64..2_000_000,
    ) {
        let quota = Quota::leaky_bucket(count, 1_000_000, max_delay_us).unwrap();
        let ones = traffic.iter().map(|&(pause, cost)| (pause.max(0), cost.min(1))).collect();
        for (length_us, units) in intervals(&run(&quota, &ones)?) {
            // a timer's tick: delays are whole microseconds, rounded up each
            prop_assert!(units * 1_000_000 <= 1_000_000 + count * (length_us + 1));
        }
    }

    #[test]
    fn concurrency_never_has_more_than_count_in_flight(
        count in 1u64..20, steps in proptest::collection::vec(any::<bool>(), 1..200),
    ) {
        let quota = Quota::concurrency(count).unwrap();
        let store = MemoryStore::new(1_000);
        let mut in_flight = 0;
        for arrives in steps {
            if arrives {
                let admitted = spend(&store, &quota, START_US, 1).admits();
                prop_assert_eq!(admitted, in_flight < count);
                in_flight += u64::from(admitted);
            } else if in_flight > 0 {
                store.release(&key(), 1);
                in_flight -= 1;
            }
        }
    }

    #[test]
    fn an_edit_of_the_count_keeps_the_used_units(
        used in 1u64..20, before in 20u64..40, after in 1u64..60,
    ) {
        type Make = fn(u64) -> Quota;
        let algorithms: [Make; 4] = [
            |count| Quota::token_bucket(count, 60_000_000, None).unwrap(),
            |count| Quota::sliding_window(count, 60_000_000).unwrap(),
            |count| Quota::sliding_window_counter(count, 60_000_000).unwrap(),
            |count| Quota::fixed_window(count, 60_000_000).unwrap(),
        ];
        for make in algorithms {
            let store = MemoryStore::new(1_000);
            prop_assert!(spend(&store, &make(before), START_US, used).admits());
            let edited = make(after);
            let charge = Charge { key: key(), quota: &edited, cost: 1, enforce: true, terms: Terms::STRICT };
            let reading = store.peek(&[charge], START_US).buckets[0].reading;
            prop_assert_eq!(reading.remaining, after.saturating_sub(used));
        }
    }

    #[test]
    fn many_costs_of_one_equal_one_cost_of_many(
        cost in 1u64..20, count in 1u64..40, later_us in 0u64..3_000_000,
    ) {
        let quotas = [
            Quota::token_bucket(count, 1_000_000, None).unwrap(),
            Quota::sliding_window(count, 1_000_000).unwrap(),
            Quota::sliding_window_counter(count, 1_000_000).unwrap(),
            Quota::fixed_window(count, 1_000_000).unwrap(),
        ];
        for quota in quotas {
            let (one_by_one, at_once) = (MemoryStore::new(1_000), MemoryStore::new(1_000));
            let taken = (0..cost).filter(|_| spend(&one_by_one, &quota, START_US, 1).admits()).count();
            if taken as u64 == cost {
                prop_assert!(spend(&at_once, &quota, START_US, cost).admits());
                let charge = Charge { key: key(), quota: &quota, cost: 1, enforce: true, terms: Terms::STRICT };
                let later = START_US + later_us;
                prop_assert_eq!(one_by_one.peek(&[charge], later), at_once.peek(&[charge], later));
            }
        }
    }
}
