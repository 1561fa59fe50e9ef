//! Several sets in one call, leases, shadow and force.

use super::*;
use crate::limit::algorithm::Answer;

const MINUTE_US: u64 = 60_000_000;

#[test]
fn a_later_set_sees_what_an_earlier_one_of_the_same_call_took() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        let plenty = Quota::token_bucket(100, MINUTE_US, None).unwrap();
        let of_client = |client| set([wanted(client, &plenty, 1), wanted(name, &five, 1)], 3);
        let sets = [
            of_client("A"),
            of_client("B"),
            of_client("A"),
            of_client("C"),
        ];
        let granted = store.spend_at(&sets, EPOCH_US);
        let granted: Vec<u64> = granted.iter().map(|granted| granted.granted).collect();
        assert_eq!(granted, [3, 2, 0, 0], "{name}");
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 0, "{name}");
        store.ask::<()>(&["FLUSHALL"]);
    }
}

#[test]
fn a_set_takes_from_every_bucket_or_from_none() {
    let mut store = Store::start();
    let all = five_of_each();
    for (name, five) in &all {
        let one = Quota::concurrency(1).unwrap();
        let both = set([wanted(name, five, 1), wanted("one", &one, 2)], 4);
        let granted = store.spend_at(std::slice::from_ref(&both), EPOCH_US);
        assert_eq!((granted[0].granted, taken(&granted[0])), (0, vec![0, 0]));
        assert_eq!(
            store.keys(),
            Vec::<String>::new(),
            "{name}: a refusal writes nothing"
        );
    }
}

#[test]
fn shadow_never_refuses_and_is_charged_for_what_it_has_room_for() {
    let mut store = Store::start();
    let ten = Quota::token_bucket(10, MINUTE_US, None).unwrap();
    for (name, five) in five_of_each() {
        let shadow = in_mode(Mode::Shadow, wanted(name, &five, 2));
        let both = set([shadow, wanted("ten", &ten, 1)], 4);
        let granted = store.spend_at(std::slice::from_ref(&both), EPOCH_US);
        let fits = if name == "l" { 3 } else { 2 };
        assert_eq!(granted[0].granted, 4, "{name}");
        assert_eq!(taken(&granted[0]), [fits, 4], "{name}");
        assert!(granted[0].decision(&both, 0).buckets[0].answer.admits());
        assert!(!granted[0].decision(&both, 3).buckets[0].answer.admits());
        store.ask::<()>(&["FLUSHALL"]);
    }
}

#[test]
fn force_charges_what_is_owed_but_never_beyond_the_capacity() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        let owed = |units| set([in_mode(Mode::Force, wanted(name, &five, units))], 1);
        let granted = store.spend_at(&[owed(3)], EPOCH_US);
        assert_eq!(granted[0].granted, 1, "{name}");
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 2, "{name}");
        let granted = store.spend_at(&[owed(1_000_000_000)], EPOCH_US);
        assert_eq!(granted[0].granted, 1, "{name}");
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 0, "{name}");
        let half_an_hour_later = EPOCH_US + 1_800_000_000;
        if name == "t" {
            assert_eq!(store.remaining_at(name, &five, half_an_hour_later), 2);
        }
    }
}

fn leased(name: &str, quota: &Quota, requests: u64, extra: u64) -> Set {
    Set {
        extra,
        lease_us: 500_000,
        ..set([wanted(name, quota, 2)], requests)
    }
}

#[test]
fn a_lease_is_at_most_a_quarter_of_what_remains_divided_by_the_gateways() {
    let mut store = Store::start();
    let day_us = 1_440 * MINUTE_US;
    for (name, quota) in [
        ("t", Quota::token_bucket(1_000, day_us, None).unwrap()),
        ("s", Quota::sliding_window(1_000, day_us).unwrap()),
        ("n", Quota::sliding_window_counter(1_000, day_us).unwrap()),
        ("f", Quota::fixed_window(1_000, day_us).unwrap()),
    ] {
        let mut granted = |requests, extra| {
            let set = leased(name, &quota, requests, extra);
            store.spend_at(&[set], EPOCH_US)[0].granted
        };
        // 500 requests fit; after 20 there are 480 left, of which 480 / 4 / 3 gateways
        assert_eq!(granted(20, 1_000), 60, "{name}");
        // after 60 and 10 there are 430 left
        assert_eq!(granted(10, 7), 17, "{name}: no more than is wanted");
        // after 77, 412 more and 11 left: a quarter of a third is nothing
        assert_eq!(granted(412, 1_000), 412, "{name}");
        assert_eq!(
            granted(20, 1_000),
            11,
            "{name}: not all that wait, so nothing in advance"
        );
    }
}

