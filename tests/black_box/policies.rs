//! Which policies apply to a request, with which quota, and how they act together.

use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::Upstream;

const TWO_ROUTES: &str = "routes:
  - { name: x, match: { path: /x }, upstream: app }
  - { name: y, match: { path: /y }, upstream: app }
";

fn with(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&(app(upstream.address) + rest))
}

fn statuses(gateway: &Gateway, count: usize, method: &str, target: &str) -> Vec<u16> {
    (0..count)
        .map(|_| gateway.send(method, target, &[]).status)
        .collect()
}

#[test]
fn a_refusal_by_one_policy_charges_no_other() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{TWO_ROUTES}policies:
  all: {{ key: [ip], algorithm: token_bucket, quota: {{ count: 3, period: 1h }} }}
  x-only: {{ routes: [x], key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }}"
        ),
    );
    assert_eq!(statuses(&gateway, 4, "GET", "/x"), [200, 429, 429, 429]);
    assert_eq!(statuses(&gateway, 3, "GET", "/y"), [200, 200, 429]);
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_shadow_policy_is_seen_in_metrics_and_nowhere_else() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ later: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }}, mode: shadow }} }}"
        ),
    );
    for _ in 0..3 {
        let response = gateway.get("/");
        assert_eq!(response.status, 200);
        for name in [
            "X-RateLimit-Limit",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
        ] {
            assert_eq!(response.header(name), None, "{name}");
        }
    }
    let decisions = |outcome: &str| {
        gateway.metric(&format!(
            "tidegate_decisions_total{{outcome=\"{outcome}\",policy=\"later\"}}"
        ))
    };
    assert_eq!(
        (decisions("allowed"), decisions("would_refuse")),
        (1.0, 2.0)
    );
    assert_eq!(decisions("refused"), 0.0);
}

#[test]
fn a_shadow_policy_is_charged_only_for_admitted_requests() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{TWO_ROUTES}policies:
  x-only: {{ routes: [x], key: [ip], algorithm: sliding_window, quota: {{ count: 2, period: 1h }} }}
  later: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 3, period: 1h }}, mode: shadow }}"
        ),
    );
    assert_eq!(
        statuses(&gateway, 5, "GET", "/x"),
        [200, 200, 429, 429, 429]
    );
    // one unit is left in the shadow's bucket: of these two it would refuse one
    assert_eq!(statuses(&gateway, 2, "GET", "/y"), [200, 200]);
    let would_refuse = "tidegate_decisions_total{outcome=\"would_refuse\",policy=\"later\"}";
    assert_eq!(gateway.metric(would_refuse), 1.0);
}

#[test]
fn a_policy_that_is_off_does_nothing() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }}, mode: off }} }}"
        ),
    );
    assert_eq!(statuses(&gateway, 3, "GET", "/"), [200; 3]);
}

#[test]
fn a_policy_may_refuse_with_a_status_of_its_own() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }}, status: 503 }} }}"
        ),
    );
    assert_eq!(gateway.get("/").status, 200);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.json()["status"], 503);
    assert_eq!(refusal.json()["title"], "Service Unavailable");
    assert_eq!(refusal.json()["policy"], "p");
    assert!(refusal.number("Retry-After") > 0);
}

#[test]
fn an_override_beats_the_tier_and_the_tier_the_policy() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "tiers: { free: {}, pro: {} }
clients:
  acme: { tier: pro, api_keys: [{ plain: key-of-acme }] }
  globex: { tier: pro, api_keys: [{ plain: key-of-globex }] }
  initech: { tier: free, api_keys: [{ plain: key-of-initech }] }
routes: [{ name: app, upstream: app, auth: optional }]
policies:
  p:
    key: [client]
    algorithm: token_bucket
    quota: { count: 10, period: 60s }
    tiers: { pro: { count: 20, period: 60s } }
    overrides: { acme: { count: 30, period: 60s } }
",
    );
    let limit = |key: Option<&str>| {
        let headers: Vec<_> = key.map(|key| ("X-API-Key", key)).into_iter().collect();
        gateway.get_with("/", &headers).number("X-RateLimit-Limit")
    };
    assert_eq!(limit(Some("key-of-acme")), 30);
    assert_eq!(limit(Some("key-of-globex")), 20);
    assert_eq!(limit(Some("key-of-initech")), 10);
    assert_eq!(limit(None), 10);
}

#[test]
fn a_request_takes_its_cost() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 10, period: 1h }}, cost: 4 }} }}"
        ),
    );
    assert_eq!(gateway.get("/").number("X-RateLimit-Remaining"), 6);
    assert_eq!(gateway.get("/").number("X-RateLimit-Remaining"), 2);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.number("X-RateLimit-Remaining"), 2);
}

