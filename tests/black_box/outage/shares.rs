//! What one gateway admits alone: its share of the quota.

use super::load::admitted;
use super::scene::{QUOTA, Scene, until_connected};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use crate::waiting::{self, timed};
use std::time::Duration;

#[test]
fn two_live_gateways_admit_half_of_a_quota_each_and_one_the_whole() {
    for (gateways, share) in [(2, QUOTA / 2), (1, QUOTA)] {
        let mut redis = RedisServer::start();
        let scene = Scene::of(gateways, 250, &format!("url: \"{}\"", redis.url()));
        redis.kill();
        for gateway in &scene.gateways {
            waiting::until("the outage is noticed", || {
                gateway.get("/health").json()["status"] == "degraded"
            });
            for target in ["/quota", "/window"] {
                let alone = admitted(gateway.address, target, "new", 70);
                assert!((share..=share + 1).contains(&alone), "{target}: {alone}");
            }
        }
    }
}

#[test]
fn a_gateway_that_has_gone_leaves_its_share_to_the_others() {
    let mut redis = RedisServer::start();
    let mut scene = Scene::of(2, 250, &format!("url: \"{}\"", redis.url()));
    scene.gateways.pop();
    let left = &scene.gateways[0];
    waiting::until("the other one is not counted any more", || {
        left.metric("tidegate_store_gateways ") == 1.0
    });
    redis.kill();
    waiting::until("the outage is noticed", || {
        left.get("/health").json()["status"] == "degraded"
    });
    assert_eq!(admitted(left.address, "/quota", "new", 70), QUOTA);
}

#[test]
fn gateways_that_redis_has_forgotten_are_still_counted_in_the_next_outage() {
    let mut redis = RedisServer::start();
    let scene = Scene::of(2, 250, &format!("url: \"{}\"", redis.url()));
    let until_degraded = || {
        for gateway in &scene.gateways {
            waiting::until("the outage is noticed", || {
                gateway.get("/health").json()["status"] == "degraded"
            });
        }
    };
    redis.kill();
    until_degraded();
    // it crashes again as soon as it is back, empty
    redis.restart();
    scene.gateways.iter().for_each(until_connected);
    redis.kill();
    until_degraded();
    let together = scene.admitted("/quota", "new", 70);
    assert!(together <= QUOTA + 2, "{together} of {QUOTA}");
}

/// A gateway that expects to be one of four.
fn one_of_four(upstream: &Upstream, url: &str, on_outage: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{EVERYTHING}store: {{ redis: {{ url: \"{url}\", timeout: 250ms }}, expected_gateways: 4 }}
policies: {{ p: {{ key: ['header:X-Key'], algorithm: token_bucket, quota: {{ count: {QUOTA}, period: 1h }}, on_outage: {on_outage} }} }}",
        app(upstream.address)
    ))
}

#[test]
fn a_gateway_starts_without_redis_and_takes_the_share_it_is_expected_to_have() {
    let mut redis = RedisServer::start_persistent();
    let url = redis.url();
    redis.kill();
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    for (on_outage, at_once) in [("local", QUOTA / 4), ("allow", 70), ("deny", 0)] {
        let (gateway, took) = timed(|| {
            let gateway = one_of_four(&upstream, &url, on_outage);
            assert_eq!(gateway.get("/health").json()["redis"], "disconnected");
            gateway
        });
        assert!(took <= Duration::from_secs(2), "{took:?}");
        let (first, took) = timed(|| gateway.get("/"));
        let status = if on_outage == "deny" { 503 } else { 200 };
        assert_eq!(first.status, status, "{on_outage}: {first}");
        assert!(took <= Duration::from_secs(2), "{took:?}");
        if on_outage != "deny" {
            assert_eq!(admitted(gateway.address, "/", "new", 70), at_once);
        }
        gateway.stderr.line_with("cannot connect to Redis: ");
        if on_outage == "local" {
            redis.restart_with_data();
            let ((), took) = timed(|| until_connected(&gateway));
            assert!(took <= Duration::from_secs(1), "{took:?}");
            let rest = admitted(gateway.address, "/", "new", 70);
            let all = at_once + rest;
            assert!((QUOTA..=QUOTA + 1).contains(&all), "{all}");
            assert_eq!(gateway.metric("tidegate_store_gateways "), 1.0);
            redis.kill();
        }
    }
}

#[test]
fn a_gateway_starts_though_redis_accepts_connections_and_says_nothing() {
    let redis = RedisServer::start();
    redis.freeze();
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let (gateway, took) = timed(|| {
        let gateway = one_of_four(&upstream, &redis.url(), "local");
        assert_eq!(gateway.get("/").status, 200);
        gateway
    });
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(gateway.get("/health").json()["redis"], "disconnected");
    gateway.stderr.line_with("cannot connect to Redis: ");
    redis.thaw();
    let ((), took) = timed(|| until_connected(&gateway));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    eprintln!("{took:?}");
}
