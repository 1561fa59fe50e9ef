//! Signals: idle gateways stop at once, busy ones finish what is in flight.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream};
use crate::waiting::{self, pause, timed};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn before(upstream: &Upstream, rest: &str) -> Gateway {
    let gateway = Gateway::start(&format!("{}{EVERYTHING}{rest}", app(upstream.address)));
    assert_eq!(gateway.get("/health").status, 200);
    gateway
}

/// Answers in two halves, the second when released.
fn halting(release: &Arc<AtomicBool>) -> Upstream {
    let released = release.clone();
    Upstream::scripted(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        while !released.load(Ordering::SeqCst) {
            pause(Duration::from_millis(2));
        }
        exchange.write("5\r\n-last\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

#[test]
fn an_idle_gateway_stops_at_once_on_sigterm() {
    let upstream = Upstream::echo();
    let mut gateway = before(&upstream, "server: { grace_period: 30s }\n");
    let mut idle = gateway.connect();
    assert_eq!(idle.request("GET", "/", &[], b"").status, 200);
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.ended()
    });
    assert_eq!(
        status.code(),
        Some(0),
        "{status}: {}",
        gateway.stderr.text()
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn an_idle_gateway_stops_at_once_on_sigint() {
    let upstream = Upstream::echo();
    let mut gateway = before(&upstream, "server: { grace_period: 30s }\n");
    let (status, took) = timed(|| {
        gateway.signal("INT");
        gateway.ended()
    });
    assert_eq!(
        status.code(),
        Some(0),
        "{status}: {}",
        gateway.stderr.text()
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_signal_right_after_the_start_stops_it_in_order() {
    let upstream = Upstream::echo();
    for _ in 0..20 {
        let mut gateway = Gateway::start(&(app(upstream.address) + EVERYTHING));
        gateway.signal("TERM");
        let status = gateway.ended();
        assert_eq!(
            status.code(),
            Some(0),
            "it says `serving` and then dies of a signal: {status}"
        );
    }
}

#[test]
fn a_request_in_flight_is_finished_while_new_connections_are_refused() {
    let release = Arc::new(AtomicBool::new(false));
    let upstream = halting(&release);
    let mut gateway = before(&upstream, "server: { grace_period: 30s }\n");
    let mut connection = gateway.connect();
    connection.send(head("GET", "/", &[], 0));
    connection.until(b"first").unwrap();
    gateway.signal("TERM");
    waiting::until("health says it is draining", || {
        let health = gateway.ask_admin("/health", &[]);
        health.status == 503 && health.json()["status"] == "draining"
    });
    waiting::until("new connections are refused", || {
        TcpStream::connect(gateway.address).is_err()
    });
    assert!(gateway.still_runs());
    release.store(true, Ordering::SeqCst);
    assert_eq!(
        connection.until(b"0\r\n\r\n").unwrap(),
        b"\r\n5\r\n-last\r\n0\r\n\r\n"
    );
    let (status, took) = timed(|| gateway.ended());
    assert_eq!(status.code(), Some(0), "{}", gateway.stderr.text());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_kept_connection_gets_503_while_draining() {
    let release = Arc::new(AtomicBool::new(false));
    let upstream = halting(&release);
    let mut gateway = before(&upstream, "");
    let mut busy = gateway.connect();
    let mut kept = gateway.connect();
    assert_eq!(kept.request("GET", "/health", &[], b"").status, 200);
    busy.send(head("GET", "/", &[], 0));
    busy.until(b"first").unwrap();
    gateway.signal("TERM");
    waiting::until("it is draining", || {
        gateway.ask_admin("/health", &[]).status == 503
    });
    kept.send(head("GET", "/", &[], 0));
    if let Ok(response) = kept.answer_to("GET") {
        assert_eq!(response.status, 503, "{response}");
        assert!(response.number("Retry-After") >= 1);
        assert_eq!(response.json()["status"], 503);
    }
    release.store(true, Ordering::SeqCst);
    assert_eq!(
        busy.until(b"0\r\n\r\n").unwrap(),
        b"\r\n5\r\n-last\r\n0\r\n\r\n"
    );
    assert_eq!(gateway.ended().code(), Some(0));
}

#[test]
fn the_grace_period_ends_what_does_not_end() {
    let release = Arc::new(AtomicBool::new(false));
    let upstream = halting(&release);
    let mut gateway = before(&upstream, "server: { grace_period: 300ms }\n");
    let mut connection = gateway.connect();
    connection.send(head("GET", "/", &[], 0));
    connection.until(b"first").unwrap();
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.ended()
    });
    assert_eq!(status.code(), Some(0), "{}", gateway.stderr.text());
    assert!(took >= Duration::from_millis(290), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    release.store(true, Ordering::SeqCst);
}

#[test]
fn sighup_does_not_kill_it() {
    let upstream = Upstream::echo();
    let mut gateway = before(&upstream, "");
    let mut connection = gateway.connect();
    for _ in 0..3 {
        gateway.signal("HUP");
        for _ in 0..20 {
            assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
            assert_eq!(gateway.get("/").status, 200);
        }
    }
    assert!(gateway.still_runs());
    gateway.signal("TERM");
    assert_eq!(gateway.ended().code(), Some(0));
}
