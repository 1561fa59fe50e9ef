//! Remembered refusals: an attacker is cheap, waiting as told helps, a reset is heard of by all.

use super::fleet::{Fleet, report};
use super::load::{Pace, demand};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::{RedisServer, Wire};
use crate::upstream::Upstream;
use crate::waiting::{self, pause};
use std::time::{Duration, Instant};

const CALLS: &str = "tidegate_store_calls_total ";
const RESET: &str = include_str!("../../../lua/reset.lua");

#[test]
fn an_attacker_costs_a_gateway_about_one_call_a_second() {
    // of several connections, some ask while the one call is under way and share a second one
    for (algorithm, connections, calls_a_second) in [
        ("token_bucket", 1, 1.0),
        ("sliding_window", 4, 2.0),
        ("sliding_window_counter", 4, 2.0),
        ("fixed_window", 1, 1.0),
    ] {
        let fleet = Fleet::start(
            2,
            &format!(
                "  p: {{ key: [global], algorithm: {algorithm}, quota: {{ count: 10, period: 1000h }} }}"
            ),
        );
        let attack = |length| {
            demand(&fleet.gateways, connections, length, |_, _| {
                Some(Pace::every(Duration::from_millis(15)))
            })
        };
        let first = attack(Duration::from_secs(1));
        assert_eq!(first.admitted(), 10);
        let before: Vec<f64> = fleet
            .gateways
            .iter()
            .map(|gateway| gateway.metric(CALLS))
            .collect();
        let begin = Instant::now();
        let samples = attack(Duration::from_secs(3));
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!(samples.admitted(), 0);
        for (gateway, before) in fleet.gateways.iter().zip(before) {
            let calls = gateway.metric(CALLS) - before;
            report(&format!(
                "{algorithm}, {connections} connections: {calls} calls in {seconds:.2} s of {} requests",
                samples.0.len()
            ));
            let most = calls_a_second * (seconds + 1.0);
            assert!((2.0..=most).contains(&calls), "{calls} in {seconds} s");
        }
        // Redis hears of those that gateways have given by themselves: all but the first handful
        let refused = (first.0.len() + samples.0.len()) as u64 - 10;
        let told = || -> u64 {
            let scores = ["ZRANGE", "tg:refused{tg:gateways}", "0", "-1", "WITHSCORES"];
            let reply = fleet.redis.command(&scores);
            reply
                .lines()
                .nth(1)
                .map_or(0, |score| score.parse().unwrap())
        };
        waiting::until("Redis has heard of all refusals", || told() + 10 >= refused);
        assert!(told() <= refused, "{} of {refused}", told());
        fleet.assert_no_outage();
    }
}

#[test]
fn a_remembered_refusal_tells_the_truth_about_waiting() {
    for algorithm in [
        "token_bucket",
        "sliding_window",
        "sliding_window_counter",
        "fixed_window",
    ] {
        let fleet = Fleet::start(
            2,
            &format!(
                "  p: {{ key: [global], algorithm: {algorithm}, quota: {{ count: 4, period: 3s }} }}"
            ),
        );
        let [one, other] = &fleet.gateways[..] else {
            unreachable!()
        };
        let remembered =
            |gateway: &Gateway| gateway.metric("tidegate_store_remembered_refusals_total ");
        for _ in 0..2 {
            let before = remembered(one);
            let refusal = waiting::find("a refusal from memory", || {
                let refusal = one.get("/");
                let is_remembered = refusal.status == 429 && remembered(one) > before;
                // so long that it is the answer to this one request that is waited for
                let wait = (refusal.status == 429)
                    .then(|| refusal.json()["retry_after_ms"].as_u64().unwrap());
                is_remembered.then_some(wait?).filter(|wait| *wait > 200)
            });
            // only as good as told: shortly before, nothing passes
            pause(Duration::from_millis(refusal / 4));
            assert_eq!(
                other.get("/").status,
                429,
                "{algorithm}: {refusal} ms are too long"
            );
            pause(Duration::from_millis(refusal - refusal / 4));
            let next = one.get("/");
            assert_eq!(
                next.status, 200,
                "{algorithm}: after {refusal} ms, as told: {next}"
            );
        }
        fleet.assert_no_outage();
    }
}

