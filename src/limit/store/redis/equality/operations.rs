//! Refund, reset, announce, renew.

use super::*;

const HOUR_US: u64 = 3_600_000_000;

fn back(name: &str, quota: &Quota, units: u64, at_us: u64) -> Refund {
    Refund {
        key: key(name),
        quota: quota.clone(),
        units,
        at_us,
        lease_us: 0,
    }
}

#[test]
fn a_refund_gives_back_what_was_taken_and_never_more() {
    let mut store = Store::start();
    for (name, five) in five_of_each() {
        let all = set([wanted(name, &five, 1)], 5);
        let granted = &store.spend_at(std::slice::from_ref(&all), EPOCH_US)[0];
        assert_eq!(granted.granted, 5, "{name}");
        let refunds = match name {
            "c" => vec![back(name, &five, 2, EPOCH_US)],
            _ => wire::refunds(&all, granted, 2),
        };
        store.refund_at(&refunds, EPOCH_US + 1);
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 2, "{name}");
        let twice = [
            back(name, &five, 1, EPOCH_US),
            back(name, &five, 1, EPOCH_US),
        ];
        store.refund_at(&twice, EPOCH_US + 1);
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 4, "{name}");
        assert_ne!(store.ask::<i64>(&["PTTL", &stored(name)]), -1, "{name}");
        store.refund_at(&[back(name, &five, u64::MAX, EPOCH_US)], EPOCH_US + 1);
        assert_eq!(store.remaining_at(name, &five, EPOCH_US), 5, "{name}");
        assert_eq!(store.keys(), Vec::<String>::new(), "{name} is empty");
        // and once more what is not there
        store.refund_at(&[back(name, &five, 1, EPOCH_US)], EPOCH_US + 1);
        assert_eq!(store.spend_at(&[all], EPOCH_US)[0].granted, 5, "{name}");
        store.ask::<()>(&["FLUSHALL"]);
    }
}

#[test]
fn units_of_a_window_that_has_rolled_over_are_dropped() {
    let mut store = Store::start();
    for (name, quota) in five_of_each() {
        if !matches!(name, "f" | "n") {
            continue;
        }
        let three = set([wanted(name, &quota, 1)], 3);
        store.spend_at(std::slice::from_ref(&three), EPOCH_US);
        // its first instant
        let next_us = EPOCH_US + HOUR_US - EPOCH_US % HOUR_US;
        let left = store.remaining_at(name, &quota, next_us);
        let one = set([wanted(name, &quota, 1)], 1);
        store.spend_at(&[one], next_us);
        assert_eq!(store.remaining_at(name, &quota, next_us), left - 1);
        store.refund_at(&[back(name, &quota, 3, EPOCH_US)], next_us);
        assert_eq!(
            store.remaining_at(name, &quota, next_us),
            left - 1,
            "{name}"
        );
        store.refund_at(&[back(name, &quota, 3, next_us)], next_us);
        assert_eq!(store.remaining_at(name, &quota, next_us), left, "{name}");
    }
}

#[test]
fn time_and_a_refund_do_not_both_give_the_same_unit_back() {
    let mut store = Store::start();
    let quota = Quota::token_bucket(60, 60_000_000, None).unwrap();
    store.spend_at(&[set([wanted("t", &quota, 60)], 1)], EPOCH_US);
    // after 50 s, 50 are back by themselves; 20 returned make a full bucket, not one of 70
    let now_us = EPOCH_US + 50_000_000;
    store.refund_at(&[back("t", &quota, 20, EPOCH_US)], now_us);
    let more = store.spend_at(&[set([wanted("t", &quota, 1)], 100)], now_us);
    assert_eq!(more[0].granted, 60);
}

