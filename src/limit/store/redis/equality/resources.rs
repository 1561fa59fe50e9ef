//! What the scripts leave in Redis: expiry, memory, foreign types, the clock.

use super::*;
use crate::limit::calendar::{Calendar, Unit};

const SECOND_US: u64 = 1_000_000;

#[test]
fn every_key_expires_when_its_state_equals_the_empty_one() {
    let mut store = Store::start();
    let longest_ms = [
        // one of five an hour, five of each
        ("t", 720_000),
        ("l", 720_000),
        ("s", 3_600_000),
        ("f", 3_600_000),
        ("n", 7_200_000),
        ("c", 366 * 86_400_000),
    ];
    for (name, five) in five_of_each() {
        let spend = wire::spend(&FRAME, PREFIX, &[set([wanted(name, &five, 1)], 1)], 0);
        store.call(&spend);
        let ttl_ms: u64 = store.ask(&["PTTL", &stored(name)]);
        let longest = longest_ms.iter().find(|(of, _)| *of == name).unwrap().1;
        assert!(ttl_ms <= longest, "{name}: {ttl_ms}");
        if !matches!(name, "f" | "n") {
            assert!(ttl_ms > longest - 5_000, "{name}: {ttl_ms}");
        }
    }
    let frame = Frame {
        permit_ttl_us: 30 * SECOND_US,
        ..FRAME
    };
    store.call(&wire::renew(&frame, PREFIX, &[(key("renewed"), 2)]));
    store.call(&wire::announce(
        &frame,
        PREFIX,
        30 * SECOND_US,
        &[(key("refused"), 1)],
    ));
    for key in store.keys() {
        assert_ne!(store.ask::<i64>(&["PTTL", &key]), -1, "{key} never expires");
    }
    let ttl_ms: u64 = store.ask(&["PTTL", &stored("renewed")]);
    assert!((25_000..=30_000).contains(&ttl_ms), "{ttl_ms}");
}

#[test]
fn what_takes_ages_to_become_empty_is_kept_for_ages_and_no_error() {
    let mut store = Store::start();
    let slow = Quota::token_bucket(1, 366 * 86_400 * SECOND_US, Some(1_000_000_000)).unwrap();
    let all = set([wanted("t", &slow, 1_000_000_000)], 1);
    let reply = store.call(&wire::spend(&FRAME, PREFIX, std::slice::from_ref(&all), 0));
    assert_eq!(wire::decode(&reply, &[all]).unwrap()[0].granted, 1);
    assert!(store.ask::<i64>(&["PTTL", &stored("t")]) > 0);
}

#[test]
fn a_token_bucket_takes_120_bytes() {
    let mut store = Store::start();
    let quota = Quota::token_bucket(10_000, 86_400 * SECOND_US, None).unwrap();
    let name = "x".repeat(38);
    assert_eq!(stored(&name).len(), 43);
    let all = set([wanted(&name, &quota, 10_000)], 1);
    store.call(&wire::spend(&FRAME, PREFIX, &[all], 0));
    let bytes: u64 = store.ask(&["MEMORY", "USAGE", &stored(&name)]);
    assert!(bytes <= 120, "{bytes}");
}

#[test]
fn states_are_short_plain_text() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        for _ in 0..2 {
            store.spend_at(&[set([wanted(name, &five, 1)], 1)], EPOCH_US);
        }
    }
    let now = EPOCH_US.to_string();
    let text = |store: &mut Store, name| store.ask::<String>(&["GET", &stored(name)]);
    assert_eq!(text(&mut store, "t"), format!("2000000:{now}"));
    assert_eq!(text(&mut store, "l"), format!("2000000:{now}"));
    assert_eq!(text(&mut store, "f"), format!("2:{now}"));
    assert_eq!(text(&mut store, "n"), format!("2:0:{now}"));
    let log: Vec<String> = store.ask(&["LRANGE", &stored("s"), "0", "-1"]);
    assert_eq!(log, ["0:0".to_owned(), format!("{now}:2")]);
    let held: String = store.ask(&["HGET", &stored("c"), "one"]);
    assert_eq!(held, format!("2:{}", EPOCH_US + FRAME.permit_ttl_us));
}

#[test]
fn what_has_left_a_sliding_window_is_dropped_with_the_next_charge() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(100, 10 * SECOND_US).unwrap();
    let one = set([wanted("s", &quota, 1)], 1);
    for second in 0..60 {
        store.spend_at(std::slice::from_ref(&one), EPOCH_US + second * SECOND_US);
        // ten inside, and the one before them
        let length: u64 = store.ask(&["LLEN", &stored("s")]);
        assert_eq!(length, (second + 2).min(11));
    }
    store.spend_at(&[one], EPOCH_US + 100 * SECOND_US);
    assert_eq!(store.ask::<u64>(&["LLEN", &stored("s")]), 2);
}

#[test]
fn a_backlog_of_centuries_is_a_refusal_and_no_error() {
    let mut store = Store::start();
    let fast = Quota::leaky_bucket(1_000_000_000, SECOND_US, SECOND_US).unwrap();
    let slow = Quota::leaky_bucket(1, 366 * 86_400 * SECOND_US, 0).unwrap();
    store.spend_at(&[set([wanted("l", &fast, 1_000_000_000)], 1)], EPOCH_US);
    let one = set([wanted("l", &slow, 1)], 1);
    assert_eq!(store.spend_at(&[one], EPOCH_US)[0].granted, 0);
}

