//! Whose address counts: X-Forwarded-For is believed through trusted proxies only.

use crate::client::{Response, head};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Upstream, header_in};

const ONE_PER_ADDRESS: &str =
    "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } } }\n";

fn with(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&format!("{}{EVERYTHING}{rest}", app(upstream.address)))
}

fn trusting(upstream: &Upstream) -> Gateway {
    let trusted = format!("trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\n{ONE_PER_ADDRESS}");
    with(upstream, &trusted)
}

fn from(gateway: &Gateway, lines: &[&str]) -> u16 {
    let headers: Vec<_> = lines
        .iter()
        .map(|line| ("X-Forwarded-For", *line))
        .collect();
    gateway.get_with("/", &headers).status
}

#[test]
fn what_strangers_say_about_their_address_is_ignored_and_overwritten() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, ONE_PER_ADDRESS);
    let headers = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "for=192.0.2.1"),
        ("X_Forwarded_For", "192.0.2.1"),
    ];
    let seen = gateway.get_with("/", &headers).text();
    assert_eq!(header_in(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header_in(&seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(header_in(&seen, "x-forwarded-host"), Some("localhost"));
    assert_eq!(header_in(&seen, "forwarded"), None);
    assert!(!seen.contains("192.0.2.1"), "{seen}");
    assert_eq!(from(&gateway, &["192.0.2.2"]), 429);
}

#[test]
fn through_a_trusted_proxy_the_first_stranger_from_the_right_counts() {
    let upstream = Upstream::echo();
    let gateway = trusting(&upstream);
    assert_eq!(from(&gateway, &["192.0.2.1"]), 200);
    assert_eq!(from(&gateway, &["192.0.2.1"]), 429);
    assert_eq!(from(&gateway, &["192.0.2.2"]), 200);
    assert_eq!(from(&gateway, &["198.51.100.7, 192.0.2.1, 10.1.2.3"]), 429);
    assert_eq!(from(&gateway, &["192.0.2.1:4711"]), 429);
    assert_eq!(from(&gateway, &["  192.0.2.2\t, 10.0.0.1"]), 429);
}

#[test]
fn several_lines_are_one_list() {
    let upstream = Upstream::echo();
    let gateway = trusting(&upstream);
    assert_eq!(from(&gateway, &["192.0.2.1"]), 200);
    assert_eq!(
        from(&gateway, &["198.51.100.1", "192.0.2.1", "10.0.0.1"]),
        429
    );
    assert_eq!(from(&gateway, &["192.0.2.1", "198.51.100.1"]), 200);
}

#[test]
fn a_garbage_entry_ends_the_walk() {
    let upstream = Upstream::echo();
    let gateway = trusting(&upstream);
    // the last address somebody vouches for is 10.0.0.9
    assert_eq!(from(&gateway, &["192.0.2.1, nonsense, 10.0.0.9"]), 200);
    assert_eq!(from(&gateway, &["192.0.2.2, , 10.0.0.9"]), 429);
    assert_eq!(from(&gateway, &["192.0.2.3, 999.1.1.1, 10.0.0.9"]), 429);
    assert_eq!(from(&gateway, &["192.0.2.1"]), 200);
    // and where nothing is left, that of the connection
    assert_eq!(from(&gateway, &["unknown"]), 200);
    assert_eq!(from(&gateway, &["'; DROP TABLE"]), 429);
    assert_eq!(from(&gateway, &[]), 429);
}

#[test]
fn an_absurdly_long_chain_of_proxies_is_no_way_around() {
    let upstream = Upstream::echo();
    let gateway = trusting(&upstream);
    let many = |first: &str| format!("{first}{}", ", 10.0.0.2".repeat(5_000));
    let answers = [
        from(&gateway, &[&many("192.0.2.1")]),
        from(&gateway, &[&many("192.0.2.2")]),
    ];
    assert_eq!(
        answers,
        [200, 429],
        "32 hops at most, so both come from 10.0.0.2"
    );
}

#[test]
fn an_upstream_gets_the_chain_and_what_the_trusted_proxy_said() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "trusted_proxies: [127.0.0.0/8]\n");
    let headers = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "api.example"),
        ("X-Request-Id", "from-the-proxy"),
    ];
    let seen = gateway.get_with("/", &headers).text();
    assert_eq!(
        header_in(&seen, "x-forwarded-for"),
        Some("203.0.113.9, 192.0.2.1, 127.0.0.1")
    );
    assert_eq!(header_in(&seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(header_in(&seen, "x-forwarded-host"), Some("api.example"));
}

#[test]
fn an_upstream_gets_forwarded_if_asked_for() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, upstream: app, forwarded_header: true }]\n"),
    );
    let seen = gateway
        .get_with("/", &[("Host", "api.example"), ("Forwarded", "for=evil")])
        .text();
    let forwarded = header_in(&seen, "forwarded").unwrap().to_ascii_lowercase();
    assert!(forwarded.contains("for=127.0.0.1"), "{forwarded}");
    assert!(forwarded.contains("proto=http"), "{forwarded}");
    assert!(forwarded.contains("host=\"api.example\"") || forwarded.contains("host=api.example"));
    assert!(!forwarded.contains("evil"), "{forwarded}");
}

#[test]
fn an_upstream_gets_the_host_as_it_came() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let seen = gateway
        .get_with("/", &[("Host", "Api.Example:8443")])
        .text();
    assert_eq!(header_in(&seen, "host"), Some("Api.Example:8443"));
    assert_eq!(
        header_in(&seen, "x-forwarded-host"),
        Some("Api.Example:8443")
    );
}

#[test]
fn non_ascii_bytes_in_the_chain_do_no_harm() {
    let upstream = Upstream::echo();
    let gateway = trusting(&upstream);
    let mut connection = gateway.connect();
    let mut bytes = head("GET", "/", &[("X-Forwarded-For", "@")], 0).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'@').unwrap();
    bytes.splice(at..=at, [0xff, 0xfe, b',', 0xe9]);
    connection.send(bytes);
    let response: Response = connection.answer();
    assert!(matches!(response.status, 200 | 400), "{response}");
    assert_eq!(
        from(&gateway, &[]),
        if response.status == 200 { 429 } else { 200 }
    );
}
