//! Units taken in advance: few calls for hot clients, and nothing is lost or gained by it.

use super::fleet::{Fleet, report};
use super::load::{Pace, Samples, demand};
use crate::waiting::{self, pause, timed};
use std::time::Duration;

fn steady(rest_ms: u64) -> Option<Pace> {
    Some(Pace::every(Duration::from_millis(rest_ms)))
}

/// Some 200 requests a second on each gateway.
fn hot(fleet: &Fleet, length: Duration) -> Samples {
    demand(&fleet.gateways, 4, length, |_, _| steady(18))
}

/// The units of a fixed window's bucket in Redis.
fn units_in_redis(fleet: &Fleet, key: &str) -> u64 {
    let text = fleet.redis.command(&["GET", key]);
    let units = text.split(':').next().unwrap_or_default();
    units.parse().unwrap_or(0)
}

#[test]
fn a_hot_client_below_its_limit_costs_25_calls_a_second_at_most() {
    for algorithm in ["token_bucket", "fixed_window", "sliding_window_counter"] {
        let fleet = Fleet::start(
            2,
            &format!(
                "  p: {{ key: [global], algorithm: {algorithm}, consistency: leased, \
                 quota: {{ count: 120000, period: 1m }} }}"
            ),
        );
        fleet.until_leasing();
        // the first requests show that it is hot
        hot(&fleet, Duration::from_millis(500));
        let metrics = |name: &str| -> Vec<f64> {
            let gateways = fleet.gateways.iter();
            gateways.map(|gateway| gateway.metric(name)).collect()
        };
        let calls = metrics("tidegate_store_calls_total ");
        let served = metrics("tidegate_store_lease_served_total ");
        let (samples, took) = timed(|| hot(&fleet, Duration::from_secs(3)));
        assert_eq!(samples.admitted() as usize, samples.0.len());
        let grown = |before: &[f64], name: &str| -> Vec<f64> {
            let after = metrics(name);
            after
                .iter()
                .zip(before)
                .map(|(after, before)| after - before)
                .collect()
        };
        let calls = grown(&calls, "tidegate_store_calls_total ");
        let served = grown(&served, "tidegate_store_lease_served_total ");
        report(&format!(
            "{algorithm}: {} requests in {took:?}; calls {calls:?}, from leases {served:?}",
            samples.0.len()
        ));
        for calls in calls {
            assert!(
                (1.0..=25.0 * took.as_secs_f64() + 1.0).contains(&calls),
                "{algorithm}: {calls} calls"
            );
        }
        let half = samples.0.len() as f64 / 2.0;
        assert!(served.iter().sum::<f64>() > half, "{algorithm}: {served:?}");
        fleet.assert_no_outage();
    }
}

#[test]
fn a_hot_client_of_one_gateway_alone_costs_no_more_calls() {
    // 600 a second for two gateways; one of them wants most of it, the other nothing
    let fleet = Fleet::start(
        2,
        "  p: { key: [global], algorithm: token_bucket, consistency: leased, \
         quota: { count: 36000, period: 1m } }",
    );
    fleet.until_leasing();
    let one = &fleet.gateways[..1];
    let hot = |length| demand(one, 4, length, |_, _| steady(8));
    hot(Duration::from_millis(500));
    let calls = one[0].metric("tidegate_store_calls_total ");
    let served = one[0].metric("tidegate_store_lease_served_total ");
    let (samples, took) = timed(|| hot(Duration::from_secs(3)));
    let calls = one[0].metric("tidegate_store_calls_total ") - calls;
    let served = one[0].metric("tidegate_store_lease_served_total ") - served;
    report(&format!(
        "{} requests in {took:?}; {calls} calls, {served} from leases",
        samples.0.len()
    ));
    assert_eq!(
        samples.admitted() as usize,
        samples.0.len(),
        "below the limit"
    );
    assert!(calls <= 25.0 * took.as_secs_f64() + 1.0, "{calls} calls");
    assert!(
        served > samples.0.len() as f64 / 2.0,
        "{served} from leases"
    );
    fleet.assert_no_outage();
}

