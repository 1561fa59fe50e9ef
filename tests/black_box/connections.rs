//! Connections on both sides: kept, shared, pipelined, and closed when they must be.

use crate::client::{NoAnswer, head};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Upstream, header_in};

fn before(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + EVERYTHING))
}

#[test]
fn one_connection_serves_many_requests_on_both_sides() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for turn in 0..20 {
        let response = connection.request("GET", &format!("/{turn}"), &[], b"");
        assert!(
            response.text().starts_with(&format!("GET /{turn} ")),
            "{response}"
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    let mut all = String::new();
    for turn in 0..5 {
        all += &head("POST", &format!("/{turn}"), &[], 4);
        all += "body";
    }
    connection.send(all);
    for turn in 0..5 {
        let response = connection.answer();
        assert!(
            response.text().starts_with(&format!("POST /{turn} ")),
            "{response}"
        );
    }
    assert_eq!(upstream.bodies(), vec![b"body"; 5]);
}

#[test]
fn a_connection_is_usable_after_a_refusal_of_a_request_with_a_body() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + EVERYTHING
            + "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h }, methods: [POST] } }"),
    );
    let mut connection = gateway.connect();
    let body = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(connection.request("POST", "/", &[], body).status, 200);
    for _ in 0..3 {
        let refusal = connection.request("POST", "/", &[], body);
        assert_eq!(refusal.status, 429);
        assert_ne!(
            refusal.header("Connection"),
            Some("close"),
            "a small body is read away"
        );
    }
    assert_eq!(connection.request("GET", "/after", &[], b"").status, 200);
    assert!(
        upstream
            .heads()
            .iter()
            .all(|seen| !seen.contains("/smuggled"))
    );
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn after_the_refusal_of_a_large_or_chunked_body_nothing_of_it_is_taken_for_a_request() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, match: { path: /app }, upstream: app }]\n"),
    );
    let smuggled = "GET /app HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let large = smuggled.repeat(10_000);
    let length = large.len().to_string();
    let chunk = format!("{:x}\r\n{smuggled}\r\n", smuggled.len());
    for (framing, body) in [
        (("Content-Length", length.as_str()), large.as_str()),
        (("Transfer-Encoding", "chunked"), &(chunk + "0\r\n\r\n")),
    ] {
        let mut connection = gateway.connect();
        connection.send(head("POST", "/none", &[framing], 0));
        connection.send(body);
        match connection.answer_to("POST") {
            Ok(response) => assert_eq!(response.status, 404),
            // the answer may be lost in the reset that follows unread bytes
            Err(NoAnswer::Closed) => (),
            Err(NoAnswer::Silence) => panic!("neither an answer nor a closed connection"),
        }
        assert!(
            connection.answer_to("GET").is_err(),
            "something of the body was a request"
        );
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn connection_close_is_honoured() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    let response = connection.request("GET", "/", &[("Connection", "close")], b"");
    assert_eq!(response.status, 200);
    assert_eq!(connection.rest().unwrap(), b"", "closed after the answer");
}

#[test]
fn upstream_connections_are_shared_by_clients_without_mixing_them() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                for turn in 0..25 {
                    let name = format!("{client}-{turn}");
                    let seen = gateway.get_with("/", &[("X-Name", &name)]).text();
                    assert_eq!(header_in(&seen, "x-name"), Some(name.as_str()));
                }
            });
        }
    });
    assert_eq!(upstream.requests(), 100);
    assert!(
        upstream.connections() < 50,
        "{} connections",
        upstream.connections()
    );
}