#[test]
fn a_foreign_value_counts_as_empty_and_is_replaced() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        for foreign in [
            ["SADD", &stored(name), "member"],
            ["RPUSH", &stored(name), "element"],
            ["SET", &stored(name), "text"],
            // as many digits as no script writes
            ["SET", &stored(name), "99999999999999999999:1"],
            ["SET", &stored(name), "1:99999999999999999999:1"],
        ] {
            store.ask::<()>(&["FLUSHALL"]);
            store.ask::<()>(&foreign);
            for (requests, expected) in [(3, 3), (3, 2), (3, 0)] {
                let set = set([wanted(name, &five, 1)], requests);
                let granted = store.spend_at(&[set], EPOCH_US);
                assert_eq!(granted[0].granted, expected, "{name} {foreign:?}");
            }
            assert_ne!(store.ask::<i64>(&["PTTL", &stored(name)]), -1);
        }
    }
}

#[test]
fn a_foreign_value_stops_neither_refund_nor_renewal() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        store.ask::<()>(&["SADD", &stored(name), "member"]);
        let refund = Refund {
            key: key(name),
            quota: five,
            units: 1,
            at_us: EPOCH_US,
            lease_us: 0,
        };
        store.refund_at(&[refund], EPOCH_US);
    }
    let call = wire::renew(&FRAME, PREFIX, &[(key("c"), 2)]);
    assert_eq!(wire::time(&store.call_at(&call, EPOCH_US)), Ok(EPOCH_US));
    assert!(store.ask::<bool>(&["HEXISTS", &stored("c"), "one"]));
}

#[test]
fn scripts_redis_has_never_seen_are_sent_along() {
    let mut store = Store::start();
    let quota = Quota::token_bucket(1, SECOND_US, None).unwrap();
    let one = set([wanted("t", &quota, 1)], 1);
    let spend = wire::spend(&FRAME, PREFIX, std::slice::from_ref(&one), 0);
    assert!(spend.command().exec(&mut store.connection).is_err());
    for flush in [false, true] {
        if flush {
            store.ask::<()>(&["SCRIPT", "FLUSH"]);
        }
        let reply = store.call(&spend);
        assert!(wire::decode(&reply, std::slice::from_ref(&one)).is_ok());
        spend.command().exec(&mut store.connection).unwrap();
    }
}

#[test]
fn a_calendar_window_follows_the_clock_of_redis_whatever_the_gateway_believes() {
    let mut store = Store::start();
    let calendar = Calendar::new(Unit::Day, "Europe/Berlin").unwrap();
    let midnight = calendar.around(EPOCH_US).end_us;
    let five = Quota::calendar(5, calendar).unwrap();
    const MINUTES_US: u64 = 7 * 60 * SECOND_US;
    for believed in [
        |now: u64| now - MINUTES_US,
        |now: u64| now,
        |now: u64| now + MINUTES_US,
    ] {
        store.ask::<()>(&["FLUSHALL"]);
        let set = set([wanted("f", &five, 1)], 5);
        let mut granted = |now_us| {
            let call = wire::spend(&FRAME, PREFIX, std::slice::from_ref(&set), believed(now_us));
            let reply = store.call_at(&call, now_us);
            let granted = &wire::decode(&reply, std::slice::from_ref(&set)).unwrap()[0];
            (
                granted.granted,
                granted.decision(&set, 4).buckets[0].reading,
            )
        };
        let (taken, reading) = granted(midnight - 3 * 60 * SECOND_US);
        assert_eq!((taken, reading.reset_after_us), (5, 180 * SECOND_US));
        assert_eq!(granted(midnight - 1).0, 0);
        assert_eq!(granted(midnight).0, 5);
        assert_eq!(granted(midnight + 1).0, 0);
        assert_eq!(granted(midnight - 1).0, 0, "a step back opens no window");
    }
}

#[test]
fn a_malformed_reply_is_an_error() {
    let quota = Quota::token_bucket(1, SECOND_US, None).unwrap();
    let sets = [set([wanted("t", &quota, 1)], 1)];
    let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    assert!(wire::decode(&text("1 1 1:1"), &sets).is_ok());
    for reply in [
        Value::Nil,
        Value::Okay,
        text(""),
        text("1 1 1"),
        text("1 1 1:1 1"),
        text("1 1 -1:1"),
        Value::Array(vec![Value::Int(1); 4]),
        Value::Array(vec![Value::Nil; 6]),
    ] {
        assert!(wire::decode(&reply, &sets).is_err(), "{reply:?}");
        assert!(wire::time(&reply).is_err(), "{reply:?}");
        assert!(wire::announced(&reply).is_err(), "{reply:?}");
    }
    // numbers no script replies must not do harm either
    let huge = "9".repeat(30);
    for (name, quota) in five_of_each() {
        let third = if name == "t" { "" } else { &format!(":{huge}") };
        let absurd = text(&format!("1 {huge} {huge}:{huge}{third}"));
        let sets = [set([wanted(name, &quota, u64::MAX)], 1)];
        for granted in wire::decode(&absurd, &sets).unwrap() {
            let decision = granted.decision(&sets[0], 1);
            assert!(decision.allowed);
            assert!(!wire::refunds(&sets[0], &granted, 1).is_empty() || name == "c");
            assert!(granted.buckets.iter().all(|bucket| {
                let state = bucket.state.rebuilt();
                quota.reading(&state, 1).remaining <= 5
            }));
        }
    }
}
