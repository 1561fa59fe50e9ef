//! `tidegate simulate`: a line in, a line out, decided by the code that decides traffic.

use crate::gateway::{EVERYTHING, Reaped, app, tidegate};
use crate::redis::RedisServer;
use crate::scratch::Scratch;
use crate::upstream::nobody;
use crate::waiting;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

struct Simulation {
    child: Reaped,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _scratch: Scratch,
}

fn simulation(policies: &str) -> Simulation {
    simulation_in("memory", "", policies)
}

/// A simulation whose buckets are in `store`, which is configured by `section`.
fn simulation_in(store: &str, section: &str, policies: &str) -> Simulation {
    let scratch = Scratch::new();
    let text = format!(
        "{section}{}{EVERYTHING}policies:\n{policies}",
        app(nobody())
    );
    let file = scratch.file("simulate.yaml", &text);
    let child = tidegate(scratch.path())
        .args(["simulate", "--store", store, "-c"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Reaped(child.unwrap());
    Simulation {
        input: child.0.stdin.take(),
        output: BufReader::new(child.0.stdout.take().unwrap()),
        child,
        _scratch: scratch,
    }
}

impl Simulation {
    /// Sends one line and waits for its answer before anything else is sent.
    fn line(&mut self, line: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {answer:?}: {error}"))
    }

    fn step(&mut self, t_ms: f64, op: &str, cost: u64) -> Value {
        self.line(
            &json!({ "t_ms": t_ms, "policy": "p", "key": "k", "cost": cost, "op": op }).to_string(),
        )
    }

    /// Says that no more lines come; the exit code.
    fn ended(mut self) -> Option<i32> {
        drop(self.input.take());
        let status = waiting::find("the simulation has ended", || {
            self.child.0.try_wait().unwrap()
        });
        status.code()
    }
}

const T: f64 = 1_900_000_000_000.0;

#[test]
fn the_scripts_in_redis_decide_a_timeline_like_the_store_in_process() {
    let redis = RedisServer::start();
    let section = format!("store: {{ redis: {{ url: \"{}\" }} }}\n", redis.url());
    let policies = [
        "algorithm: token_bucket, quota: { count: 7, period: 60s }",
        "algorithm: sliding_window, quota: { count: 7, period: 60s }",
        "algorithm: sliding_window_counter, quota: { count: 7, period: 60s }",
        "algorithm: fixed_window, quota: { count: 7, calendar: day, time_zone: Europe/Berlin }",
        "algorithm: leaky_bucket, quota: { count: 7, period: 60s, max_delay: 20s }",
        "algorithm: concurrency, quota: { count: 7 }",
    ];
    for policy in policies {
        let policy = format!("  p: {{ key: [client], {policy} }}\n");
        let mut here = simulation(&policy);
        let mut there = simulation_in("redis", &section, &policy);
        for (after_ms, op, cost) in [
            (0.0, "spend", 3),
            (0.5, "peek", 4),
            (0.5, "spend", 4),
            (1.0, "spend", 1),
            (-30_000.0, "spend", 1),
            (9_000.25, "spend", 2),
            (60_000.0, "peek", 7),
            (61_000.0, "spend", 8),
            (90_000_000.0, "spend", 7),
        ] {
            let (one, other) = (
                here.step(T + after_ms, op, cost),
                there.step(T + after_ms, op, cost),
            );
            assert_eq!(one, other, "{policy} {op} {cost} after {after_ms} ms");
        }
        assert_eq!((here.ended(), there.ended()), (Some(0), Some(0)));
    }
    assert!(redis.command(&["DBSIZE"]).trim() != "0", "it was asked");
}

#[test]
fn a_simulation_without_its_redis_says_so() {
    let policy = "  p: { key: [client], algorithm: concurrency, quota: { count: 1 } }\n";
    assert_ne!(simulation_in("redis", "", policy).ended(), Some(0));
    let section = "store: { redis: { url: \"redis://127.0.0.1:1\" } }\n";
    assert_ne!(simulation_in("redis", section, policy).ended(), Some(0));
}

const TOKEN_BUCKET: &str =
    "  p: { key: [client], algorithm: token_bucket, quota: { count: 10, period: 60s } }\n";

#[test]
fn each_line_is_answered_before_the_next_is_sent() {
    let mut simulation = simulation(TOKEN_BUCKET);
    let answer = simulation.step(T, "spend", 1);
    assert_eq!(
        answer,
        json!({ "allowed": true, "remaining": 9, "retry_after_ms": null, "reset_after_ms": 6000 })
    );
    for remaining in (0..9).rev() {
        assert_eq!(simulation.step(T, "spend", 1)["remaining"], remaining);
    }
    assert_eq!(
        simulation.step(T, "spend", 1),
        json!({ "allowed": false, "remaining": 0, "retry_after_ms": 6000, "reset_after_ms": 60000 })
    );
    assert_eq!(simulation.step(T + 5_999.0, "spend", 1)["allowed"], false);
    assert_eq!(simulation.step(T + 6_000.0, "spend", 1)["allowed"], true);
    assert_eq!(simulation.ended(), Some(0));
}

#[test]
fn times_may_have_fractions_and_so_have_answers() {
    let mut simulation = simulation(
        "  p: { key: [client], algorithm: sliding_window, quota: { count: 1, period: 10ms } }\n",
    );
    assert_eq!(simulation.step(T + 0.25, "spend", 1)["allowed"], true);
    let refused = simulation.step(T + 0.75, "spend", 1);
    assert_eq!(refused["allowed"], false);
    assert_eq!(refused["retry_after_ms"], 9.5);
    assert_eq!(simulation.step(T + 10.0, "spend", 1)["allowed"], false);
    assert_eq!(simulation.step(T + 10.25, "spend", 1)["allowed"], true);
    assert_eq!(simulation.ended(), Some(0));
}

#[test]
fn peek_takes_nothing() {
    let mut simulation = simulation(TOKEN_BUCKET);
    for _ in 0..3 {
        let peeked = simulation.step(T, "peek", 1);
        assert_eq!(
            (&peeked["allowed"], &peeked["remaining"]),
            (&json!(true), &json!(10))
        );
    }
    assert_eq!(simulation.step(T, "spend", 10)["remaining"], 0);
    assert_eq!(simulation.step(T, "peek", 1)["allowed"], false);
    assert_eq!(simulation.ended(), Some(0));
}

#[test]
fn a_cost_above_the_bucket_is_refused_for_ever() {
    let mut simulation = simulation(TOKEN_BUCKET);
    let refused = simulation.step(T, "spend", 11);
    assert_eq!(
        (
            &refused["allowed"],
            &refused["retry_after_ms"],
            &refused["remaining"]
        ),
        (&json!(false), &Value::Null, &json!(10))
    );
    assert_eq!(simulation.ended(), Some(0));
}

#[test]
fn keys_are_counted_apart_and_time_may_step_back() {
    let mut simulation = simulation(
        "  p: { key: [client], algorithm: fixed_window, quota: { count: 1, period: 60s } }\n",
    );
    let mut spend = |t_ms: f64, key: &str| {
        let line = json!({ "t_ms": t_ms, "policy": "p", "key": key, "cost": 1, "op": "spend" });
        simulation.line(&line.to_string())["allowed"].clone()
    };
    assert_eq!(spend(T, "one"), true);
    assert_eq!(spend(T, "two"), true);
    assert_eq!(spend(T, "one"), false);
    assert_eq!(
        spend(T - 120_000.0, "one"),
        false,
        "a step back gives no fresh allowance"
    );
    assert_eq!(spend(T + 60_000.0, "one"), true);
}

#[test]
fn a_line_that_cannot_be_decided_is_answered_with_an_error_and_the_rest_goes_on() {
    let mut simulation = simulation(TOKEN_BUCKET);
    for line in [
        r#"{"t_ms":1900000000000,"policy":"unknown","key":"k","cost":1,"op":"spend"}"#,
        r#"{"t_ms":1900000000000,"policy":"p","key":"k","cost":-1,"op":"spend"}"#,
        r#"{"t_ms":1900000000000,"policy":"p","key":"k","cost":1,"op":"steal"}"#,
        r#"{"t_ms":-5,"policy":"p","key":"k"}"#,
        r#"{"t_ms":1e300,"policy":"p","key":"k"}"#,
        r#"{"policy":"p","key":"k"}"#,
        "nonsense",
        "[]",
    ] {
        let answer = simulation.line(line);
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{line}: {answer}"
        );
        assert_eq!(answer.get("allowed"), None, "{line}");
    }
    assert_eq!(simulation.step(T, "spend", 1)["remaining"], 9);
    assert_eq!(simulation.ended(), Some(1));
}

#[test]
fn every_algorithm_can_be_simulated() {
    for (algorithm, quota) in [
        ("token_bucket", "count: 3, period: 3s"),
        ("sliding_window", "count: 3, period: 3s"),
        ("sliding_window_counter", "count: 3, period: 3s"),
        ("fixed_window", "count: 3, period: 3s"),
        ("fixed_window", "count: 3, calendar: day"),
        ("leaky_bucket", "count: 3, period: 3s, max_delay: 2s"),
        ("concurrency", "count: 3"),
    ] {
        let mut simulation = simulation(&format!(
            "  p: {{ key: [client], algorithm: {algorithm}, quota: {{ {quota} }} }}\n"
        ));
        let admitted = (0..5)
            .filter(|_| simulation.step(T, "spend", 1)["allowed"] == true)
            .count();
        assert_eq!(admitted, 3, "{algorithm}");
        assert_eq!(simulation.ended(), Some(0));
    }
}