#[test]
fn a_cost_of_nothing_is_always_allowed() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }}, cost: 0 }} }}"
        ),
    );
    for _ in 0..3 {
        let response = gateway.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(response.number("X-RateLimit-Remaining"), 1);
    }
}

#[test]
fn a_policy_for_get_counts_head_and_leaves_other_methods_alone() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 2, period: 1h }}, methods: [GET] }} }}"
        ),
    );
    assert_eq!(statuses(&gateway, 3, "POST", "/"), [200; 3]);
    assert_eq!(
        gateway.send("POST", "/", &[]).header("X-RateLimit-Limit"),
        None
    );
    assert_eq!(gateway.send("HEAD", "/", &[]).status, 200);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.send("HEAD", "/", &[]).status, 429);
    assert_eq!(gateway.get("/").status, 429);
}

#[test]
fn counting_by_a_header_falls_back_to_the_address_where_it_is_missing() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "trusted_proxies: [127.0.0.0/8]\n{EVERYTHING}policies: {{ p: {{ key: [header:x-tenant], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }} }}"
        ),
    );
    let status = |tenant: Option<&str>, address: &str| {
        let mut headers = vec![("X-Forwarded-For", address)];
        headers.extend(tenant.map(|tenant| ("X-Tenant", tenant)));
        gateway.get_with("/", &headers).status
    };
    assert_eq!(status(Some("a"), "192.0.2.1"), 200);
    assert_eq!(status(Some("a"), "192.0.2.2"), 429);
    assert_eq!(status(Some("b"), "192.0.2.1"), 200);
    assert_eq!(status(None, "192.0.2.1"), 200);
    assert_eq!(status(None, "192.0.2.1"), 429);
    assert_eq!(status(None, "192.0.2.2"), 200);
    // a tenant who is called like an address is not that address
    assert_eq!(status(Some("192.0.2.3"), "192.0.2.9"), 200);
    assert_eq!(status(None, "192.0.2.3"), 200);
}

#[test]
fn descriptors_of_several_parts_make_one_bucket_for_each_combination() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{TWO_ROUTES}policies: {{ p: {{ key: [ip, route, method, host, path], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }} }}"
        ),
    );
    let status = |method, target, host| gateway.send(method, target, &[("Host", host)]).status;
    assert_eq!(status("GET", "/x", "a.example"), 200);
    assert_eq!(status("GET", "/x", "A.Example:80"), 429);
    assert_eq!(status("GET", "/x?query", "a.example"), 429);
    assert_eq!(status("GET", "/y", "a.example"), 200);
    assert_eq!(status("GET", "/x/deeper", "a.example"), 200);
    assert_eq!(status("GET", "/x", "b.example"), 200);
    assert_eq!(status("POST", "/x", "a.example"), 200);
}

#[test]
fn global_is_one_bucket_for_all() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "trusted_proxies: [127.0.0.0/8]\n{EVERYTHING}policies: {{ p: {{ key: [global], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }} }}"
        ),
    );
    let status = |address| {
        gateway
            .get_with("/", &[("X-Forwarded-For", address)])
            .status
    };
    assert_eq!([status("192.0.2.1"), status("192.0.2.2")], [200, 429]);
}

#[test]
fn ipv6_clients_are_counted_by_their_network() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "trusted_proxies: [127.0.0.0/8]\n{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }} }}"
        ),
    );
    let status = |address| {
        gateway
            .get_with("/", &[("X-Forwarded-For", address)])
            .status
    };
    assert_eq!(status("2001:db8:1:1::1"), 200);
    assert_eq!(status("2001:db8:1:1:ffff::2"), 429);
    assert_eq!(status("2001:db8:1:2::1"), 200);
}

#[test]
fn no_route_and_no_method_charge_nothing() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "routes: [{ name: x, match: { path: /x, methods: [GET] }, upstream: app }]
policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } } }",
    );
    assert_eq!(statuses(&gateway, 3, "GET", "/nowhere"), [404; 3]);
    assert_eq!(statuses(&gateway, 3, "POST", "/x"), [405; 3]);
    assert_eq!(statuses(&gateway, 2, "GET", "/x"), [200, 429]);
}

#[test]
fn simultaneous_requests_never_get_more_than_the_quota() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        &format!(
            "{EVERYTHING}policies: {{ p: {{ key: [ip], algorithm: sliding_window, quota: {{ count: 50, period: 1h }} }} }}"
        ),
    );
    let passed: usize = std::thread::scope(|scope| {
        let client = || {
            let mut connection = gateway.connect();
            let answers = (0..20).map(|_| connection.request("GET", "/", &[], b"").status);
            answers.filter(|status| *status == 200).count()
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 50);
    assert_eq!(upstream.requests(), 50);
}
