//! Who is calling: what routes demand, what is refused, what guards against guessing.

use crate::client::Response;
use crate::gateway::{Gateway, app};
use crate::upstream::{Upstream, header_in};

const CLIENTS: &str = "tiers: { free: {}, pro: {} }
clients:
  acme: { tier: pro, api_keys: [{ plain: key-of-acme }, { plain: second-key-of-acme }] }
  globex: { api_keys: [{ sha256: 6a2d4b7b1c2ed5ccfcbd2a1cf46d5d4b0db4ad6cb0fd11bbb8b1d0ac6d3a9e11 }, { plain: key-of-globex }] }
routes:
  - { name: open, match: { path: /open }, upstream: app }
  - { name: optional, match: { path: /optional }, upstream: app, auth: optional }
  - { name: required, match: { path: /required }, upstream: app, auth: required }
  - { name: forwarding, match: { path: /forwarding }, upstream: app, auth: required, forward_credentials: true }
";

fn with(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&format!("{}{CLIENTS}{rest}", app(upstream.address)))
}

fn assert_is_401(response: &Response) {
    assert_eq!(response.status, 401, "{response}");
    assert!(
        response
            .header("WWW-Authenticate")
            .is_some_and(|value| !value.is_empty())
    );
    assert_eq!(
        response.header("Content-Type"),
        Some("application/problem+json")
    );
    let body = response.json();
    assert_eq!(body["status"], 401);
    assert_eq!(body["title"], "Unauthorized");
    assert!(
        body["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty()),
        "{body}"
    );
    assert!(
        body["request_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{body}"
    );
}

#[test]
fn a_route_that_requires_a_key_takes_a_known_one_only() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    assert_is_401(&gateway.get("/required"));
    assert_is_401(&gateway.get_with("/required", &[("X-API-Key", "wrong")]));
    assert_is_401(&gateway.get_with("/required", &[("X-API-Key", "")]));
    assert_is_401(&gateway.get_with("/required", &[("X-API-Key", "Key-of-acme")]));
    assert_eq!(upstream.requests(), 0);
    for key in ["key-of-acme", "second-key-of-acme", "key-of-globex"] {
        assert_eq!(
            gateway.get_with("/required", &[("x-api-key", key)]).status,
            200,
            "{key}"
        );
    }
}

#[test]
fn a_401_does_not_repeat_the_key() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let refusal = gateway.get_with("/required", &[("X-API-Key", "hunter2-hunter2")]);
    assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    assert!(!gateway.stderr.text().contains("hunter2"));
}

#[test]
fn optional_takes_the_anonymous_and_refuses_wrong_keys() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    assert_eq!(gateway.get("/optional").status, 200);
    assert_is_401(&gateway.get_with("/optional", &[("X-API-Key", "wrong")]));
    assert_eq!(
        gateway
            .get_with("/optional", &[("X-API-Key", "key-of-acme")])
            .status,
        200
    );
}

#[test]
fn two_keys_that_disagree_are_refused_and_two_of_one_client_are_not() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let both = |one, two| gateway.get_with("/required", &[("X-API-Key", one), ("X-API-Key", two)]);
    assert_is_401(&both("key-of-acme", "key-of-globex"));
    assert_is_401(&both("key-of-acme", "wrong"));
    assert_is_401(&both("wrong", "key-of-acme"));
    assert_eq!(both("key-of-acme", "second-key-of-acme").status, 200);
}

#[test]
fn a_route_without_authentication_looks_at_no_key_and_forwards_it_untouched() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { key: [client], algorithm: sliding_window, quota: { count: 2, period: 1h } } }",
    );
    let headers = [
        ("X-API-Key", "key-of-acme"),
        ("Authorization", "Bearer abc"),
    ];
    let seen = gateway.get_with("/open", &headers).text();
    assert_eq!(header_in(&seen, "x-api-key"), Some("key-of-acme"));
    assert_eq!(header_in(&seen, "authorization"), Some("Bearer abc"));
    assert_eq!(header_in(&seen, "x-tidegate-client"), None);
    let seen = gateway.get_with("/open", &[("X-API-Key", "wrong")]).text();
    assert_eq!(header_in(&seen, "x-api-key"), Some("wrong"));
    // both were counted by address
    assert_eq!(gateway.get("/open").status, 429);
}

#[test]
fn a_verified_key_stays_here_unless_the_route_forwards_it() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let key = [
        ("X-API-Key", "key-of-acme"),
        ("Authorization", "Basic eDp5"),
    ];
    let seen = gateway.get_with("/required", &key).text();
    assert_eq!(header_in(&seen, "x-api-key"), None);
    assert_eq!(header_in(&seen, "authorization"), Some("Basic eDp5"));
    assert!(!seen.contains("key-of-acme"), "{seen}");
    let seen = gateway.get_with("/forwarding", &key).text();
    assert_eq!(header_in(&seen, "x-api-key"), Some("key-of-acme"));
}

