//! The rate-limit headers of both families: exact forms, and which policy speaks.

use crate::client::Response;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::Upstream;
use std::time::{SystemTime, UNIX_EPOCH};

fn with(upstream: &Upstream, rest: &str) -> Gateway {
    Gateway::start(&format!("{}{EVERYTHING}{rest}", app(upstream.address)))
}

fn epoch_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The header says now plus so many seconds, give or take one.
fn assert_resets_in(response: &Response, seconds: u64) {
    let reset = response.number("X-RateLimit-Reset");
    let expected = epoch_seconds() + seconds;
    assert!(
        (expected - 1..=expected + 1).contains(&reset),
        "{reset} is not about {expected}"
    );
}

/// `"p";r=1;t=2` as its name and numbers.
fn limit(response: &Response) -> Vec<(String, u64, u64)> {
    let value = response
        .header("RateLimit")
        .unwrap_or_else(|| panic!("no RateLimit: {response}"));
    let item = |item: &str| {
        let mut parts = item.split(';');
        let name = parts
            .next()
            .and_then(|name| name.strip_prefix('"')?.strip_suffix('"'));
        let mut number = |key| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(key)?.parse().ok())
        };
        (
            name.unwrap_or_else(|| panic!("{value}")).to_owned(),
            number("r=").unwrap_or_else(|| panic!("{value}")),
            number("t=").unwrap_or_else(|| panic!("{value}")),
        )
    };
    value.split(", ").map(item).collect()
}

#[test]
fn an_allowed_response_carries_both_families_in_their_exact_forms() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { search-per-client: { key: [client], algorithm: token_bucket, quota: { count: 30, period: 60s } } }",
    );
    let response = gateway.get("/");
    assert_eq!(response.status, 200);
    assert_eq!(response.number("X-RateLimit-Limit"), 30);
    assert_eq!(response.number("X-RateLimit-Remaining"), 29);
    assert_eq!(
        response.header("X-RateLimit-Strategy"),
        Some("token_bucket")
    );
    assert_resets_in(&response, 2);
    assert_eq!(
        response.header("RateLimit-Policy"),
        Some("\"search-per-client\";q=30;w=60")
    );
    assert_eq!(
        response.header("RateLimit"),
        Some("\"search-per-client\";r=29;t=2")
    );
    assert_eq!(response.header("Retry-After"), None);
}

#[test]
fn a_refusal_carries_them_too_and_a_whole_number_to_wait() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { key: [ip], algorithm: token_bucket, quota: { count: 1, period: 90s } } }",
    );
    assert_eq!(gateway.get("/").status, 200);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.number("X-RateLimit-Limit"), 1);
    assert_eq!(refusal.number("X-RateLimit-Remaining"), 0);
    assert_resets_in(&refusal, 90);
    assert_eq!(refusal.header("RateLimit-Policy"), Some("\"p\";q=1;w=90"));
    assert_eq!(
        refusal.header("Content-Type"),
        Some("application/problem+json")
    );
    let body = refusal.json();
    let wait_ms = body["retry_after_ms"].as_u64().unwrap();
    assert!((80_000..=90_000).contains(&wait_ms), "{body}");
    assert_eq!(refusal.number("Retry-After"), wait_ms.div_ceil(1_000));
    assert_eq!(body["status"], 429);
    assert_eq!(body["title"], "Too Many Requests");
    assert_eq!(body["detail"], "Too many requests. Please retry later.");
    assert_eq!(body["policy"], "p");
    assert!(!body["request_id"].as_str().unwrap().is_empty());
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_wait_of_milliseconds_is_told_as_one_second() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 900ms } } }",
    );
    let mut connection = gateway.connect();
    assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    let refusal = connection.request("GET", "/", &[], b"");
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.header("Retry-After"), Some("1"));
}

#[test]
fn the_limit_of_a_token_bucket_is_its_burst_and_the_window_the_time_to_refill_it() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { key: [ip], algorithm: token_bucket, quota: { count: 30, period: 60s, burst: 5 } } }",
    );
    let response = gateway.get("/");
    assert_eq!(response.number("X-RateLimit-Limit"), 5);
    assert_eq!(response.header("RateLimit-Policy"), Some("\"p\";q=5;w=10"));
    assert_eq!(response.header("RateLimit"), Some("\"p\";r=4;t=2"));
}

