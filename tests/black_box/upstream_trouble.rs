//! Upstreams that are away, slow, or break off: an honest answer in time, and recovery.

use crate::client::{Response, head};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream, nobody};
use crate::waiting::{self, pause, timed};
use std::time::Duration;

fn assert_problem(response: &Response, status: u16, title: &str) {
    assert_eq!(response.status, status, "{response}");
    assert_eq!(
        response.header("Content-Type"),
        Some("application/problem+json")
    );
    let body = response.json();
    assert_eq!(body["status"], status);
    assert_eq!(body["title"], title);
    assert!(
        body["detail"].is_string() && body["request_id"].is_string(),
        "{body}"
    );
}

#[test]
fn where_nobody_listens_the_answer_is_502() {
    let gateway = Gateway::start(&(app(nobody()) + EVERYTHING));
    assert_problem(&gateway.get("/"), 502, "Bad Gateway");
    assert_problem(
        &gateway.connect().request("POST", "/", &[], b"body"),
        502,
        "Bad Gateway",
    );
}

#[test]
fn a_502_does_not_tell_the_upstreams_address() {
    let address = nobody();
    let gateway = Gateway::start(&(app(address) + EVERYTHING));
    let response = gateway.get("/").to_string();
    assert!(
        !response.contains(&address.port().to_string()),
        "{response}"
    );
}

#[test]
fn a_silent_upstream_is_504_after_the_read_timeout() {
    let upstream = Upstream::scripted(|_| {
        pause(Duration::from_secs(3));
        Ok(Then::Close)
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\" }}], read_timeout: 200ms }} }}\n{EVERYTHING}",
        upstream.address
    ));
    let (response, took) = timed(|| gateway.get("/"));
    assert_problem(&response, 504, "Gateway Timeout");
    assert!(took >= Duration::from_millis(190), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(
        upstream.requests(),
        1,
        "a request that was sent is not sent again"
    );
}

#[test]
fn an_upstream_that_dies_in_the_middle_closes_the_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ] {
        let upstream = Upstream::scripted(move |exchange| {
            exchange.write(answer)?;
            Ok(Then::Close)
        });
        let gateway = Gateway::start(&(app(upstream.address) + EVERYTHING));
        let mut connection = gateway.connect();
        connection.send(head("GET", "/", &[], 0));
        let (rest, took) = timed(|| connection.rest());
        let rest = String::from_utf8(rest.unwrap_or_else(|none| panic!("{none:?}"))).unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 "), "{rest}");
        assert!(
            !rest.contains("\r\n0\r\n"),
            "a broken answer ends like a whole one: {rest}"
        );
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn an_upstream_that_stalls_in_the_middle_closes_the_connection_after_the_read_timeout() {
    let upstream = Upstream::scripted(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")?;
        pause(Duration::from_secs(3));
        Ok(Then::Close)
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\" }}], read_timeout: 200ms }} }}\n{EVERYTHING}",
        upstream.address
    ));
    let mut connection = gateway.connect();
    connection.send(head("GET", "/", &[], 0));
    let (rest, took) = timed(|| connection.rest());
    assert!(rest.is_ok(), "it stays open");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_upstream_that_answers_nonsense_is_502() {
    for answer in [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let upstream = Upstream::scripted(move |exchange| {
            exchange.write(answer)?;
            Ok(Then::Close)
        });
        let gateway = Gateway::start(&(app(upstream.address) + EVERYTHING));
        assert_problem(&gateway.get("/"), 502, "Bad Gateway");
    }
}

#[test]
fn a_second_peer_takes_over_where_the_first_refuses_connections() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}], retries: 1 }} }}
{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 20, period: 1h }} }} }}",
        nobody(),
        upstream.address
    ));
    for turn in 0..10 {
        let body = format!("body {turn}");
        let response = gateway.connect().request("POST", "/", &[], body.as_bytes());
        assert_eq!(response.status, 200, "{response}");
        assert_eq!(
            response.number("X-RateLimit-Remaining"),
            19 - turn,
            "charged once"
        );
        assert_eq!(upstream.bodies().pop().unwrap(), body.as_bytes());
    }
    let health = gateway.ask_admin("/health", &[]).json();
    assert_eq!(health["upstreams"]["app"]["total"], 2);
    assert_eq!(health["upstreams"]["app"]["healthy"], 1, "{health}");
}

#[test]
fn requests_succeed_once_an_upstream_has_come_back() {
    let address = nobody();
    let gateway = Gateway::start(&(app(address) + EVERYTHING));
    assert_eq!(gateway.get("/").status, 502);
    let _upstream = Upstream::scripted_at(address, |exchange| exchange.answer("back"));
    waiting::until("the upstream is found again", || {
        gateway.get("/").text() == "back"
    });
    let health = gateway.ask_admin("/health", &[]).json();
    assert_eq!(health["upstreams"]["app"]["healthy"], 1, "{health}");
}

#[test]
fn an_upstream_that_closes_each_connection_without_a_word_costs_no_request() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.echo()?;
        Ok(Then::Close)
    });
    let gateway = Gateway::start(&(app(upstream.address) + EVERYTHING));
    let mut connection = gateway.connect();
    for turn in 0..30 {
        let response = connection.request("GET", "/", &[], b"");
        assert_eq!(response.status, 200, "request {turn}: {response}");
    }
}

#[test]
fn a_body_above_the_routes_limit_is_413_declared_or_not() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address) + "routes: [{ name: app, upstream: app, max_body: 1KiB }]\n"),
    );
    let fits = vec![b'x'; 1024];
    assert_eq!(
        gateway.connect().request("POST", "/", &[], &fits).status,
        200
    );
    let large = vec![b'x'; 1025];
    let refusal = gateway.connect().request("POST", "/", &[], &large);
    // RFC 9110 has renamed it
    let title = if refusal.text().contains("Payload") {
        "Payload"
    } else {
        "Content"
    };
    assert_problem(&refusal, 413, &format!("{title} Too Large"));
    assert_eq!(
        upstream.requests(),
        1,
        "a declared length is refused before anything is sent"
    );

    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], 0));
    connection.send(format!("400\r\n{}\r\n", "x".repeat(1024)));
    connection.send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024)));
    assert_eq!(connection.answer().status, 413);
    assert_eq!(
        upstream.bodies().len(),
        1,
        "the upstream took a body that is too large for whole"
    );

    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], 0));
    connection.send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024)));
    assert_eq!(connection.answer().status, 200);
}
