//! What passes through unchanged: methods, targets, headers, statuses.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream, header_in, headers_in};

fn before(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + EVERYTHING))
}

/// An upstream that answers every request with these bytes.
fn saying(answer: &'static str) -> Upstream {
    Upstream::scripted(move |exchange| {
        exchange.body()?;
        exchange.write(answer)?;
        Ok(Then::Keep)
    })
}

#[test]
fn every_method_arrives_with_its_body() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    for method in [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "PROPFIND",
    ] {
        let body = format!("body of {method}");
        let response = gateway
            .connect()
            .request(method, "/thing", &[], body.as_bytes());
        assert_eq!(response.status, 200, "{method}: {response}");
        assert!(
            response
                .text()
                .starts_with(&format!("{method} /thing HTTP/1.1\r\n")),
            "{response}"
        );
        assert_eq!(
            upstream.bodies().last().unwrap(),
            body.as_bytes(),
            "{method}"
        );
    }
}

#[test]
fn methods_without_a_body_arrive_without_one() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    for method in ["GET", "DELETE", "OPTIONS", "HEAD"] {
        assert_eq!(gateway.send(method, "/", &[]).status, 200, "{method}");
        let seen = upstream.heads().pop().unwrap();
        assert!(seen.starts_with(&format!("{method} / ")), "{seen}");
        assert_eq!(header_in(&seen, "transfer-encoding"), None, "{seen}");
        assert!(
            matches!(header_in(&seen, "content-length"), None | Some("0")),
            "{seen}"
        );
    }
}

#[test]
fn the_query_arrives_byte_for_byte() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    for query in [
        "a=b%2f..&c",
        "",
        "a=1&a=2&&=",
        "q=%zz%",
        "path=/../x//y\\z",
        "j={a:[1,2]}",
        "u=a+b%20c%41",
        "x=?y?&",
    ] {
        let target = format!("/search?{query}");
        let response = gateway.get(&target);
        assert_eq!(response.status, 200, "{query}: {response}");
        assert!(
            response
                .text()
                .starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{response}"
        );
    }
}

#[test]
fn headers_of_requests_arrive_unchanged() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let headers = [
        ("Accept", "text/html, application/json;q=0.9"),
        ("Cookie", "a=b; c=\"d e\""),
        ("X-Twice", "one"),
        ("X-Twice", "two"),
        ("X-Empty", ""),
        ("Accept-Encoding", "br, gzip;q=0.1"),
        ("If-None-Match", "W/\"x\""),
        ("Range", "bytes=0-10"),
        ("User-Agent", "Test/1.0 (odd; agent)"),
    ];
    let seen = gateway.get_with("/", &headers).text();
    for (name, value) in headers.iter().filter(|(name, _)| *name != "X-Twice") {
        assert_eq!(header_in(&seen, name), Some(*value), "{name}");
    }
    assert_eq!(headers_in(&seen, "x-twice"), ["one", "two"]);
}

#[test]
fn hop_by_hop_headers_end_here() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let headers = [
        ("Connection", "keep-alive, X-Hop"),
        ("Keep-Alive", "timeout=5"),
        ("X-Hop", "for the gateway only"),
        ("X-End", "to end"),
        ("Proxy-Connection", "keep-alive"),
    ];
    let seen = gateway.get_with("/", &headers).text();
    assert_eq!(header_in(&seen, "x-end"), Some("to end"));
    for name in ["keep-alive", "x-hop", "proxy-connection"] {
        assert_eq!(header_in(&seen, name), None, "{name}: {seen}");
    }
}

#[test]
fn statuses_and_headers_of_responses_pass() {
    let upstream = Upstream::scripted(|exchange| {
        let status = exchange
            .head
            .split(['/', ' '])
            .nth(2)
            .unwrap_or("200")
            .to_owned();
        exchange.write(format!(
            "HTTP/1.1 {status} Odd\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: theirs\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\nok"
        ))?;
        Ok(Then::Keep)
    });
    let gateway = before(&upstream);
    for status in [
        200, 201, 206, 301, 302, 400, 404, 418, 429, 500, 502, 503, 599,
    ] {
        let response = gateway.get(&format!("/{status}"));
        assert_eq!(response.status, status);
        assert_eq!(response.text(), "ok");
        assert_eq!(response.header("Server"), Some("theirs"));
        assert_eq!(response.header("ETag"), Some("\"x\""));
        let cookies: Vec<_> = response
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }
}

#[test]
fn head_gets_the_headers_and_no_body() {
    let upstream = saying("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request("HEAD", "/", &[], b"");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Content-Length"), Some("12345"));
        assert_eq!(response.body, b"");
    }
}

#[test]
fn a_204_has_no_body_and_leaves_the_connection_usable() {
    let upstream = saying("HTTP/1.1 204 No Content\r\nX-From: upstream\r\n\r\n");
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request("DELETE", "/", &[], b"");
        assert_eq!(response.status, 204);
        assert_eq!(response.header("X-From"), Some("upstream"));
        assert_eq!(response.header("Transfer-Encoding"), None);
    }
}

