//! The algorithms over time: waiting as long as told is enough, and not waiting is not.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream};
use crate::waiting::{self, pause, timed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn limited(upstream: &Upstream, policy: &str) -> Gateway {
    Gateway::start(&format!(
        "{}{EVERYTHING}policies: {{ p: {{ key: [ip], {policy} }} }}",
        app(upstream.address)
    ))
}

/// Exhausts the bucket, waits exactly as long as the refusal says, and passes; several times.
fn assert_honest(algorithm: &str) {
    let upstream = Upstream::echo();
    let gateway = limited(
        &upstream,
        &format!("algorithm: {algorithm}, quota: {{ count: 2, period: 300ms }}"),
    );
    let mut connection = gateway.connect();
    let mut refused = 0;
    for _ in 0..200 {
        let response = connection.request("GET", "/", &[], b"");
        if response.status == 200 {
            continue;
        }
        assert_eq!(response.status, 429);
        let wait = response.json()["retry_after_ms"].as_u64().unwrap();
        assert!((1..=600).contains(&wait), "{response}");
        pause(Duration::from_millis(wait));
        let next = connection.request("GET", "/", &[], b"");
        assert_eq!(
            next.status, 200,
            "after {wait} ms, as told, refused again: {next}"
        );
        refused += 1;
        if refused == 3 {
            return;
        }
    }
    panic!("{refused} refusals in 200 requests");
}

#[test]
fn a_token_bucket_admits_after_the_wait_it_told() {
    assert_honest("token_bucket");
}

#[test]
fn a_sliding_window_admits_after_the_wait_it_told() {
    assert_honest("sliding_window");
}

#[test]
fn a_sliding_window_counter_admits_after_the_wait_it_told() {
    assert_honest("sliding_window_counter");
}

#[test]
fn a_fixed_window_admits_after_the_wait_it_told() {
    assert_honest("fixed_window");
}

#[test]
fn before_the_wait_is_over_nothing_passes() {
    let upstream = Upstream::echo();
    let gateway = limited(
        &upstream,
        "algorithm: token_bucket, quota: { count: 1, period: 1h }",
    );
    let mut connection = gateway.connect();
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    let mut last = u64::MAX;
    for _ in 0..20 {
        let refusal = connection.request("GET", "/", &[], b"");
        let wait = refusal.json()["retry_after_ms"].as_u64().unwrap();
        assert!(wait <= last, "the wait grows from {last} to {wait}");
        last = wait;
    }
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_calendar_window_resets_at_the_next_midnight() {
    let upstream = Upstream::echo();
    let gateway = limited(
        &upstream,
        "algorithm: fixed_window, quota: { count: 1, calendar: day, time_zone: UTC }",
    );
    let response = gateway.get("/");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.number("X-RateLimit-Reset") % 86_400,
        0,
        "{response}"
    );
    assert_eq!(
        response.header("RateLimit-Policy"),
        Some("\"p\";q=1;w=86400")
    );
    assert_eq!(gateway.get("/").status, 429);
}

#[test]
fn a_leaky_bucket_delays_and_then_refuses() {
    let upstream = Upstream::echo();
    let gateway = limited(
        &upstream,
        "algorithm: leaky_bucket, quota: { count: 5, period: 1s, max_delay: 450ms }",
    );
    let mut connections: Vec<_> = (0..6).map(|_| gateway.connect()).collect();
    let (statuses, took) = timed(|| {
        for connection in &mut connections {
            connection.send(head("GET", "/", &[], 0));
        }
        let answers = connections
            .iter_mut()
            .map(|connection| connection.answer().status);
        answers.collect::<Vec<_>>()
    });
    let passed = statuses.iter().filter(|status| **status == 200).count();
    // one at once, two held for 200 and 400 ms; the rest would wait longer than max_delay
    assert!((3..=4).contains(&passed), "{statuses:?}");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)),
        "{statuses:?}"
    );
    assert!(
        took >= Duration::from_millis(390),
        "the last one was not held: {took:?}"
    );
    assert_eq!(upstream.requests(), passed);
}

#[test]
fn a_leaky_bucket_admits_after_the_wait_it_told() {
    let upstream = Upstream::echo();
    let gateway = limited(
        &upstream,
        "algorithm: leaky_bucket, quota: { count: 5, period: 1s, max_delay: 1ms }",
    );
    let mut connection = gateway.connect();
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    let refusal = connection.request("GET", "/", &[], b"");
    assert_eq!(refusal.status, 429);
    pause(Duration::from_millis(
        refusal.json()["retry_after_ms"].as_u64().unwrap(),
    ));
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
}

