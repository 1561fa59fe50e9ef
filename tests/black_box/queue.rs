//! Bounded concurrency towards an upstream, and the bounded queue before it.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway};
use crate::upstream::Upstream;
use crate::waiting::{self, pause, timed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// An upstream that holds each request until it is released.
struct Held {
    upstream: Upstream,
    release: Arc<AtomicBool>,
}

impl Held {
    fn new() -> Self {
        let release = Arc::new(AtomicBool::new(false));
        let released = release.clone();
        let upstream = Upstream::scripted(move |exchange| {
            while !released.load(Ordering::SeqCst) {
                pause(Duration::from_millis(2));
            }
            exchange.answer("done")
        });
        Held { upstream, release }
    }

    fn release(&self) {
        self.release.store(true, Ordering::SeqCst);
    }

    fn wait_for(&self, requests: usize) {
        waiting::until("the upstream has the requests", || {
            self.upstream.requests() == requests
        });
    }
}

fn bounded(upstream: &Upstream, bound: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\" }}], {bound} }} }}\n{EVERYTHING}",
        upstream.address
    ))
}

#[test]
fn without_a_queue_what_is_too_much_is_503_at_once() {
    let held = Held::new();
    let gateway = bounded(&held.upstream, "max_concurrent: 1");
    let mut first = gateway.connect();
    first.send(head("GET", "/", &[], 0));
    held.wait_for(1);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 503);
    assert!(refusal.number("Retry-After") >= 1);
    assert_eq!(
        refusal.header("Content-Type"),
        Some("application/problem+json")
    );
    assert_eq!(refusal.json()["title"], "Service Unavailable");
    held.release();
    assert_eq!(first.answer().text(), "done");
    waiting::until("the place is free", || gateway.get("/").status == 200);
}

#[test]
fn a_full_queue_is_503_and_who_waits_is_served() {
    let held = Held::new();
    let gateway = bounded(
        &held.upstream,
        "max_concurrent: 1, queue: { size: 1, timeout: 1m }",
    );
    let mut first = gateway.connect();
    first.send(head("GET", "/", &[], 0));
    held.wait_for(1);
    let (sender, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (sender, gateway) = (sender.clone(), &gateway);
            scope.spawn(move || sender.send(gateway.get("/")));
        }
        let refused = answers.recv_timeout(waiting::DEADLINE).unwrap();
        assert_eq!(refused.status, 503);
        assert!(refused.number("Retry-After") >= 1);
        assert_eq!(held.upstream.requests(), 1);
        held.release();
        assert_eq!(answers.recv_timeout(waiting::DEADLINE).unwrap().status, 200);
    });
    assert_eq!(first.answer().status, 200);
    assert_eq!(gateway.metric("tidegate_upstream_queue_refused_total"), 1.0);
}

#[test]
fn the_wait_in_the_queue_ends_with_its_timeout() {
    let held = Held::new();
    let gateway = bounded(
        &held.upstream,
        "max_concurrent: 1, queue: { size: 5, timeout: 200ms }",
    );
    let mut first = gateway.connect();
    first.send(head("GET", "/", &[], 0));
    held.wait_for(1);
    let (refusal, took) = timed(|| gateway.get("/"));
    assert_eq!(refusal.status, 503);
    assert!(refusal.number("Retry-After") >= 1);
    assert!(took >= Duration::from_millis(190), "{took:?}");
    held.release();
    assert_eq!(first.answer().status, 200);
}

#[test]
fn a_503_from_the_queue_does_not_refund() {
    let held = Held::new();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\" }}], max_concurrent: 1 }} }}
{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 2, period: 1h }} }} }}",
        held.upstream.address
    ));
    let mut first = gateway.connect();
    first.send(head("GET", "/", &[], 0));
    held.wait_for(1);
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(gateway.get("/").status, 429);
    held.release();
    assert_eq!(first.answer().status, 200);
}

#[test]
fn a_client_that_leaves_the_queue_makes_room_in_it() {
    let held = Held::new();
    let gateway = bounded(
        &held.upstream,
        "max_concurrent: 1, queue: { size: 1, timeout: 1m }",
    );
    let mut first = gateway.connect();
    first.send(head("GET", "/", &[], 0));
    held.wait_for(1);
    let mut waits = gateway.connect();
    waits.send(head("GET", "/", &[], 0));
    let in_flight = || gateway.metric("tidegate_requests_in_flight");
    waiting::until("two requests are here", || in_flight() == 2.0);
    waits.finish_sending();
    drop(waits);
    waiting::until("the one that left is gone", || in_flight() == 1.0);
    let last = std::thread::scope(|scope| {
        let last = scope.spawn(|| gateway.get("/"));
        waiting::until("another waits", || in_flight() == 2.0 || last.is_finished());
        held.release();
        last.join().unwrap()
    });
    assert_eq!(last.status, 200, "{last}");
}

#[test]
fn the_upstream_never_sees_more_than_its_bound() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (entered, peak) = (inside.clone(), most.clone());
    let upstream = Upstream::scripted(move |exchange| {
        peak.fetch_max(entered.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        pause(Duration::from_millis(10));
        entered.fetch_sub(1, Ordering::SeqCst);
        exchange.answer("done")
    });
    let gateway = bounded(
        &upstream,
        "max_concurrent: 3, queue: { size: 100, timeout: 1m }",
    );
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(gateway.get("/").status, 200);
                }
            });
        }
    });
    assert_eq!(upstream.requests(), 60);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
}
