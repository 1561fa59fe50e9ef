//! The admin listener: health, metrics, start page, and who may see them.

pub(crate) mod api;
mod documents;
mod explain;
mod hostile;
mod keys;
mod stage;
mod writers;

use crate::client::Connection;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::Upstream;

const LIMIT: &str =
    "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 2, period: 1h } } }\n";

fn open(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&format!("{}{EVERYTHING}{rest}", app(upstream.address)))
}

fn with_token(upstream: &Upstream) -> Gateway {
    Gateway::start_with_admin(", token: s3cret", &(app(upstream.address) + EVERYTHING))
}

#[test]
fn health_is_the_same_on_both_listeners_and_never_limited() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, LIMIT);
    for _ in 0..5 {
        for response in [gateway.get("/health"), gateway.ask_admin("/health", &[])] {
            assert_eq!(response.status, 200);
            assert_eq!(response.header("Content-Type"), Some("application/json"));
            let body = response.json();
            assert_eq!(body["status"], "ok");
            assert_eq!(body["upstreams"]["app"]["healthy"], 1, "{body}");
            assert_eq!(body["upstreams"]["app"]["total"], 1, "{body}");
            assert!(
                body["redis"].is_string() && body["postgres"].is_string(),
                "{body}"
            );
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn health_may_tell_its_status_only_or_be_elsewhere_or_the_upstreams() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, "server: { health: { detail: status } }\n");
    assert_eq!(gateway.get("/health").text(), "{\"status\":\"ok\"}");
    let gateway = open(&upstream, "server: { health: { path: /up } }\n");
    assert_eq!(gateway.get("/up").json()["status"], "ok");
    assert!(gateway.get("/health").text().starts_with("GET /health "));
    let gateway = open(&upstream, "server: { health: { path: null } }\n");
    assert!(gateway.get("/health").text().starts_with("GET /health "));
    assert_eq!(gateway.ask_admin("/health", &[]).status, 200);
}

#[test]
fn metrics_count_requests_decisions_and_latency() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, LIMIT);
    for _ in 0..3 {
        gateway.get("/");
    }
    crate::waiting::until("all three are counted", || {
        gateway.metric("tidegate_request_duration_seconds_count{route=\"app\"}") == 3.0
    });
    let response = gateway.ask_admin("/metrics", &[]);
    assert_eq!(response.status, 200);
    assert!(
        response
            .header("Content-Type")
            .unwrap()
            .starts_with("text/plain")
    );
    let text = response.text();
    for line in [
        "tidegate_requests_total{route=\"app\",status=\"200\"} 2",
        "tidegate_requests_total{route=\"app\",status=\"429\"} 1",
        "tidegate_decisions_total{outcome=\"allowed\",policy=\"p\"} 2",
        "tidegate_decisions_total{outcome=\"refused\",policy=\"p\"} 1",
        "tidegate_request_duration_seconds_bucket{route=\"app\",le=\"+Inf\"} 3",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(
        !text.contains("127.0.0.1"),
        "no label may grow with clients"
    );
}

#[test]
fn nothing_clients_choose_becomes_a_label() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "clients: { acme: { api_keys: [{ plain: key-of-acme }] } }
routes: [{ name: app, match: { path: /app }, upstream: app, auth: optional }]\n"),
    );
    gateway.send("ODDMETHOD", "/app/oddpath?oddquery", &[("Host", "oddhost")]);
    gateway.get_with("/oddpath", &[("X-API-Key", "oddkey")]);
    gateway.get_with("/app", &[("X-API-Key", "oddkey")]);
    gateway.get_with("/app", &[("X-API-Key", "key-of-acme")]);
    let text = gateway
        .ask_admin("/metrics", &[])
        .text()
        .to_ascii_lowercase();
    assert!(!text.contains("odd") && !text.contains("key-of"), "{text}");
}