/// An upstream that holds requests to /slow until it is told to answer.
struct Slow {
    upstream: Upstream,
    release: Arc<AtomicBool>,
    inside: Arc<AtomicUsize>,
}

impl Slow {
    fn new() -> Self {
        let release = Arc::new(AtomicBool::new(false));
        let inside = Arc::new(AtomicUsize::new(0));
        let (released, entered) = (release.clone(), inside.clone());
        let upstream = Upstream::scripted(move |exchange| {
            if exchange.head.starts_with("GET /slow") {
                entered.fetch_add(1, Ordering::SeqCst);
                while !released.load(Ordering::SeqCst) {
                    pause(Duration::from_millis(2));
                }
            }
            exchange.answer("done")
        });
        Slow {
            upstream,
            release,
            inside,
        }
    }

    fn wait_for(&self, requests: usize) {
        waiting::until("the upstream holds the requests", || {
            self.inside.load(Ordering::SeqCst) == requests
        });
    }
}

#[test]
fn concurrency_counts_requests_until_they_are_answered() {
    let slow = Slow::new();
    let gateway = limited(
        &slow.upstream,
        "algorithm: concurrency, quota: { count: 2 }",
    );
    let mut held = [gateway.connect(), gateway.connect()];
    for connection in &mut held {
        connection.send(head("GET", "/slow", &[], 0));
    }
    slow.wait_for(2);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 429);
    assert!(refusal.json()["retry_after_ms"].is_null(), "{refusal}");
    assert_eq!(refusal.header("Retry-After"), Some("1"));
    assert_eq!(refusal.header("X-RateLimit-Strategy"), Some("concurrency"));
    assert_eq!(refusal.number("X-RateLimit-Limit"), 2);
    assert_eq!(refusal.number("X-RateLimit-Remaining"), 0);
    slow.release.store(true, Ordering::SeqCst);
    for connection in &mut held {
        assert_eq!(connection.answer().text(), "done");
    }
    waiting::until("a place is free again", || gateway.get("/").status == 200);
}

#[test]
fn concurrency_is_released_when_the_client_leaves_midway() {
    let slow = Slow::new();
    let gateway = limited(
        &slow.upstream,
        "algorithm: concurrency, quota: { count: 1 }",
    );
    let mut leaves = gateway.connect();
    leaves.send(head("GET", "/slow", &[], 0));
    slow.wait_for(1);
    assert_eq!(gateway.get("/").status, 429);
    drop(leaves);
    waiting::until("the place is free again", || gateway.get("/").status == 200);
    slow.release.store(true, Ordering::SeqCst);
}

#[test]
fn concurrency_is_released_when_the_upstream_breaks_off() {
    let upstream = Upstream::scripted(|exchange| {
        if exchange.head.starts_with("GET /break") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
            return Ok(Then::Close);
        }
        exchange.answer("done")
    });
    let gateway = limited(&upstream, "algorithm: concurrency, quota: { count: 1 }");
    let mut connection = gateway.connect();
    connection.send(head("GET", "/break", &[], 0));
    assert!(connection.answer_to("GET").is_err());
    waiting::until("the place is free again", || gateway.get("/").status == 200);
}

#[test]
fn concurrency_never_refuses_one_request_after_another_on_one_connection() {
    let upstream = Upstream::echo();
    let gateway = limited(&upstream, "algorithm: concurrency, quota: { count: 1 }");
    let mut connection = gateway.connect();
    for turn in 0..50 {
        assert_eq!(
            connection.request("GET", "/", &[], b"").status,
            200,
            "request {turn}"
        );
    }
}

#[test]
fn an_upgraded_connection_counts_as_in_flight_until_it_closes() {
    let upstream = Upstream::scripted(|exchange| {
        if exchange.header("upgrade").is_none() {
            return exchange.answer("done");
        }
        // how an upstream that is quicker fares is tested in `interim`
        pause(Duration::from_millis(30));
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        std::io::copy(&mut exchange.stream.try_clone()?, &mut std::io::sink())?;
        Ok(Then::Close)
    });
    let gateway = limited(&upstream, "algorithm: concurrency, quota: { count: 1 }");
    let mut upgraded = gateway.connect();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(upgraded.request("GET", "/", &upgrade, b"").status, 101);
    assert_eq!(gateway.get("/").status, 429);
    drop(upgraded);
    waiting::until("the place is free again", || gateway.get("/").status == 200);
}