#[test]
fn response_headers_chooses_the_families() {
    let upstream = Upstream::echo();
    let policy =
        "policies: { p: { key: [ip], algorithm: fixed_window, quota: { count: 1, period: 1h } } }";
    for (families, x_ratelimit, ietf, decided_by) in [
        ("[x-ratelimit]", true, false, None),
        ("[ietf]", false, true, None),
        ("[debug]", false, false, Some("memory")),
        ("[]", false, false, None),
    ] {
        let gateway = with(
            &upstream,
            &format!("response_headers: {families}\n{policy}"),
        );
        for status in [200, 429] {
            let response = gateway.get("/");
            assert_eq!(response.status, status);
            assert_eq!(
                response.header("X-RateLimit-Limit").is_some(),
                x_ratelimit,
                "{families}"
            );
            assert_eq!(
                response.header("X-RateLimit-Strategy").is_some(),
                x_ratelimit
            );
            assert_eq!(response.header("RateLimit").is_some(), ietf, "{families}");
            assert_eq!(
                response.header("RateLimit-Policy").is_some(),
                ietf,
                "{families}"
            );
            assert_eq!(response.header("X-Tidegate-Decided-By"), decided_by);
            assert_eq!(response.header("Retry-After").is_some(), status == 429);
        }
    }
}

#[test]
fn the_policy_with_the_fewest_further_requests_speaks_and_all_are_listed() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies:
  cheap: { key: [ip], algorithm: fixed_window, quota: { count: 10, period: 1h } }
  dear: { key: [ip], algorithm: sliding_window, quota: { count: 20, period: 1h }, cost: 5 }",
    );
    let response = gateway.get("/");
    assert_eq!(response.number("X-RateLimit-Limit"), 20);
    assert_eq!(response.number("X-RateLimit-Remaining"), 15);
    assert_eq!(
        response.header("X-RateLimit-Strategy"),
        Some("sliding_window")
    );
    let mut listed = limit(&response);
    listed.sort();
    let remaining: Vec<_> = listed
        .iter()
        .map(|(name, r, _)| (name.as_str(), *r))
        .collect();
    assert_eq!(remaining, [("cheap", 9), ("dear", 15)]);
    let policies = response.header("RateLimit-Policy").unwrap();
    let mut policies: Vec<&str> = policies.split(", ").collect();
    policies.sort_unstable();
    assert_eq!(policies, ["\"cheap\";q=10;w=3600", "\"dear\";q=20;w=3600"]);
}

#[test]
fn of_equally_near_policies_the_one_with_the_later_reset_speaks() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies:
  a-long: { key: [ip], algorithm: token_bucket, quota: { count: 5, period: 1h } }
  short: { key: [ip], algorithm: sliding_window, quota: { count: 5, period: 10s } }
  z-short: { key: [ip], algorithm: fixed_window, quota: { count: 5, period: 10s } }",
    );
    let response = gateway.get("/");
    assert_eq!(
        response.header("X-RateLimit-Strategy"),
        Some("token_bucket")
    );
    assert_resets_in(&response, 720);
}

#[test]
fn of_several_refusing_policies_the_one_with_the_longest_wait_speaks() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies:
  a-minute: { key: [ip], algorithm: token_bucket, quota: { count: 1, period: 1m } }
  hour: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 1h } }
  z-minute: { key: [ip], algorithm: token_bucket, quota: { count: 1, period: 1m } }",
    );
    assert_eq!(gateway.get("/").status, 200);
    let refusal = gateway.get("/");
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.json()["policy"], "hour");
    assert_eq!(
        refusal.header("X-RateLimit-Strategy"),
        Some("sliding_window")
    );
    assert!(refusal.number("Retry-After") > 3_500, "{refusal}");
    assert_eq!(limit(&refusal).len(), 3);
}

#[test]
fn the_refusing_policy_speaks_even_where_another_is_as_empty() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies:
  full: { key: [ip], algorithm: sliding_window, quota: { count: 1, period: 10s }, methods: [POST] }
  used: { key: [ip], algorithm: token_bucket, quota: { count: 2, period: 1h } }",
    );
    assert_eq!(gateway.send("POST", "/", &[]).status, 200);
    let refusal = gateway.send("POST", "/", &[]);
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.json()["policy"], "full");
    assert_eq!(refusal.number("X-RateLimit-Limit"), 1);
    assert!(refusal.number("Retry-After") <= 10);
    assert_eq!(gateway.get("/").number("X-RateLimit-Remaining"), 0);
}

#[test]
fn headers_of_the_upstream_with_these_names_are_replaced() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write(
            "HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 7\r\nRateLimit: \"x\";r=7\r\nContent-Length: 0\r\n\r\n",
        )?;
        Ok(crate::upstream::Then::Keep)
    });
    let gateway = with(
        &upstream,
        "policies: { p: { key: [ip], algorithm: token_bucket, quota: { count: 30, period: 60s } } }",
    );
    let response = gateway.get("/");
    assert_eq!(response.header("X-RateLimit-Limit"), Some("30"));
    assert_eq!(response.header("RateLimit"), Some("\"p\";r=29;t=2"));
}

#[test]
fn without_a_policy_there_are_no_such_headers() {
    let upstream = Upstream::echo();
    let response = with(&upstream, "").get("/");
    assert_eq!(response.header("X-RateLimit-Limit"), None);
    assert_eq!(response.header("RateLimit"), None);
    assert_eq!(response.header("RateLimit-Policy"), None);
}