#[test]
fn a_refund_finds_its_entry_in_a_long_log_and_leaves_the_others() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(1_000, HOUR_US).unwrap();
    let at = |second: u64| EPOCH_US + second * 1_000_000;
    for second in 0..300 {
        store.spend_at(&[set([wanted("s", &quota, 1)], 3)], at(second));
    }
    let lengths = |store: &mut Store| store.ask::<u64>(&["LLEN", &stored("s")]);
    assert_eq!(lengths(&mut store), 301);
    store.refund_at(&[back("s", &quota, 2, at(7))], at(300));
    assert_eq!(
        (
            store.remaining_at("s", &quota, at(300)),
            lengths(&mut store)
        ),
        (102, 301)
    );
    // between two entries: from the next one; all of it
    store.refund_at(&[back("s", &quota, 9, at(100) - 5)], at(300));
    assert_eq!(
        (
            store.remaining_at("s", &quota, at(300)),
            lengths(&mut store)
        ),
        (105, 300)
    );
    // one that begins a chunk of those read; again, with an older one after it
    let of_296 = back("s", &quota, 1, at(296));
    store.refund_at(std::slice::from_ref(&of_296), at(300));
    store.refund_at(&[of_296, back("s", &quota, 1, at(150))], at(300));
    assert_eq!(store.remaining_at("s", &quota, at(300)), 108);
    // the newest, and after it
    store.refund_at(
        &[back("s", &quota, 3, at(299)), back("s", &quota, 3, at(299))],
        at(300),
    );
    assert_eq!(
        (
            store.remaining_at("s", &quota, at(300)),
            lengths(&mut store)
        ),
        (111, 299)
    );
    // each leaves at its time: 1 of second 7, nothing of second 100
    let hour = HOUR_US / 1_000_000;
    for (second, remaining) in [
        (6, 132),
        (7, 133),
        (8, 136),
        (99, 409),
        (100, 409),
        (101, 412),
        (149, 556),
        (150, 558),
        (295, 993),
        (296, 994),
    ] {
        assert_eq!(
            store.remaining_at("s", &quota, at(hour + second)),
            remaining,
            "{second}"
        );
    }
    assert_eq!(store.remaining_at("s", &quota, at(hour + 298)), 1_000);
}

#[test]
fn a_key_expires_earlier_once_its_newest_units_are_given_back() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(5, 10 * HOUR_US).unwrap();
    let one = set([wanted("s", &quota, 1)], 1);
    store.spend_at(std::slice::from_ref(&one), EPOCH_US);
    let later_us = EPOCH_US + 9 * HOUR_US;
    store.spend_at(std::slice::from_ref(&one), later_us);
    store.refund_at(&[back("s", &quota, 1, later_us)], later_us);
    // this clock grants an hour more
    let ttl_ms: u64 = store.ask(&["PTTL", &stored("s")]);
    assert!(ttl_ms <= 2 * 3_600_000, "{ttl_ms}");
}

#[test]
fn of_two_leases_the_one_given_back_is_the_one_that_is_meant() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(100, HOUR_US).unwrap();
    let lease = Set {
        extra: 1,
        lease_us: 1_000_000,
        ..set([wanted("s", &quota, 1)], 0)
    };
    let second_us = EPOCH_US + 500_000;
    store.spend_at(std::slice::from_ref(&lease), EPOCH_US);
    let granted = store.spend_at(std::slice::from_ref(&lease), second_us);
    store.refund_at(&wire::refunds(&lease, &granted[0], 1), second_us);
    let end_of_first = EPOCH_US + 1_000_000 + HOUR_US;
    assert_eq!(store.remaining_at("s", &quota, end_of_first - 1), 99);
    assert_eq!(store.remaining_at("s", &quota, end_of_first), 100);
}

#[test]
fn an_unused_lease_of_a_sliding_window_is_given_back_whole() {
    let mut store = Store::start();
    let quota = Quota::sliding_window(100, HOUR_US).unwrap();
    let lease = Set {
        extra: 5,
        lease_us: 1_000_000,
        ..set([wanted("s", &quota, 1)], 2)
    };
    let granted = store.spend_at(std::slice::from_ref(&lease), EPOCH_US);
    assert_eq!(granted[0].granted, 7);
    let refunds = wire::refunds(&lease, &granted[0], 5);
    assert_eq!((refunds[0].units, refunds[0].lease_us), (5, 1_000_000));
    store.refund_at(&refunds, EPOCH_US + 50);
    assert_eq!(store.remaining_at("s", &quota, EPOCH_US + 50), 98);
    // a strict request meanwhile joins the entry that is dated ahead, and is refunded from it
    let strict = set([wanted("s", &quota, 1)], 4);
    let granted = store.spend_at(std::slice::from_ref(&strict), EPOCH_US + 60);
    store.refund_at(&wire::refunds(&strict, &granted[0], 3), EPOCH_US + 70);
    assert_eq!(store.remaining_at("s", &quota, EPOCH_US + 70), 97);
}