#[test]
fn a_304_has_no_body_and_leaves_the_connection_usable() {
    let upstream = saying("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n");
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request("GET", "/", &[("If-None-Match", "\"x\"")], b"");
        assert_eq!(response.status, 304);
        assert_eq!(response.header("ETag"), Some("\"x\""));
    }
}

#[test]
fn an_answer_that_ends_with_the_connection_passes_whole() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")?;
        Ok(Then::Close)
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request("GET", "/", &[], b"");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "until the end")
        );
        if response.header("Connection") == Some("close") {
            connection = gateway.connect();
        }
    }
}

#[test]
fn a_target_in_absolute_form_is_routed_by_its_authority_and_arrives_in_origin_form() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, match: { hosts: [api.example] }, upstream: app }]\n"),
    );
    let response = gateway.get_with("http://api.example/a?b=c", &[("Host", "api.example")]);
    assert_eq!(response.status, 200, "{response}");
    let seen = response.text();
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header_in(&seen, "host"), Some("api.example"));
    let refused = gateway.get_with("http://other.example/a", &[("Host", "other.example")]);
    assert_eq!(refused.status, 404, "{refused}");
}

#[test]
fn an_authority_and_a_host_that_disagree_are_no_way_around_routing() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, match: { hosts: [api.example] }, upstream: app }]\n"),
    );
    for (target, host) in [
        ("http://api.example/", "other"),
        ("http://other/", "api.example"),
    ] {
        let response = gateway.get_with(target, &[("Host", host)]);
        if response.status == 200 {
            let seen = response.text();
            assert_eq!(
                header_in(&seen, "host"),
                Some("api.example"),
                "{target} {host}: {seen}"
            );
        } else {
            assert!(matches!(response.status, 400 | 404), "{response}");
        }
    }
}

#[test]
fn an_absolute_target_without_a_host_never_reaches_an_upstream_without_one() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send("GET http://api.example/a HTTP/1.1\r\n\r\n");
    let response = connection.answer();
    if response.status != 400 {
        let seen = response.text();
        assert_eq!(header_in(&seen, "host"), Some("api.example"), "{seen}");
    }
}

#[test]
fn a_fragment_is_no_part_of_the_target() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let response = gateway.get("/a?b#/../c");
    assert!(matches!(response.status, 200 | 400), "{response}");
    if response.status == 200 {
        assert!(
            response.text().starts_with("GET /a?b HTTP/1.1\r\n"),
            "{response}"
        );
    }
}

#[test]
fn options_for_the_whole_server_passes() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let response = gateway.send("OPTIONS", "*", &[]);
    assert!(matches!(response.status, 200 | 404), "{response}");
    if response.status == 200 {
        assert!(response.text().starts_with("OPTIONS * "), "{response}");
    }
}

#[test]
fn a_missing_host_or_more_than_one_is_400() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    ] {
        let mut connection = gateway.connect();
        connection.send(request);
        assert_eq!(connection.answer().status, 400, "{request:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_host_that_can_be_none_is_400() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    for host in [
        "a b", "a/b", "a,b", "a?b", "a#b", "a@b", "[::1", "a:b:c", "a:000080", ".a", "a..",
    ] {
        // RFC 9112, 3.2: a server MUST respond with 400 to an invalid field value
        let response = gateway.get_with("/", &[("Host", host)]);
        assert_eq!(response.status, 400, "{host}: {response}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let upstream =
        saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = connection.answer();
    assert_eq!(response.header("Transfer-Encoding"), None);
    assert_eq!(response.text(), "body");
}

#[test]
fn http_1_0_needs_no_host() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send("GET /old HTTP/1.0\r\n\r\n");
    let response = connection.answer();
    assert_eq!(response.status, 200);
    assert!(
        response.text().starts_with("GET /old HTTP/1."),
        "{response}"
    );
}

#[test]
fn headers_that_are_too_large_or_too_many_are_431() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let large = "x".repeat(200 * 1024);
    let response = gateway.get_with("/", &[("X-Large", large.as_str())]);
    assert_eq!(response.status, 431, "{response}");
    assert_eq!(
        response.header("Content-Type"),
        Some("application/problem+json")
    );
    let names: Vec<String> = (0..200).map(|number| format!("X-Many-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(gateway.get_with("/", &many).status, 431);
    let fits = "x".repeat(16 * 1024);
    assert_eq!(
        gateway.get_with("/", &[("X-Fits", fits.as_str())]).status,
        200
    );
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn our_own_answers_to_head_have_no_body() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, match: { path: /app }, upstream: app }]\n"),
    );
    let mut connection = gateway.connect();
    for (target, status) in [("/nowhere", 404), ("/health", 200), ("/app", 200)] {
        connection.send(head("HEAD", target, &[], 0));
        assert_eq!(
            connection.answer_to("HEAD").unwrap().status,
            status,
            "{target}"
        );
    }
}