#[test]
fn a_refusal_that_was_long_on_its_way_tells_the_truth_too() {
    let redis = RedisServer::start();
    let wire = Wire::before(redis.address());
    let upstream = Upstream::scripted(|exchange| exchange.answer("ok"));
    let gateway = Gateway::start(&format!(
        "{}{EVERYTHING}store: {{ redis: {{ url: \"{}\", timeout: 5s }} }}\n\
         policies: {{ p: {{ key: [global], algorithm: token_bucket, quota: {{ count: 1, period: 3s }} }} }}",
        app(upstream.address),
        wire.url()
    ));
    wire.delay(Duration::from_millis(300), Duration::ZERO);
    assert_eq!(gateway.get("/").status, 200);
    // the handful that make the bucket hot
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 429);
    }
    wire.heal();
    let refusal = gateway.get("/");
    let remembered = gateway.metric("tidegate_store_remembered_refusals_total ");
    assert_eq!((refusal.status, remembered), (429, 1.0));
    let wait = refusal.json()["retry_after_ms"].as_u64().unwrap();
    pause(Duration::from_millis(wait));
    let next = gateway.get("/");
    assert_eq!(next.status, 200, "after {wait} ms, as told: {next}");
    assert_eq!(gateway.metric("tidegate_store_outage_total "), 0.0);
}

/// Asks until the store has refused just now; when that was.
fn freshly_refused(gateway: &Gateway) -> Instant {
    let begin = Instant::now();
    let remembered = || gateway.metric("tidegate_store_remembered_refusals_total ");
    let before = remembered();
    // past the handful that make the bucket hot; a gateway that does not hear of resets yet remembers nothing
    waiting::until("refusals are remembered", || {
        assert_eq!(gateway.get("/").status, 429);
        remembered() > before
    });
    let before = gateway.metric(CALLS);
    loop {
        let asked = Instant::now();
        assert_eq!(gateway.get("/").status, 429);
        if gateway.metric(CALLS) > before {
            return asked;
        }
        assert!(
            begin.elapsed() < waiting::DEADLINE,
            "no refusal is remembered"
        );
        pause(Duration::from_millis(10));
    }
}

/// How long after a fresh refusal of a gateway its requests pass again, once `act` was done.
fn admitted_after(gateway: &Gateway, act: impl Fn()) -> Duration {
    let refused = freshly_refused(gateway);
    act();
    waiting::until("requests pass again", || gateway.get("/").status == 200);
    refused.elapsed()
}

#[test]
fn a_reset_is_heard_of_by_every_gateway_at_once() {
    resets_of("p", "tg:f:p:g");
}

#[test]
fn so_is_that_of_a_bucket_whose_key_is_a_hash() {
    resets_of("a-policy-whose-name-takes-all-the-room", "tg:#*");
}

fn resets_of(policy: &str, pattern: &str) {
    let fleet = Fleet::start(
        3,
        &format!(
            "  {policy}: {{ key: [global], algorithm: fixed_window, quota: {{ count: 20, period: 1000h }} }}"
        ),
    );
    let exhaust = || {
        waiting::until("the bucket is exhausted", || {
            fleet.gateways[0].get("/").status == 429
        })
    };
    exhaust();
    let key = &fleet.redis.command(&["KEYS", pattern]);
    for gateway in &fleet.gateways {
        exhaust();
        // a bucket that is deleted without a word is refused as long as that is remembered
        let took = admitted_after(gateway, || {
            fleet.redis.command(&["DEL", key]);
        });
        assert!(
            took >= Duration::from_millis(990),
            "no refusal was remembered: {took:?}"
        );
        // one that is reset is not; a busy machine may be slow, but not each time
        let rounds = (0..4).map(|_| {
            exhaust();
            admitted_after(gateway, || {
                fleet.redis.command(&["EVAL", RESET, "1", key, "tg:resets"]);
            })
        });
        let fastest = rounds.min().unwrap();
        report(&format!(
            "requests pass {fastest:?} after a refusal and a reset, {took:?} after a DEL"
        ));
        assert!(fastest < Duration::from_millis(800), "{fastest:?}");
    }
    fleet.assert_no_outage();
}