#[test]
fn a_shadow_bucket_gets_back_no_more_than_was_charged_to_it() {
    let mut store = Store::start();
    let three = Quota::token_bucket(3, HOUR_US, None).unwrap();
    let ten = Quota::token_bucket(10, HOUR_US, None).unwrap();
    let shadow = in_mode(Mode::Shadow, wanted("three", &three, 1));
    let both = set([shadow, wanted("ten", &ten, 1)], 5);
    let granted = store.spend_at(std::slice::from_ref(&both), EPOCH_US);
    store.refund_at(&wire::refunds(&both, &granted[0], 3), EPOCH_US);
    assert_eq!(store.remaining_at("three", &three, EPOCH_US), 1);
    assert_eq!(store.remaining_at("ten", &ten, EPOCH_US), 8);
}

#[test]
fn a_reset_empties_buckets_and_says_so() {
    let mut store = Store::start();
    let mut listener = store._server.connect();
    let mut subscription = listener.as_pubsub();
    subscription.subscribe("tg:resets").unwrap();
    for (name, five) in five_of_each() {
        store.spend_at(&[set([wanted(name, &five, 1)], 1)], EPOCH_US);
    }
    let keys: Vec<BucketKey> = ["t", "s", "c", "nobody"].into_iter().map(key).collect();
    let reply = store.call(&wire::reset(PREFIX, "tg:resets", &keys));
    assert_eq!(reply, Value::Int(3));
    let message: String = subscription.get_message().unwrap().get_payload().unwrap();
    assert_eq!(message, "tg:k:t tg:k:s tg:k:c tg:k:nobody");
    assert_eq!(store.keys().len(), 3);
}

#[test]
fn gateways_count_each_other_while_they_are_heard_of() {
    let mut store = Store::start();
    let mut announced = |gateway, now_us| {
        let frame = Frame { gateway, ..FRAME };
        let call = wire::announce(&frame, PREFIX, 3_000_000, &[]);
        wire::announced(&store.call_at(&call, now_us)).unwrap()
    };
    assert_eq!(announced("one", EPOCH_US), (EPOCH_US, 1));
    assert_eq!(announced("two", EPOCH_US + 2_000_000).1, 2);
    assert_eq!(announced("two", EPOCH_US + 2_500_000).1, 2);
    assert_eq!(
        announced("two", EPOCH_US + 3_000_000).1,
        1,
        "silent for the ttl"
    );
    assert_eq!(announced("one", EPOCH_US + 3_100_000).1, 2);
    // the clock steps back by a minute: those ahead of it are not heard of for a minute
    assert_eq!(announced("one", EPOCH_US - 60_000_000).1, 1);
    assert_eq!(announced("two", EPOCH_US - 59_900_000).1, 2);
}

#[test]
fn refusals_of_all_gateways_are_added_up_and_the_thousand_with_the_most_are_kept() {
    const REFUSED: &str = "tg:refused{tg:gateways}";
    let mut store = Store::start();
    for round in 0..30 {
        let refused: Vec<(BucketKey, u64)> = (0..50)
            .map(|nth| (key(&format!("{round}-{nth}")), 1 + round))
            .chain([(key("most"), 5)])
            .collect();
        store.call(&wire::announce(&FRAME, PREFIX, 3_000_000, &refused));
    }
    assert_eq!(store.ask::<u64>(&["ZSCORE", REFUSED, "k:most"]), 150);
    assert_eq!(store.ask::<u64>(&["ZCARD", REFUSED]), 1_000);
    assert_eq!(store.ask::<u64>(&["ZCOUNT", REFUSED, "30", "30"]), 50);
    assert!(store.ask::<i64>(&["PTTL", REFUSED]) > 3_500_000);
    // somebody else's key is no reason for an outage
    store.ask::<()>(&["DEL", REFUSED]);
    store.ask::<()>(&["SET", REFUSED, "foreign"]);
    let call = wire::announce(&FRAME, PREFIX, 3_000_000, &[(key("most"), 5)]);
    assert_eq!(wire::announced(&store.call(&call)).unwrap().1, 1);
}

