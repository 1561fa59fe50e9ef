//! What was admitted without Redis, or by an answer that came too late, is neither free nor paid twice.

use super::load::{Caller, Load, Sample, admitted, admitted_in};
use super::scene::{QUOTA, until_connected};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::{RedisServer, Wire};
use crate::upstream::Upstream;
use crate::waiting;
use std::time::{Duration, Instant};

/// A policy of 60 units an hour.
fn units(on_outage: &str) -> String {
    format!(
        "algorithm: token_bucket, quota: {{ count: {QUOTA}, period: 1h }}, on_outage: {on_outage}"
    )
}

/// A gateway with one policy for each `X-Key`.
fn gateway(
    upstream: &Upstream,
    url: &str,
    settings: &str,
    policy: &str,
    workers: usize,
) -> Gateway {
    let gateway = Gateway::start(&format!(
        "{}{EVERYTHING}server: {{ threads: {workers} }}
store: {{ redis: {{ url: \"{url}\", {settings} }} }}
policies: {{ p: {{ key: ['header:X-Key'], {policy} }} }}",
        app(upstream.address)
    ));
    until_connected(&gateway);
    gateway
}

fn upstream() -> Upstream {
    Upstream::scripted(|exchange| exchange.answer("ok"))
}

/// Whole units that the bucket of a key holds in Redis.
fn held(redis: &RedisServer, key: &str) -> u64 {
    let state = redis.command(&["GET", &format!("tg:t:p:h:{key}")]);
    let level = state.split(':').next().unwrap_or_default();
    level.parse::<u64>().unwrap_or(0).div_ceil(1_000_000)
}

/// Soon the bucket of a key holds so many units in Redis.
fn comes_to_hold(redis: &RedisServer, key: &str, units: u64) {
    let begin = Instant::now();
    while held(redis, key) != units && begin.elapsed() < Duration::from_secs(3) {
        waiting::pause(Duration::from_millis(10));
    }
    assert_eq!(held(redis, key), units, "units that {key} holds in Redis");
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

with_one_worker_and_two! {
    units_granted_after_the_deadline_are_handed_back,
    units_granted_after_the_breaker_opened_are_handed_back_too,
    a_permit_granted_after_the_deadline_comes_back,
    what_a_few_missed_deadlines_admitted_is_charged_though_no_breaker_opened,
    a_deadline_missed_long_ago_spares_no_bucket_in_the_next_outage,
    whoever_finds_too_many_waiting_is_decided_at_once,
    what_a_crowd_was_admitted_is_charged_though_no_breaker_opened,
}

fn units_granted_after_the_deadline_are_handed_back(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let policy = units("allow");
    let gateway = gateway(&upstream, &wire.url(), "timeout: 30ms", &policy, workers);
    // only what comes back is late: Redis charges in time
    wire.delay(Duration::ZERO, Duration::from_millis(60));
    for key in &KEYS[..3] {
        assert_eq!(admitted(gateway.address, "/", key, 1), 1);
    }
    wire.heal();
    waiting::until("they are handed back", || {
        gateway.metric("tidegate_store_refunded_total ") == 3.0
    });
    for key in &KEYS[..3] {
        comes_to_hold(&redis, key, 0);
    }
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 3.0);
    assert_eq!(gateway.metric("tidegate_store_outage_total "), 3.0);
    // nothing is missing
    until_connected(&gateway);
    let whole = admitted(gateway.address, "/", "a", 70);
    // on a busy machine `allow` lets some more through
    let missed = gateway.metric("tidegate_store_outage_total ") as u64 - 3;
    assert!((QUOTA..=QUOTA + 1 + missed).contains(&whole), "{whole}");
}

fn units_granted_after_the_breaker_opened_are_handed_back_too(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let policy = units("allow");
    let gateway = gateway(&upstream, &wire.url(), "timeout: 30ms", &policy, workers);
    wire.delay(Duration::ZERO, Duration::from_millis(90));
    let load = Load::start(&KEYS.map(|key| Caller {
        gateway: gateway.address,
        target: "/",
        key,
    }));
    waiting::until("the breaker is open", || {
        gateway.metric("tidegate_store_up ") == 0.0
    });
    let samples = load.stop();
    assert!(samples.iter().all(|sample| sample.status == 200));
    wire.heal();
    until_connected(&gateway);
    for key in KEYS {
        comes_to_hold(&redis, key, 0);
    }
    assert!(gateway.metric("tidegate_store_refunded_total ") >= 5.0);
}

fn a_permit_granted_after_the_deadline_comes_back(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let policy = "algorithm: concurrency, quota: { count: 1 }, on_outage: allow";
    let gateway = gateway(&upstream, &wire.url(), "timeout: 60ms", policy, workers);
    let is_held = || !redis.command(&["KEYS", "tg:c:p:h:late"]).is_empty();
    // so that Redis knows the script
    assert_eq!(admitted(gateway.address, "/", "late", 1), 1);
    waiting::until("nobody holds it", || !is_held());
    wire.delay(Duration::ZERO, Duration::from_millis(400));
    assert_eq!(admitted(gateway.address, "/", "late", 1), 1);
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 1.0);
    assert!(is_held());
    let ((), took) = waiting::timed(|| waiting::until("nobody holds it", || !is_held()));
    // long before it would expire
    assert!(took <= Duration::from_secs(1), "{took:?}");
    wire.heal();
    until_connected(&gateway);
    assert_eq!(admitted(gateway.address, "/", "late", 1), 1);
}

fn what_a_few_missed_deadlines_admitted_is_charged_though_no_breaker_opened(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let gateway = gateway(
        &upstream,
        &wire.url(),
        "timeout: 60ms",
        &units("local"),
        workers,
    );
    wire.delay(Duration::ZERO, Duration::from_millis(120));
    assert_eq!(admitted(gateway.address, "/", "few", 3), 3);
    wire.heal();
    waiting::until("late units are handed back", || {
        gateway.metric("tidegate_store_refunded_total ") >= 1.0
    });
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 3.0);
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
    comes_to_hold(&redis, "few", 3);
    let rest = admitted(gateway.address, "/", "few", 70);
    assert!(rest <= QUOTA - 3 + 1, "3 and then {rest} of {QUOTA}");
}

fn a_deadline_missed_long_ago_spares_no_bucket_in_the_next_outage(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let gateway = gateway(
        &upstream,
        &wire.url(),
        "timeout: 150ms",
        &units("local"),
        workers,
    );
    wire.delay(Duration::ZERO, Duration::from_millis(300));
    assert_eq!(admitted(gateway.address, "/", "x", 1), 1);
    wire.heal();
    assert_eq!(admitted(gateway.address, "/", "x", 49), 49);
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
    wire.refuse();
    waiting::until("the outage is noticed", || {
        gateway.get("/health").json()["status"] == "degraded"
    });
    let rest = admitted(gateway.address, "/", "x", 70);
    assert!(rest <= QUOTA - 49, "50 before it, {rest} during it");
}

fn whoever_finds_too_many_waiting_is_decided_at_once(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let settings = "timeout: 2s, max_waiting: 2";
    let gateway = gateway(&upstream, &wire.url(), settings, &units("allow"), workers);
    wire.delay(Duration::from_millis(200), Duration::from_millis(200));
    let caller = Caller {
        gateway: gateway.address,
        target: "/",
        key: "crowd",
    };
    let load = Load::start(&[caller; 6]);
    waiting::until("it was crowded", || {
        gateway.metric("tidegate_store_crowded_total ") >= 100.0
    });
    let samples = load.stop();
    wire.heal();
    let crowded = gateway.metric("tidegate_store_crowded_total ");
    let is_quick = |sample: &&Sample| sample.took < Duration::from_millis(350);
    let quick = samples.iter().filter(is_quick).count();
    assert!(
        quick as f64 >= crowded * 0.9,
        "{quick} of {}",
        samples.len()
    );
    assert!(samples.iter().all(|sample| sample.status == 200));
    assert_eq!(gateway.metric("tidegate_store_outage_total "), crowded);
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 0.0);
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
}

fn what_a_crowd_was_admitted_is_charged_though_no_breaker_opened(workers: usize) {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let settings = "timeout: 2s, max_waiting: 1";
    let gateway = gateway(&upstream, &wire.url(), settings, &units("local"), workers);
    wire.delay(Duration::from_millis(100), Duration::from_millis(100));
    let caller = Caller {
        gateway: gateway.address,
        target: "/",
        key: "crowd",
    };
    let load = Load::start(&[caller; 4]);
    waiting::until("it was crowded", || {
        gateway.metric("tidegate_store_crowded_total ") >= 20.0
    });
    let spent = admitted_in(&load.stop(), "/");
    wire.heal();
    assert!((20..=QUOTA + 2).contains(&spent), "{spent}");
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
    comes_to_hold(&redis, "crowd", spent.min(QUOTA));
}
