//! `/api/v1/limits`: what is left in whose buckets, and how to empty them, on both stores.

use crate::gateway::{EVERYTHING, Gateway, app};
use crate::redis::RedisServer;
use crate::upstream::Upstream;
use serde_json::Value;

const POLICIES: &str = "auth: { api_key: { header: X-API-Key } }
tiers: { pro: {} }
clients: { acme: { tier: pro, api_keys: [{ plain: acme-key }] } }
policies:
  hourly:
    key: [client]
    algorithm: token_bucket
    quota: { count: 5, period: 1h }
    tiers: { pro: { count: 9, period: 1h } }
  by-route: { key: [client, route], algorithm: sliding_window, quota: { count: 7, period: 1h } }
  by-path: { key: [client, path], algorithm: fixed_window, quota: { count: 100, period: 1h } }
";

fn gateway(upstream: &Upstream, store: &str) -> Gateway {
    let routes = EVERYTHING.replace("upstream: app", "upstream: app, auth: optional");
    Gateway::start(&format!(
        "{store}{}{routes}{POLICIES}",
        app(upstream.address)
    ))
}

fn remaining(gateway: &Gateway, whose: &str) -> Vec<(String, u64)> {
    let response = gateway.ask_admin(&format!("/api/v1/limits?{whose}"), &[]);
    assert_eq!(response.status, 200, "{}", response.text());
    let body = response.json();
    let bucket = |bucket: &Value| {
        let policy = bucket["policy"].as_str().unwrap().to_owned();
        (policy, bucket["remaining"].as_u64().unwrap())
    };
    body["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(bucket)
        .collect()
}

fn is_told(store: &str) {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream, store);
    for _ in 0..3 {
        assert_eq!(
            gateway.get_with("/", &[("X-API-Key", "acme-key")]).status,
            200
        );
    }
    assert_eq!(gateway.get("/").status, 200);
    let left = |policy: &str, units| (policy.to_owned(), units);
    let mut acme = remaining(&gateway, "client=acme");
    acme.sort();
    assert_eq!(acme, [left("by-route", 4), left("hourly", 6)]);
    let mut nobody = remaining(&gateway, "ip=127.0.0.1");
    nobody.sort();
    assert_eq!(nobody, [left("by-route", 6), left("hourly", 4)]);
    assert_eq!(
        remaining(&gateway, "key=t:hourly:c:acme"),
        [left("hourly", 2)]
    );

    let json = [("Content-Type", "application/json")];
    let reset = gateway.send_admin("DELETE", "/api/v1/limits?client=acme", &json);
    assert_eq!(reset.json()["reset"], 2, "{}", reset.text());
    let again = gateway.get_with("/", &[("X-API-Key", "acme-key")]);
    assert_eq!(again.header("X-RateLimit-Remaining"), Some("6"));

    for (whose, status) in [
        ("client=no%20body", 404),
        ("key=t:no-policy:c:acme", 404),
        ("client=acme&ip=127.0.0.1", 400),
        ("ip=localhost", 400),
        ("zzz=1", 400),
        ("", 400),
    ] {
        let response = gateway.ask_admin(&format!("/api/v1/limits?{whose}"), &[]);
        assert_eq!(response.status, status, "{whose}: {}", response.text());
        assert!(response.json()["detail"].is_string());
    }
}

#[test]
fn the_buckets_of_a_client_are_told_and_emptied() {
    is_told("");
}

#[test]
fn the_buckets_of_a_client_in_redis_are_told_and_emptied() {
    let redis = RedisServer::start();
    is_told(&format!(
        "store: {{ redis: {{ url: \"{}\" }} }}\n",
        redis.url()
    ));
}