#[test]
fn requests_in_flight_count_until_their_gateway_stops_renewing_them() {
    let mut store = Store::start();
    let quota = Quota::concurrency(5).unwrap();
    let frame = |gateway| Frame {
        gateway,
        permit_ttl_us: 1_000_000,
        ..FRAME
    };
    let three = set([wanted("c", &quota, 1)], 3);
    let spend = |store: &mut Store, gateway, now_us| {
        let sets = std::slice::from_ref(&three);
        let call = wire::spend(&frame(gateway), PREFIX, sets, now_us);
        wire::decode(&store.call_at(&call, now_us), sets).unwrap()[0].granted
    };
    let renew = |store: &mut Store, gateway, held, now_us| {
        let call = wire::renew(&frame(gateway), PREFIX, &[(key("c"), held)]);
        assert_eq!(wire::time(&store.call_at(&call, now_us)), Ok(now_us));
    };
    assert_eq!(spend(&mut store, "one", EPOCH_US), 3);
    assert_eq!(spend(&mut store, "two", EPOCH_US), 2);
    renew(&mut store, "one", 3, EPOCH_US + 900_000);
    // the second one has fallen silent: its two count no more, and its field goes with the next spend
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 999_999), 0);
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 1_000_000), 2);
    assert_eq!(spend(&mut store, "one", EPOCH_US + 1_000_000), 2);
    let fields: Vec<String> = store.ask(&["HKEYS", &stored("c")]);
    assert_eq!(fields, ["one"]);
    // a renewal states the whole, whatever was counted before
    renew(&mut store, "one", 1, EPOCH_US + 1_100_000);
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 1_100_000), 4);
    let owed = [(key("c"), 1)];
    store.call_at(
        &wire::release(&frame("two"), PREFIX, &owed),
        EPOCH_US + 1_200_000,
    );
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 1_200_000), 4);
    store.call_at(
        &wire::release(&frame("one"), PREFIX, &owed),
        EPOCH_US + 1_200_000,
    );
    assert_eq!(store.keys(), Vec::<String>::new());
    renew(&mut store, "one", 2, EPOCH_US + 1_300_000);
    renew(&mut store, "one", 0, EPOCH_US + 1_400_000);
    assert_eq!(store.keys(), Vec::<String>::new());
}

#[test]
fn a_short_renewal_does_not_cut_short_what_another_gateway_holds() {
    let mut store = Store::start();
    let frame = |gateway, seconds: u64| Frame {
        gateway,
        permit_ttl_us: seconds * 1_000_000,
        ..FRAME
    };
    let held = [(key("c"), 1)];
    store.call(&wire::renew(&frame("one", 60), PREFIX, &held));
    store.call(&wire::renew(&frame("two", 5), PREFIX, &held));
    assert!(store.ask::<i64>(&["PTTL", &stored("c")]) > 50_000);
}

#[test]
fn what_is_kept_stays_as_it_is_and_lives_longer() {
    let mut store = Store::start();
    let frame = Frame {
        permit_ttl_us: 1_000_000,
        ..FRAME
    };
    let quota = Quota::concurrency(5).unwrap();
    let held = [(key("c"), 3)];
    store.call_at(&wire::renew(&frame, PREFIX, &held), EPOCH_US);
    let keep = wire::keep(&frame, PREFIX, &[key("c"), key("nothing")]);
    let later_us = EPOCH_US + 900_000;
    assert_eq!(wire::time(&store.call_at(&keep, later_us)), Ok(later_us));
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 1_899_999), 2);
    assert_eq!(store.remaining_at("c", &quota, EPOCH_US + 1_900_000), 5);
    assert_eq!(store.keys(), [stored("c")]);
}
