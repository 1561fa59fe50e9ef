//! What is left of an outage in every kind of bucket, and of one outage after the other.

use super::load::{admitted, ask};
use super::scene::until_connected;
use crate::client::Connection;
use crate::gateway::{Gateway, app};
use crate::redis::{RedisServer, Wire};
use crate::upstream::Upstream;
use crate::waiting::{self, timed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ALGORITHMS: [(&str, &str); 4] = [
    ("/token_bucket", "token_bucket"),
    ("/sliding_window", "sliding_window"),
    ("/sliding_window_counter", "sliding_window_counter"),
    ("/fixed_window", "fixed_window"),
];

/// A gateway with a route and a policy for each algorithm, 20 units a day.
fn gateway(upstream: &Upstream, url: &str, workers: usize) -> Gateway {
    let mut text = format!(
        "{}store: {{ redis: {{ url: \"{url}\", timeout: 250ms }} }}\nserver: {{ threads: {workers} }}\n",
        app(upstream.address)
    );
    let (mut routes, mut policies) = (String::new(), String::new());
    for (path, algorithm) in ALGORITHMS {
        let name = algorithm.replace('_', "-");
        routes += &format!("  - {{ name: {name}, match: {{ path: {path} }}, upstream: app }}\n");
        policies += &format!(
            "  {name}: {{ routes: [{name}], key: ['header:X-Key'], algorithm: {algorithm}, quota: {{ count: 20, period: 24h }} }}\n"
        );
    }
    routes += "  - { name: flight, match: { path: /flight }, upstream: app }\n";
    policies += "  flight: { routes: [flight], key: [global], algorithm: concurrency, quota: { count: 2 } }\n";
    routes += "  - { name: both, match: { path: /both }, upstream: app }\n";
    policies += "  both: { routes: [both], key: ['header:X-Key'], algorithm: token_bucket, quota: { count: 20, period: 24h } }
  denied: { routes: [both], key: [global], algorithm: token_bucket, quota: { count: 1000, period: 24h }, on_outage: deny }\n";
    text += &format!("routes:\n{routes}policies:\n{policies}");
    let gateway = Gateway::start(&text);
    until_connected(&gateway);
    gateway
}

fn until_degraded(gateway: &Gateway) {
    waiting::until("the outage is noticed", || {
        gateway.get("/health").json()["status"] == "degraded"
    });
}

with_one_worker_and_two! {
    every_algorithm_goes_on_where_it_was_and_is_charged_afterwards,
    one_outage_after_the_other_is_not_one_allowance_after_the_other,
    a_request_that_deny_refuses_is_charged_nowhere,
    requests_in_flight_through_an_outage_are_neither_forgotten_nor_held_for_ever,
    a_gateway_stops_at_once_whatever_redis_does,
}

fn every_algorithm_goes_on_where_it_was_and_is_charged_afterwards(workers: usize) {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let gateway = gateway(&upstream, &wire.url(), workers);
    let spend = |key: &str, count| {
        ALGORITHMS.map(|(target, _)| admitted(gateway.address, target, key, count))
    };
    assert_eq!(spend("old", 12), [12; 4]);
    wire.refuse();
    until_degraded(&gateway);
    assert_eq!(spend("old", 5), [5; 4]);
    assert_eq!(spend("new", 15), [15; 4]);
    wire.heal();
    until_connected(&gateway);
    assert_eq!(spend("old", 20), [3; 4]);
    assert_eq!(spend("new", 20), [5; 4]);
}

fn one_outage_after_the_other_is_not_one_allowance_after_the_other(workers: usize) {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let gateway = gateway(&upstream, &wire.url(), workers);
    let outage = || {
        wire.refuse();
        until_degraded(&gateway);
        let all = ALGORITHMS.map(|(target, _)| admitted(gateway.address, target, "new", 25));
        wire.heal();
        until_connected(&gateway);
        all
    };
    assert_eq!(outage(), [20; 4]);
    // all of it has been charged, and this gateway knows: it charged it itself
    assert_eq!(outage(), [0; 4]);
}

fn a_request_that_deny_refuses_is_charged_nowhere(workers: usize) {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let gateway = gateway(&upstream, &wire.url(), workers);
    wire.refuse();
    until_degraded(&gateway);
    let mut connection = Connection::open(gateway.address);
    for _ in 0..10 {
        assert!(ask(&mut connection, "/both", "new").explained);
    }
    wire.heal();
    until_connected(&gateway);
    assert_eq!(admitted(gateway.address, "/both", "new", 25), 20);
}

fn requests_in_flight_through_an_outage_are_neither_forgotten_nor_held_for_ever(workers: usize) {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    let upstream = Upstream::scripted(move |exchange| {
        if exchange.header("X-Key") == Some("slow") {
            waiting::until("it may end", || is_open.load(Ordering::Relaxed));
        }
        exchange.answer("ok")
    });
    let gateway = gateway(&upstream, &wire.url(), workers);
    let slow = |open: &AtomicBool, outage: &dyn Fn()| {
        open.store(false, Ordering::Relaxed);
        let before = upstream.requests();
        std::thread::scope(|scope| {
            // what has just been answered is on its way back
            let start = || {
                waiting::find("there is room", || {
                    let mut connection = Connection::open(gateway.address);
                    Some(ask(&mut connection, "/flight", "slow").status)
                        .filter(|status| *status != 429)
                })
            };
            let slow = [scope.spawn(start), scope.spawn(start)];
            waiting::until("both are at the upstream", || {
                upstream.requests() == before + 2
            });
            assert_eq!(admitted(gateway.address, "/flight", "third", 3), 0);
            outage();
            open.store(true, Ordering::Relaxed);
            assert_eq!(slow.map(|slow| slow.join().unwrap()), [200, 200]);
        });
    };
    let is_free = || admitted(gateway.address, "/flight", "third", 1) == 1;
    // they end when Redis is back: it has them still
    slow(&open, &|| {
        wire.refuse();
        until_degraded(&gateway);
        wire.heal();
        until_connected(&gateway);
        assert_eq!(admitted(gateway.address, "/flight", "third", 3), 0);
    });
    waiting::until("both have ended for Redis", is_free);
    // they end while it is away: it learns that when it is back
    slow(&open, &|| {
        wire.refuse();
        until_degraded(&gateway);
    });
    wire.heal();
    until_connected(&gateway);
    let ((), took) = timed(|| waiting::until("both have ended for Redis", is_free));
    assert!(took <= Duration::from_secs(1), "{took:?}");
    slow(&open, &|| ());
}

fn a_gateway_stops_at_once_whatever_redis_does(workers: usize) {
    let mut redis = RedisServer::start();
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    for frozen in [true, false] {
        let mut gateway = gateway(&upstream, &redis.url(), workers);
        assert_eq!(admitted(gateway.address, "/token_bucket", "x", 1), 1);
        if frozen {
            redis.freeze();
        } else {
            redis.kill();
        }
        until_degraded_by(&gateway);
        gateway.signal("TERM");
        let (status, took) = timed(|| gateway.ended());
        assert!(status.success(), "{status}");
        assert!(took <= Duration::from_secs(1), "{took:?}");
        if frozen {
            redis.thaw();
        }
    }
}

/// Nobody asks but this test: its requests are those that fail.
fn until_degraded_by(gateway: &Gateway) {
    waiting::until("the outage is noticed", || {
        admitted(gateway.address, "/token_bucket", "y", 1);
        gateway.get("/health").json()["status"] == "degraded"
    });
}