#[test]
fn the_start_page_is_html() {
    let upstream = Upstream::echo();
    let response = open(&upstream, "").ask_admin("/", &[]);
    assert_eq!(response.status, 200);
    assert!(
        response
            .header("Content-Type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(response.text().contains("/metrics"));
}

#[test]
fn with_a_token_only_health_and_the_start_page_are_open() {
    let upstream = Upstream::echo();
    let gateway = with_token(&upstream);
    assert_eq!(gateway.ask_admin("/health", &[]).status, 200);
    assert_eq!(gateway.ask_admin("/", &[]).status, 200);
    for authorization in [
        None,
        Some("Bearer wrong"),
        Some("Bearer s3cret2"),
        Some("Bearer s3cre"),
        Some("Bearer "),
        Some("Bearer"),
        Some("s3cret"),
        Some("Basic czNjcmV0"),
    ] {
        let headers: Vec<_> = authorization
            .map(|value| ("Authorization", value))
            .into_iter()
            .collect();
        let response = gateway.ask_admin("/metrics", &headers);
        assert_eq!(response.status, 401, "{authorization:?}");
        assert!(
            response
                .header("WWW-Authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
        assert!(!response.text().contains("s3cret"), "{response}");
    }
    for authorization in ["Bearer s3cret", "bearer s3cret"] {
        let response = gateway.ask_admin("/metrics", &[("Authorization", authorization)]);
        assert_eq!(response.status, 200, "{authorization}");
    }
    let elsewhere = [
        ("Authorization", "Bearer s3cret"),
        ("Host", "gateway.example"),
    ];
    assert_eq!(gateway.ask_admin("/metrics", &elsewhere).status, 200);
}

#[test]
fn without_a_token_other_hosts_and_other_sites_are_refused() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, "");
    let own = gateway.admin.to_string();
    let origin = format!("http://{own}");
    for (headers, status) in [
        (vec![("Host", "evil.example")], 403),
        (vec![("Host", "localhost.evil.example")], 403),
        (
            vec![("Host", own.as_str()), ("Origin", "http://evil.example")],
            403,
        ),
        (vec![("Host", own.as_str()), ("Origin", "null")], 403),
        (
            vec![("Host", own.as_str()), ("Sec-Fetch-Site", "cross-site")],
            403,
        ),
        (
            vec![("Host", own.as_str()), ("Origin", origin.as_str())],
            200,
        ),
        (vec![("Host", "localhost")], 200),
        (vec![("Host", own.as_str())], 200),
    ] {
        for target in ["/metrics", "/health", "/"] {
            assert_eq!(
                gateway.ask_admin(target, &headers).status,
                status,
                "{target} {headers:?}"
            );
        }
    }
}

#[test]
fn a_configured_host_name_is_accepted() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start_with_admin(
        ", hosts: [gateway.example]",
        &(app(upstream.address) + EVERYTHING),
    );
    assert_eq!(
        gateway
            .ask_admin("/metrics", &[("Host", "gateway.example:9180")])
            .status,
        200
    );
    assert_eq!(
        gateway
            .ask_admin("/metrics", &[("Host", "other.example")])
            .status,
        403
    );
}

#[test]
fn what_is_not_there_is_404_and_other_methods_are_refused() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, "");
    assert_eq!(gateway.ask_admin("/nothing", &[]).status, 404);
    let json = [("Content-Type", "application/json")];
    let response = Connection::open(gateway.admin).request("POST", "/health", &json, b"{}");
    assert_eq!(response.status, 405, "{response}");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let response = Connection::open(gateway.admin).request("POST", "/health", &form, b"a=b");
    assert!(matches!(response.status, 405 | 415), "{response}");
}

#[test]
fn the_gateways_listener_serves_no_metrics() {
    let upstream = Upstream::echo();
    let gateway = open(&upstream, "");
    assert!(
        gateway.get("/metrics").text().starts_with("GET /metrics "),
        "it is the upstream's"
    );
}