#[test]
fn the_header_that_carries_keys_can_be_chosen() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "auth: { api_key: { header: X-Tenant-Key } }\n");
    assert_eq!(
        gateway
            .get_with("/required", &[("X-Tenant-Key", "key-of-acme")])
            .status,
        200
    );
    assert_is_401(&gateway.get_with("/required", &[("X-API-Key", "key-of-acme")]));
}

#[test]
fn after_thirty_wrong_keys_an_address_gets_429_but_for_keys_known_to_be_valid() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "auth: { failures: { count: 30, period: 1h } }\n");
    let mut connection = gateway.connect();
    let mut ask = |key: &str| connection.request("GET", "/required", &[("X-API-Key", key)], b"");
    assert_eq!(ask("key-of-acme").status, 200);
    for turn in 1..=30 {
        assert_eq!(ask(&format!("guess-{turn}")).status, 401, "guess {turn}");
    }
    let guarded = ask("guess-31");
    assert_eq!(guarded.status, 429, "{guarded}");
    assert!(guarded.number("Retry-After") >= 1);
    assert_eq!(guarded.json()["status"], 429);
    assert_eq!(
        ask("key-of-globex").status,
        429,
        "a valid key nobody has used yet"
    );
    assert_eq!(
        ask("key-of-acme").status,
        200,
        "a key that was valid before"
    );
    assert_eq!(
        gateway.get("/optional").status,
        200,
        "nobody claims to be anybody"
    );
    assert_eq!(
        gateway.get_with("/open", &[("X-API-Key", "guess")]).status,
        200
    );
}

#[test]
fn failures_are_counted_by_thirty_a_minute_where_nothing_else_is_said() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let mut connection = gateway.connect();
    let mut statuses = Vec::new();
    // one more is looked at every two seconds, should the machine be slow
    for turn in 0..45 {
        let key = format!("guess-{turn}");
        statuses.push(
            connection
                .request("GET", "/required", &[("X-API-Key", &key)], b"")
                .status,
        );
    }
    assert_eq!(statuses[..30], [401; 30]);
    assert!(statuses[30..].contains(&429), "{statuses:?}");
}

#[test]
fn the_guard_counts_addresses_apart() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "trusted_proxies: [127.0.0.0/8]\nauth: { failures: { count: 2, period: 1h } }\n",
    );
    let status = |key, address| {
        gateway
            .get_with(
                "/required",
                &[("X-API-Key", key), ("X-Forwarded-For", address)],
            )
            .status
    };
    assert_eq!(
        [status("a", "192.0.2.1"), status("b", "192.0.2.1")],
        [401; 2]
    );
    assert_eq!(status("c", "192.0.2.1"), 429);
    assert_eq!(status("c", "192.0.2.2"), 401);
    assert_eq!(status("key-of-acme", "192.0.2.2"), 200);
}

#[test]
fn missing_keys_are_no_failures() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "auth: { failures: { count: 2, period: 1h } }\n");
    for _ in 0..5 {
        assert_is_401(&gateway.get("/required"));
    }
    assert_is_401(&gateway.get_with("/required", &[("X-API-Key", "wrong")]));
}

#[test]
fn a_cors_preflight_passes_authentication_and_is_counted_by_address() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { routes: [required], key: [client], algorithm: sliding_window, quota: { count: 2, period: 1h } } }",
    );
    let preflight = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "PUT"),
    ];
    let passed = gateway.send("OPTIONS", "/required", &preflight);
    assert_eq!(passed.status, 200);
    assert!(passed.text().starts_with("OPTIONS /required "), "{passed}");
    assert_is_401(&gateway.send("OPTIONS", "/required", &[]));
    assert_eq!(gateway.send("OPTIONS", "/required", &preflight).status, 200);
    assert_eq!(gateway.send("OPTIONS", "/required", &preflight).status, 429);
    let key = [("X-API-Key", "key-of-acme")];
    assert_eq!(
        gateway
            .get_with("/required", &key)
            .number("X-RateLimit-Remaining"),
        1
    );
}

#[test]
fn refused_credentials_charge_no_policy() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } } }",
    );
    for _ in 0..3 {
        assert_is_401(&gateway.get_with("/optional", &[("X-API-Key", "wrong")]));
    }
    assert_eq!(gateway.get("/optional").status, 200);
}
