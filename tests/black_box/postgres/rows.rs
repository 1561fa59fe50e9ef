//! What belongs in the snapshot, as the database has it.

use super::scene::Scene;
use serde_json::{Value, json};
use tidegate::database::Kind;

/// Every key that a policy may have.
fn whole_policy() -> Value {
    json!({
        "routes": ["search", "orders"],
        "key": ["client", "header:X-Org"],
        "algorithm": "token_bucket",
        "quota": { "count": 30, "period": "60s", "burst": 60 },
        "tiers": { "pro": { "count": 300, "period": "60s" } },
        "overrides": {
            "acme": { "count": 1000, "period": "60s", "expires": "2026-12-31T00:00:00Z" },
            "O'Brien;--": { "count": 1, "period": "1s" },
        },
        "cost": 2,
        "consistency": "leased",
        "lease_ttl": "250ms",
        "on_outage": "deny",
        "mode": "shadow",
        "methods": ["GET", "POST"],
        "ipv6_prefix": 56,
        "status": 503,
    })
}

fn whole_settings() -> Value {
    json!({
        "enabled": true, "maintenance": false, "upstream": "orders-v1",
        "canary": { "upstream": "orders-v2", "weight": 10 },
        "timeout": "5s", "max_concurrent": 100, "cost": 3,
    })
}

#[test]
fn documents_come_back_as_they_were_written() {
    let scene = Scene::new();
    let least = json!({ "key": ["global"], "algorithm": "concurrency", "quota": { "count": 1 } });
    scene.put(Kind::Policy, "whole", &whole_policy());
    scene.put(Kind::Policy, "least", &least);
    scene.put(Kind::Tier, "pro", &json!({}));
    scene.put(Kind::RouteSettings, "orders", &whole_settings());
    scene.put(Kind::RouteSettings, "search", &json!({}));
    let rows = scene.run(scene.database.rows()).unwrap();
    let named = |name: &str, document| (name.to_owned(), document);
    assert_eq!(
        rows.policies,
        [named("least", least), named("whole", whole_policy())]
    );
    assert_eq!(rows.tiers, ["pro"]);
    assert_eq!(
        rows.routes,
        [
            named("orders", whole_settings()),
            named("search", json!({}))
        ]
    );
    assert_eq!(rows.revision, 5);
    let text = serde_json::to_string(&rows).unwrap();
    assert_eq!(
        serde_json::from_str::<tidegate::database::Rows>(&text).unwrap(),
        rows
    );
}

#[test]
fn rows_written_by_hand_come_as_they_are_even_wild_ones() {
    let scene = Scene::new();
    scene.server.sql(
        "INSERT INTO policies (name, key, algorithm, quota)
         VALUES ('odd', '{}', 'no such thing', '{\"count\": \"many\"}'),
                ('wild', '{ip}', 'token_bucket', '{\"count\": 1e400}'),
                ('sound', '{ip}', 'token_bucket', '{\"count\": 1, \"period\": \"1s\"}')",
    );
    let rows = scene.run(scene.database.rows()).unwrap();
    let names: Vec<&str> = rows
        .policies
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["odd", "sound", "wild"]);
    assert_eq!(rows.policies[0].1["algorithm"], "no such thing");
    assert_eq!(rows.policies[2].1, Value::Null);
}

#[test]
fn the_database_itself_refuses_names_that_cannot_be() {
    let scene = Scene::new();
    for sql in [
        "INSERT INTO tiers (name) VALUES ('Pro')",
        "INSERT INTO tiers (name) VALUES ('')",
        "INSERT INTO clients (id) VALUES ('a b')",
        "INSERT INTO clients (id) VALUES (repeat('a', 129))",
        "INSERT INTO clients (id) VALUES (E'a\\n')",
        "INSERT INTO api_keys (id, sha256, client) VALUES ('a', 'short', 'acme')",
        "INSERT INTO api_keys (id, sha256, client, expires_at) VALUES ('a', sha256('a'), 'acme', 'infinity')",
        "INSERT INTO policies (name, key, algorithm, quota) VALUES ('a', '{ip}', 'x', '[]')",
    ] {
        let error = scene.server.ask(sql).unwrap_err();
        assert!(
            error.contains("violates check constraint"),
            "{sql}: {error}"
        );
    }
}