#[test]
fn a_hot_client_far_above_its_limit_costs_far_fewer_calls_than_it_gets_units() {
    // 300 units a second and gateway: what comes back is fetched in portions, not each unit by a call
    for (connections, rest_ms, burst) in [(3, 1, 600), (8, 1, 600), (8, 8, 600), (8, 8, 200)] {
        let fleet = Fleet::start(
            2,
            &format!(
                "  p: {{ key: [global], algorithm: token_bucket, consistency: leased, \
                 quota: {{ count: 600, period: 1s, burst: {burst} }} }}"
            ),
        );
        fleet.until_leasing();
        let hot = |length| demand(&fleet.gateways, connections, length, |_, _| steady(rest_ms));
        waiting::until("the burst is gone", || {
            let samples = hot(Duration::from_millis(500));
            samples.admitted() * 10 < samples.0.len() as u64 * 9
        });
        let calls = fleet.sum("tidegate_store_calls_total ");
        let (samples, took) = timed(|| hot(Duration::from_secs(3)));
        let seconds = took.as_secs_f64();
        let calls = (fleet.sum("tidegate_store_calls_total ") - calls) / seconds / 2.0;
        let rate = samples.admitted() as f64 / seconds;
        report(&format!(
            "{connections} connections: {rate:.1} of {:.1} a second admitted, {calls:.1} calls a second and gateway",
            samples.0.len() as f64 / seconds
        ));
        assert!(calls <= 100.0, "{calls} calls a second");
        assert!((570.0..=640.0).contains(&rate), "{rate} of 600 a second");
        fleet.assert_no_outage();
    }
}

#[test]
fn nobody_is_refused_while_more_is_left_in_a_long_window_than_anybody_wants() {
    // ten a second on average, and twenty times as many are wanted now
    let fleet = Fleet::start(
        1,
        "  p: { key: [global], algorithm: fixed_window, consistency: leased, \
         quota: { count: 864000, period: 24h } }",
    );
    fleet.until_leasing();
    let time = fleet.redis.command(&["TIME"]);
    let now: String = time.lines().map(|part| format!("{part:0>6}")).collect();
    fleet
        .redis
        .command(&["SET", "tg:f:p:g", &format!("860000:{now}")]);
    let samples = hot(&fleet, Duration::from_secs(2));
    assert_eq!(samples.admitted() as usize, samples.0.len());
    let more = units_in_redis(&fleet, "tg:f:p:g") - 860_000;
    assert!(more >= samples.admitted(), "{more}");
}

#[test]
fn who_is_refused_by_a_leased_bucket_is_told_when_its_next_portion_is_fetched() {
    let fleet = Fleet::start(
        1,
        "  p: { key: [global], algorithm: token_bucket, consistency: leased, \
         quota: { count: 200, period: 1s, burst: 100 } }",
    );
    fleet.until_leasing();
    let mut connection = fleet.gateways[0].connect();
    let mut waits = Vec::new();
    while waits.len() < 20 {
        let response = connection.request("GET", "/", &[], b"");
        if response.status == 429 {
            let wait = response.json()["retry_after_ms"].as_u64().unwrap();
            pause(Duration::from_millis(wait));
            let next = connection.request("GET", "/", &[], b"");
            assert_eq!(next.status, 200, "after {wait} ms, as told: {next}");
            waits.push(wait);
        }
    }
    report(&format!("{waits:?}"));
    assert!(waits.iter().all(|wait| *wait <= 51), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > 25), "{waits:?}");
    fleet.assert_no_outage();
}

/// A window of a day: what is in the bucket only grows by charges and shrinks by refunds.
const A_DAY: &str =
    "algorithm: fixed_window, consistency: leased, quota: { count: 86400000, period: 24h }";

#[test]
fn what_is_not_used_goes_back_when_demand_stops() {
    let fleet = Fleet::start(
        2,
        &format!("  p: {{ key: [global], lease_ttl: 300ms, {A_DAY} }}"),
    );
    fleet.until_leasing();
    let mut used = 0;
    for round in 0..3 {
        used += hot(&fleet, Duration::from_millis(600)).admitted();
        waiting::until("the bucket holds what was used", || {
            units_in_redis(&fleet, "tg:f:p:g") == used
        });
        pause(Duration::from_millis(400));
        assert_eq!(units_in_redis(&fleet, "tg:f:p:g"), used, "round {round}");
    }
    assert!(fleet.sum("tidegate_store_lease_served_total ") > 50.0);
    assert!(
        fleet.sum("tidegate_store_refunded_total ") > 0.0,
        "nothing had to go back"
    );
    fleet.assert_no_outage();
}

