//! What was admitted without Redis, or by an answer that came too late, is neither free nor paid twice.

use super::load::{Caller, Load, admitted, admitted_in};
use super::scene::{QUOTA, until_connected};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::{RedisServer, Wire};
use crate::upstream::Upstream;
use crate::waiting;
use std::time::Duration;

/// A gateway with one policy: 60 units an hour for each `X-Key`.
fn gateway(upstream: &Upstream, url: &str, settings: &str, policy: &str) -> Gateway {
    let gateway = Gateway::start(&format!(
        "{}{EVERYTHING}store: {{ redis: {{ url: \"{url}\", {settings} }} }}
policies: {{ p: {{ key: ['header:X-Key'], algorithm: token_bucket, quota: {{ count: {QUOTA}, period: 1h }}, {policy} }} }}",
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

#[test]
fn units_granted_after_the_deadline_are_handed_back() {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let policy = "on_outage: allow";
    let gateway = gateway(&upstream, &wire.url(), "timeout: 30ms", policy);
    // only what comes back is late: Redis charges in time
    wire.delay(Duration::ZERO, Duration::from_millis(90));
    assert_eq!(admitted(gateway.address, "/", "late", 3), 3);
    wire.heal();
    waiting::until("they are handed back", || {
        gateway.metric("tidegate_store_refunded_total ") == 3.0 && held(&redis, "late") == 0
    });
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 3.0);
    assert_eq!(gateway.metric("tidegate_store_outage_total "), 3.0);
    // nothing is missing
    until_connected(&gateway);
    assert!((QUOTA..=QUOTA + 1).contains(&admitted(gateway.address, "/", "late", 70)));
}

#[test]
fn units_granted_after_the_breaker_opened_are_handed_back_too() {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let policy = "on_outage: allow";
    let gateway = gateway(&upstream, &wire.url(), "timeout: 30ms", policy);
    wire.delay(Duration::ZERO, Duration::from_millis(90));
    let caller = Caller {
        gateway: gateway.address,
        target: "/",
        key: "late",
    };
    let load = Load::start(&[caller; 8]);
    waiting::until("the breaker is open", || {
        gateway.metric("tidegate_store_up ") == 0.0
    });
    let samples = load.stop();
    assert!(samples.iter().all(|sample| sample.status == 200));
    wire.heal();
    until_connected(&gateway);
    waiting::until("they are handed back", || held(&redis, "late") == 0);
    assert!(gateway.metric("tidegate_store_refunded_total ") >= 5.0);
}

#[test]
fn what_a_few_missed_deadlines_admitted_is_charged_though_no_breaker_opened() {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let gateway = gateway(&upstream, &wire.url(), "timeout: 60ms", "on_outage: local");
    wire.delay(Duration::ZERO, Duration::from_millis(120));
    assert_eq!(admitted(gateway.address, "/", "few", 3), 3);
    wire.heal();
    waiting::until("late units are handed back", || {
        gateway.metric("tidegate_store_refunded_total ") == 3.0
    });
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
    waiting::until("what was admitted in process is charged", || {
        held(&redis, "few") == 3
    });
    let rest = admitted(gateway.address, "/", "few", 70);
    assert!(rest <= QUOTA - 3 + 1, "3 and then {rest} of {QUOTA}");
}

#[test]
fn whoever_finds_too_many_waiting_is_decided_at_once_and_charged_later() {
    let (redis, upstream) = (RedisServer::start(), upstream());
    let wire = Wire::before(redis.address());
    let settings = "timeout: 2s, max_waiting: 2";
    let gateway = gateway(&upstream, &wire.url(), settings, "on_outage: local");
    wire.delay(Duration::from_millis(100), Duration::from_millis(100));
    let caller = Caller {
        gateway: gateway.address,
        target: "/",
        key: "crowd",
    };
    let load = Load::start(&[caller; 6]);
    waiting::until("it was crowded", || {
        gateway.metric("tidegate_store_crowded_total ") >= 20.0
    });
    let samples = load.stop();
    wire.heal();
    let quick = samples
        .iter()
        .filter(|sample| sample.took < Duration::from_millis(100));
    let crowded = gateway.metric("tidegate_store_crowded_total ");
    assert!(quick.count() as f64 >= crowded * 0.9, "{crowded}: {samples:?}");
    assert_eq!(gateway.metric("tidegate_store_deadlines_total "), 0.0);
    assert_eq!(gateway.metric("tidegate_store_trips_total "), 0.0);
    let spent = admitted_in(&samples, "/");
    assert_eq!(gateway.metric("tidegate_store_outage_total "), crowded);
    waiting::until("what was admitted in process is charged", || {
        held(&redis, "crowd") == spent.min(QUOTA)
    });
}
