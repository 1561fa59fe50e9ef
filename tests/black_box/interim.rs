//! Interim answers and upgrades: 100 Continue, 103 Early Hints, WebSocket.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream, header_in};
use crate::waiting::pause;
use std::time::Duration;

fn before(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + EVERYTHING))
}

#[test]
fn a_client_that_expects_100_gets_it_before_it_sends_its_body() {
    let upstream = Upstream::scripted(|exchange| {
        if exchange.header("expect").is_some() {
            exchange.write("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        exchange.echo()
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    let expects = [("Expect", "100-continue"), ("Content-Length", "4")];
    connection.send(head("POST", "/", &expects, 0));
    assert_eq!(connection.head().unwrap().0, 100);
    connection.send("body");
    let response = connection.answer();
    assert_eq!(response.status, 200);
    assert!(response.interim.is_empty(), "100 twice");
    assert_eq!(upstream.bodies(), [b"body"]);
}

#[test]
fn a_client_that_does_not_wait_for_100_is_served_too() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Expect", "100-continue")], 4));
    connection.send("body");
    assert_eq!(connection.answer().status, 200);
    assert_eq!(upstream.bodies(), [b"body"]);
}

#[test]
fn an_upstream_may_answer_instead_of_100() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write(
            "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        Ok(Then::Close)
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head(
        "POST",
        "/",
        &[("Expect", "100-continue"), ("Content-Length", "4")],
        0,
    ));
    let response = connection.answer();
    assert_eq!(
        (response.status, response.interim.as_slice()),
        (417, [].as_slice())
    );
}

#[test]
fn a_refusal_comes_instead_of_100() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes:
  - { name: open, match: { path: /open }, upstream: app }
  - { name: closed, match: { path: /closed }, upstream: app, auth: required }
  - { name: small, match: { path: /small }, upstream: app, max_body: 10B }
policies: { p: { routes: [open], key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } } }
"),
    );
    assert_eq!(gateway.get("/open").status, 200);
    for (target, status) in [
        ("/open", 429),
        ("/closed", 401),
        ("/small", 413),
        ("/none", 404),
    ] {
        let mut connection = gateway.connect();
        let expects = [("Expect", "100-continue"), ("Content-Length", "400")];
        connection.send(head("POST", target, &expects, 0));
        let response = connection.answer();
        assert_eq!(response.status, status, "{target}");
        assert!(response.interim.is_empty(), "{target}: 100 before {status}");
    }
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn early_hints_are_passed_on() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
        exchange.answer("page")
    });
    let gateway = Gateway::start(
        &(app(upstream.address)
            + EVERYTHING
            + "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 10, period: 1h } } }"),
    );
    let mut connection = gateway.connect();
    connection.send(head("GET", "/", &[], 0));
    let (status, headers) = connection.head().unwrap();
    assert_eq!(status, 103);
    assert!(
        headers.contains(&("link".into(), "</style.css>; rel=preload".into())),
        "{headers:?}"
    );
    let response = connection.answer();
    assert_eq!((response.status, response.text().as_str()), (200, "page"));
    assert_eq!(response.number("X-RateLimit-Remaining"), 9);
}

#[test]
fn a_websocket_is_opened_and_carries_bytes_both_ways() {
    let upstream = Upstream::scripted(|exchange| {
        // how an upstream that is quicker fares is the next test's subject
        pause(Duration::from_millis(30));
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        )?;
        let mut bytes = std::mem::take(&mut exchange.buffer);
        loop {
            exchange.write(bytes.to_ascii_uppercase())?;
            bytes.resize(1024, 0);
            let read = std::io::Read::read(&mut exchange.stream, &mut bytes)?;
            if read == 0 {
                return Ok(Then::Close);
            }
            bytes.truncate(read);
        }
    });
    let gateway = Gateway::start(
        &(app(upstream.address)
            + EVERYTHING
            + "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } } }"),
    );
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut connection = gateway.connect();
    let response = connection.request("GET", "/chat", &upgrade, b"");
    assert_eq!(response.status, 101);
    assert_eq!(
        response.header("Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert!(
        response
            .header("Upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    );
    assert_eq!(connection.exactly(5).unwrap(), b"hello");
    for text in ["ping", "\u{1}\u{2} and more"] {
        connection.send(text);
        assert_eq!(
            connection.exactly(text.len()).unwrap(),
            text.to_ascii_uppercase().as_bytes()
        );
    }
    let seen = upstream.only_head();
    assert_eq!(
        header_in(&seen, "sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert!(header_in(&seen, "upgrade").is_some(), "{seen}");
    assert_eq!(gateway.send("GET", "/chat", &upgrade).status, 429);
}