#[test]
fn what_delays_or_is_held_is_never_leased() {
    let mut store = Store::start();
    let second_us = 1_000_000;
    for (name, quota) in [
        (
            "l",
            Quota::leaky_bucket(1_000, second_us, second_us).unwrap(),
        ),
        ("c", Quota::concurrency(1_000).unwrap()),
    ] {
        let set = leased(name, &quota, 2, 100);
        assert_eq!(store.spend_at(&[set], EPOCH_US)[0].granted, 2, "{name}");
    }
}

#[test]
fn the_requests_that_waited_read_as_if_nothing_had_been_taken_in_advance() {
    let mut store = Store::start();
    let quota = Quota::token_bucket(1_000, MINUTE_US, None).unwrap();
    let set = leased("t", &quota, 3, 20);
    let granted = &store.spend_at(std::slice::from_ref(&set), EPOCH_US)[0];
    assert_eq!(granted.granted, 23);
    for nth in 0..23 {
        let decision = granted.decision(&set, nth);
        assert!(decision.allowed);
        assert_eq!(decision.buckets[0].reading.remaining, 1_000 - 2 * (nth + 1));
    }
    assert!(!granted.decision(&set, 23).allowed);
    assert_eq!(granted.dated_ahead_us(&set), 500_000);
}

#[test]
fn leased_units_leave_a_sliding_window_a_period_after_the_end_of_the_lease() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(100, MINUTE_US).unwrap();
    let strict = set([wanted("s", &quota, 1)], 40);
    assert_eq!(
        store.spend_at(std::slice::from_ref(&strict), EPOCH_US)[0].granted,
        40
    );
    // two requests of two and four in advance, dated half a second later
    let lease = leased("s", &quota, 2, 2);
    let leased_at = EPOCH_US + 1_000_000;
    assert_eq!(store.spend_at(&[lease], leased_at)[0].granted, 4);
    // taken while the lease runs, by another gateway: neither evicts early nor breaks the order
    let now_us = leased_at + 100_000;
    assert_eq!(
        store.spend_at(std::slice::from_ref(&strict), now_us)[0].granted,
        40
    );
    assert_eq!(store.remaining_at("s", &quota, now_us), 12);

    // the first 40 leave at their own time, although the newest entry is dated later
    assert_eq!(
        store.remaining_at("s", &quota, EPOCH_US + MINUTE_US - 1),
        12
    );
    assert_eq!(store.remaining_at("s", &quota, EPOCH_US + MINUTE_US), 52);
    let end = leased_at + 500_000 + MINUTE_US;
    assert_eq!(store.remaining_at("s", &quota, end - 1), 52);
    assert_eq!(store.remaining_at("s", &quota, end), 100);
}

#[test]
fn an_entry_dated_ahead_does_not_push_others_out_of_the_window_early() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(100, MINUTE_US).unwrap();
    let first = set([wanted("s", &quota, 1)], 80);
    store.spend_at(&[first], EPOCH_US);
    let lease_at = EPOCH_US + MINUTE_US - 100_000;
    let lease = Set {
        lease_us: 500_000,
        extra: 1,
        ..set([wanted("s", &quota, 1)], 1)
    };
    assert_eq!(store.spend_at(&[lease], lease_at)[0].granted, 2);
    // the newest entry is dated 400 ms after the first 80 leave, but they have not left yet
    let more = set([wanted("s", &quota, 1)], 50);
    let granted = &store.spend_at(std::slice::from_ref(&more), lease_at + 1)[0];
    assert_eq!(granted.granted, 18);
    let answer = granted.decision(&more, 40).buckets[0].answer;
    let retry_after_us = Some(99_999);
    assert_eq!(answer, Answer::Refuse { retry_after_us });
}