#[test]
fn what_is_not_used_of_a_log_goes_back_too() {
    let fleet = Fleet::start(
        2,
        "  p: { key: [global], algorithm: sliding_window, consistency: leased, lease_ttl: 2s, \
         quota: { count: 10000, period: 200s } }",
    );
    fleet.until_leasing();
    let used = hot(&fleet, Duration::from_secs(2)).admitted();
    waiting::until("the log holds what was used", || {
        let entries = fleet.redis.command(&["LRANGE", "tg:s:p:g", "0", "-1"]);
        let total = |entry: &str| -> u64 { entry.split(':').nth(1).unwrap().parse().unwrap() };
        let mut entries = entries.lines().map(total);
        let first = entries.next().unwrap();
        entries.next_back().unwrap() - first == used
    });
    assert!(fleet.sum("tidegate_store_lease_served_total ") > 50.0);
    fleet.assert_no_outage();
}

#[test]
fn a_long_lease_does_not_keep_short_ones_from_going_back() {
    let fleet = Fleet::start(
        1,
        &format!(
            "  long: {{ key: [global], methods: [POST], lease_ttl: 10s, {A_DAY} }}\n  \
             short: {{ key: [global], methods: [GET], lease_ttl: 100ms, {A_DAY} }}"
        ),
    );
    fleet.until_leasing();
    let mut connection = fleet.gateways[0].connect();
    for _ in 0..100 {
        assert_eq!(connection.request("POST", "/", &[], b"").status, 200);
    }
    assert!(
        fleet.sum("tidegate_store_lease_served_total ") > 0.0,
        "no long lease"
    );
    let used = hot(&fleet, Duration::from_millis(600)).admitted();
    let begin = std::time::Instant::now();
    waiting::until("the bucket holds what was used", || {
        units_in_redis(&fleet, "tg:f:short:g") == used
    });
    // the long leases end ten seconds after they were asked for, three at most of which have gone
    let took = begin.elapsed();
    report(&format!("handed back after {took:?}"));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_killed_gateway_loses_no_more_than_the_cap() {
    let fleet = Fleet::start(
        2,
        &format!("  p: {{ key: [global], lease_ttl: 5s, {A_DAY} }}"),
    );
    fleet.until_leasing();
    let used = hot(&fleet, Duration::from_secs(1)).admitted();
    // with leases in hand that live for seconds to come
    fleet.gateways[0].signal("KILL");
    // 1,000 a second, for five seconds, on two gateways
    let cap = 1_000 * 5 / 2;
    pause(Duration::from_secs(6));
    let mut lost = 0;
    waiting::until("the other has handed back what it held", || {
        let before = lost;
        lost = units_in_redis(&fleet, "tg:f:p:g") - used;
        pause(Duration::from_millis(300));
        lost == before
    });
    report(&format!("{used} used, {lost} lost of {cap} at most"));
    assert!((1..=cap).contains(&lost), "{lost} of {cap}");
}

#[test]
fn a_gateway_that_stops_gives_back_what_it_has_in_hand() {
    let mut fleet = Fleet::start(
        1,
        &format!("  p: {{ key: [global], lease_ttl: 5s, {A_DAY} }}"),
    );
    fleet.until_leasing();
    let used = hot(&fleet, Duration::from_secs(1)).admitted();
    let ahead = units_in_redis(&fleet, "tg:f:p:g") - used;
    let gateway = &mut fleet.gateways[0];
    // of 1,000 a second, for five seconds
    assert_eq!(
        gateway.metric("tidegate_lease_units_bound{policy=\"p\"} "),
        5_000.0
    );
    let most = gateway.metric("tidegate_lease_units_most{policy=\"p\"} ");
    assert!((1.0..=5_000.0).contains(&most), "{most}");
    assert!(gateway.metric("tidegate_lease_units{policy=\"p\"} ") >= ahead as f64);
    gateway.signal("TERM");
    let (status, took) = timed(|| gateway.ended());
    assert!(status.success(), "{status}");
    report(&format!(
        "{used} used, {ahead} in hand, ended after {took:?}"
    ));
    assert!(ahead > 0, "nothing was in hand");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(units_in_redis(&fleet, "tg:f:p:g"), used);
}

/// Spikes and rests that wander over the gateways: refill is earned while units lie in leases.
fn wandering(gateway: usize, at: Duration) -> Option<Pace> {
    let turn = at.as_millis() as usize / 150;
    match turn % 8 {
        // everybody, moderately: leases grow
        0 | 4 => steady(30),
        // nobody
        1 | 5 | 7 => None,
        // a pair takes what it can get
        2 => (gateway % 2 == turn / 8 % 2).then_some(Pace::GREEDY),
        3 => (gateway % 2 != turn / 8 % 2).then_some(Pace::GREEDY),
        // one
        _ => (gateway == turn / 8 % 4).then_some(Pace::GREEDY),
    }
}

/// Leases are taken, then lie about while the bucket refills, then everybody wants everything: units in hand come
/// on top of a full burst. In every other turn only those who have none in hand want anything.
fn hoarding(gateway: usize, at: Duration) -> Option<Pace> {
    let turn = at.as_millis() / 2_600;
    let one_pair = gateway < 2;
    match at.as_millis() % 2_600 {
        0..1_000 if turn == 0 || one_pair => steady(120),
        1_750..2_200 if turn == 0 || !one_pair => Some(Pace::GREEDY),
        _ => None,
    }
}

/// Runs demand on four gateways and returns the largest excess over `burst + rate * t`, which keeps the bound.
fn excess(ttl_ms: u32, rate: u32, burst: u32, pace: fn(usize, Duration) -> Option<Pace>) -> f64 {
    let fleet = Fleet::start(
        4,
        &format!(
            "  p: {{ key: [global], on_outage: deny, algorithm: token_bucket, consistency: leased, \
             lease_ttl: {ttl_ms}ms, quota: {{ count: {rate}, period: 1s, burst: {burst} }} }}"
        ),
    );
    fleet.until_leasing();
    let samples = demand(&fleet.gateways, 8, Duration::from_millis(4_900), pace);
    let bound = |length_us: u64| f64::from(burst) + f64::from(rate) * length_us as f64 / 1e6;
    let excess = samples.largest_excess(bound);
    let ahead = f64::from(rate) * f64::from(ttl_ms) / 1e3;
    let served = fleet.sum("tidegate_store_lease_served_total ");
    report(&format!(
        "ttl {ttl_ms} ms: {} of {} admitted in {:.2} s, {served} from leases, excess {excess:.1} of {ahead}",
        samples.admitted(),
        samples.0.len(),
        samples.seconds(),
    ));
    assert!(excess <= ahead + 1e-6, "{excess} of {ahead}");
    for gateway in &fleet.gateways {
        assert!(gateway.metric("tidegate_store_lease_served_total ") > 0.0);
    }
    let refused = samples.0.len() as u64 - samples.admitted();
    assert!(refused > 0, "the limit was never met");
    fleet.assert_no_outage();
    excess
}

#[test]
fn demand_that_stops_and_returns_elsewhere_keeps_the_bound() {
    excess(100, 600, 200, wandering);
}

#[test]
fn units_in_hand_and_a_full_bucket_keep_the_bound() {
    let excess = excess(1_000, 400, 400, hoarding);
    assert!(
        excess > 0.0,
        "nothing was in hand when the bucket was full: {excess}"
    );
}

#[test]
fn demand_that_stops_and_returns_elsewhere_keeps_a_window_exact() {
    let fleet = Fleet::start(
        4,
        "  p: { key: [global], on_outage: deny, algorithm: sliding_window, consistency: leased, \
         quota: { count: 1200, period: 2s } }",
    );
    fleet.until_leasing();
    let samples = demand(&fleet.gateways, 8, Duration::from_secs(5), wandering);
    let most = samples.most_within(2_000_000);
    let served = fleet.sum("tidegate_store_lease_served_total ");
    report(&format!(
        "{} of {} admitted, {served} from leases, {most} within a period",
        samples.admitted(),
        samples.0.len()
    ));
    assert!(most <= 1_200, "{most}");
    assert!(served > 0.0);
    fleet.assert_no_outage();
}
