//! SIGHUP and a watched file: a new configuration, or the old one with an explanation.

use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream};
use crate::waiting;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RELOADED: &str = "configuration reloaded";

fn limited(upstream: &Upstream, count: u32) -> String {
    format!(
        "{}{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: {count}, period: 1h }} }} }}\n",
        app(upstream.address)
    )
}

fn reloaded(gateway: &Gateway, times: usize) {
    waiting::until("it is reloaded", || gateway.lines_with(RELOADED) == times);
}

#[test]
fn a_quota_changes_at_sighup_and_what_was_used_stays_used() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&limited(&upstream, 3));
    let statuses =
        |times: usize| -> Vec<u16> { (0..times).map(|_| gateway.get("/").status).collect() };
    assert_eq!(statuses(4), [200, 200, 200, 429]);
    gateway.reload(&limited(&upstream, 5));
    reloaded(&gateway, 1);
    assert_eq!(statuses(3), [200, 200, 429]);
    gateway.reload(&limited(&upstream, 2));
    reloaded(&gateway, 2);
    let refused = gateway.get("/");
    assert_eq!(
        (refused.status, refused.number("x-ratelimit-limit")),
        (429, 2)
    );
}

#[test]
fn a_bad_file_leaves_everything_as_it_is_and_says_what_is_wrong() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&limited(&upstream, 100));
    gateway.reload("routes: [{ name: r, upstream: nowhere }]\npolices: {}\n");
    gateway
        .stderr
        .line_with("the configuration is refused and the old one stays");
    gateway
        .stderr
        .line_with("gateway.yaml:3:31: routes[0].upstream: there is no upstream");
    gateway.stderr.line_with("did you mean `policies`?");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.metric("tidegate_snapshot_refused_total "), 1.0);
    gateway.reload(&format!("{}policies: {{ p: {{ key: [ip], algorithm: fixed_window, quota: {{ count: 1, calendar: day, time_zone: Mars/Olympus }} }} }}\n", app(upstream.address) + EVERYTHING));
    gateway.stderr.line_with("Mars/Olympus");
    waiting::until("it is counted", || {
        gateway.metric("tidegate_snapshot_refused_total ") == 2.0
    });
    assert_eq!(gateway.get("/").status, 200);
    gateway.reload(&limited(&upstream, 1));
    reloaded(&gateway, 1);
    assert_eq!(gateway.get("/").status, 429);
}

#[test]
fn the_guard_against_guessing_follows_the_file() {
    let upstream = Upstream::echo();
    let guarded = |count| {
        format!(
            "{}routes: [{{ name: app, upstream: app, auth: required }}]\nauth: {{ failures: {{ count: {count}, period: 1h }} }}\n",
            app(upstream.address)
        )
    };
    let gateway = Gateway::start(&guarded(2));
    let guess = || gateway.get_with("/", &[("X-API-Key", "wrong")]).status;
    assert_eq!([guess(), guess(), guess()], [401, 401, 429]);
    gateway.reload(&guarded(50));
    reloaded(&gateway, 1);
    assert_eq!(guess(), 401);
}

#[test]
fn what_is_made_at_the_start_only_is_named() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&limited(&upstream, 9));
    gateway.reload(&format!(
        "{}server: {{ threads: 3 }}\nstore: {{ memory: {{ max_keys: 5 }} }}\n",
        limited(&upstream, 9)
    ));
    let line = gateway
        .stderr
        .line_with("taken over at the next start only");
    assert!(
        line.contains("server.threads, store") && !line.contains("listeners"),
        "{line}"
    );
}

#[test]
fn a_watched_file_is_taken_over_by_itself() {
    let upstream = Upstream::echo();
    let watched = |count| format!("server: {{ watch: true }}\n{}", limited(&upstream, count));
    let gateway = Gateway::start(&watched(1));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.get("/").status, 429);
    gateway.rewrite(&watched(1_000));
    reloaded(&gateway, 1);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_file_that_is_not_watched_waits_for_its_signal() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&limited(&upstream, 1));
    gateway.rewrite(&limited(&upstream, 1_000));
    waiting::pause(Duration::from_millis(900));
    assert_eq!(gateway.lines_with(RELOADED), 0);
}

#[test]
fn requests_under_way_end_with_the_configuration_they_began_with() {
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let slow = Upstream::scripted(move |exchange| {
        while !released.load(Ordering::SeqCst) {
            waiting::pause(Duration::from_millis(2));
        }
        exchange.answer("slow")?;
        Ok(Then::Keep)
    });
    let quick = Upstream::echo();
    let gateway = Gateway::start(&(app(slow.address) + EVERYTHING));
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| gateway.get("/"));
        waiting::until("it is under way", || slow.requests() == 1);
        gateway.reload(&(app(quick.address) + EVERYTHING));
        reloaded(&gateway, 1);
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(quick.requests(), 1);
        release.store(true, Ordering::SeqCst);
        assert_eq!(under_way.join().unwrap().text(), "slow");
    });
}

#[test]
fn reloading_under_load_fails_no_request() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&limited(&upstream, 1_000));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = gateway.connect();
                    let mut statuses = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        statuses.push(connection.request("GET", "/", &[], b"").status);
                    }
                    statuses
                })
            })
            .collect();
        for round in 1..=10 {
            gateway.reload(&limited(&upstream, 9_000 + round));
            reloaded(&gateway, round as usize);
        }
        done.store(true, Ordering::SeqCst);
        for client in clients {
            let statuses = client.join().unwrap();
            assert!(!statuses.is_empty());
            assert!(
                statuses.iter().all(|status| matches!(status, 200 | 429)),
                "{statuses:?}"
            );
        }
    });
}
