//! API keys: the secret is shown once, and nothing that is secret ever comes back.

use super::api::is_problem;
use super::stage::Stage;
use serde_json::{Value, json};

#[test]
fn a_key_is_made_listed_and_revoked_and_its_secret_shown_once() {
    let stage = Stage::new();
    assert_eq!(
        stage
            .put("/api/v1/clients/acme", &json!({ "tier": "free" }))
            .status,
        201
    );
    let made = stage.post(
        "/api/v1/clients/acme/keys",
        &json!({ "name": "ci 'build'; --", "scopes": ["read", "write"], "expires": "2040-01-01T00:00:00Z" }),
    );
    assert_eq!(made.status, 201, "{made}");
    let made = made.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with(&format!("tg_{id}_")), "{made}");
    assert_eq!(made["name"], "ci 'build'; --");
    assert_eq!(made["expires_at"], "2040-01-01T00:00:00Z");
    assert_eq!(made["revoked_at"], Value::Null);

    let secret = key.rsplit('_').next().unwrap();
    for target in [
        "/api/v1/clients/acme/keys",
        "/api/v1/clients/acme",
        "/api/v1/clients",
        "/api/v1/revisions",
        "/api/v1/config",
        "/metrics",
        "/health",
    ] {
        let shown = stage.get(target);
        assert_eq!(shown.status, 200, "{target}");
        assert!(!shown.text().contains(secret), "{target}: {shown}");
    }
    let listed = stage.get("/api/v1/clients/acme/keys").json();
    assert_eq!(listed["items"][0]["id"], id);
    assert_eq!(listed["items"][0]["scopes"], json!(["read", "write"]));

    let target = format!("/api/v1/keys/{id}");
    assert_eq!(stage.delete(&target).status, 204);
    assert_eq!(
        stage.delete(&target).status,
        204,
        "once more changes nothing"
    );
    let listed = stage.get("/api/v1/clients/acme/keys").json();
    assert!(listed["items"][0]["revoked_at"].is_string(), "{listed}");
    let revisions = stage.get("/api/v1/revisions").json();
    let newest = &revisions["items"][0];
    assert_eq!(
        (&newest["kind"], &newest["name"]),
        (&json!("key"), &json!(id))
    );
    let back = format!("/api/v1/revisions/{}/rollback", newest["id"]);
    is_problem(&stage.post(&back, &json!(null)), 409);
    assert!(!stage.gateway.stderr.text().contains(secret));
}

#[test]
fn a_key_works_from_the_moment_it_is_made_until_it_is_revoked_and_is_explained() {
    let stage = Stage::new();
    assert_eq!(
        stage
            .put("/api/v1/clients/acme", &json!({ "tier": "free" }))
            .status,
        201
    );
    let made = stage.post("/api/v1/clients/acme/keys", &json!({})).json();
    let key = made["key"].as_str().unwrap();
    let status = || stage.gateway.get_with("/", &[("X-API-Key", key)]).status;
    let explained = || {
        let question = json!({ "url": "http://h/", "headers": { "X-API-Key": key } });
        let said = stage.post("/api/v1/explain", &question);
        assert!(!said.text().contains(key), "{said}");
        said.json()
    };
    let said = explained();
    assert_eq!(said["client"]["id"], "acme", "{said}");
    assert_eq!(said["client"]["tier"], "free", "{said}");
    let found_by = said["client"]["found_by"].as_str().unwrap();
    assert!(found_by.contains("database"), "{said}");
    assert_eq!(said["policies"][0]["key"], "t:filed:c:acme");
    assert_eq!(status(), 200);
    let target = format!("/api/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(stage.delete(&target).status, 204);
    let begin = std::time::Instant::now();
    crate::waiting::until("the key is refused", || status() == 401);
    assert!(begin.elapsed().as_millis() < 2_000, "{:?}", begin.elapsed());
    let said = explained();
    assert_eq!(said["outcome"]["status"], 401, "{said}");
}

#[test]
fn clients_of_the_file_may_have_keys_in_the_database() {
    let stage = Stage::new();
    let made = stage.post("/api/v1/clients/filer/keys", &json!({}));
    assert_eq!(made.status, 201, "{made}");
    let shown = stage.get("/api/v1/clients/filer");
    assert!(!shown.text().contains("key-of-filer"), "{shown}");
    is_problem(&stage.post("/api/v1/clients/nobody/keys", &json!({})), 404);
    is_problem(&stage.get("/api/v1/clients/nobody/keys"), 404);
    for id in [
        "0000000000zz",
        "x",
        "a%20b",
        "%27%3B--",
        "0123456789ab0123456789ab",
    ] {
        is_problem(&stage.delete(&format!("/api/v1/keys/{id}")), 404);
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_with_every_reason() {
    let stage = Stage::new();
    let target = "/api/v1/clients/filer/keys";
    let refused = stage.post(
        target,
        &json!({ "name": "a\u{0}b", "scopes": ["a b", "ok"], "expires": "2001-01-01T00:00:00Z" }),
    );
    is_problem(&refused, 422);
    let errors = refused.json()["errors"].clone();
    let paths: Vec<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["path"].as_str())
        .collect();
    assert_eq!(paths, ["name", "scopes[0]", "expires"]);
    for wrong in [
        json!({ "name": "" }),
        json!({ "name": "x".repeat(129) }),
        json!({ "scopes": vec!["s"; 65] }),
        json!({ "scopes": ["s".repeat(129)] }),
        json!({ "scopes": "read" }),
        json!({ "expires": "tomorrow" }),
        json!({ "expires": 1 }),
        json!({ "expires": "9999999-01-01T00:00:00Z" }),
        json!({ "key": "mine" }),
        json!([]),
    ] {
        is_problem(&stage.post(target, &wrong), 422);
    }
    assert_eq!(stage.get(target).json()["items"], json!([]));
    // the longest and the most there may be
    let scopes: Vec<String> = (0..64).map(|n| format!("{n:0>128}")).collect();
    let made = stage.post(target, &json!({ "scopes": scopes }));
    assert_eq!(made.status, 201, "{made}");
}

#[test]
fn buckets_of_a_client_that_only_the_database_knows_are_shown() {
    let stage = Stage::new();
    is_problem(&stage.get("/api/v1/limits?client=ac%20me"), 404);
    // also those that only tokens name
    for made in [false, true] {
        if made {
            assert_eq!(stage.put("/api/v1/clients/acme", &json!({})).status, 201);
        }
        let shown = stage.get("/api/v1/limits?client=acme").json();
        assert_eq!(shown["buckets"][0]["key"], "t:filed:c:acme");
    }
}

#[test]
fn buckets_are_those_of_the_tier_that_requests_have() {
    let stage = Stage::new();
    let policy = json!({ "key": ["client", "tier"], "algorithm": "fixed_window",
        "quota": { "count": 5, "period": "1h" }, "tiers": { "free": { "count": 7, "period": "1h" } } });
    assert_eq!(stage.put("/api/v1/policies/tiered", &policy).status, 201);
    let limit = |client: &str| {
        let shown = stage.get(&format!("/api/v1/limits?client={client}")).json();
        let buckets = shown["buckets"].as_array().unwrap().clone();
        let tiered = buckets.iter().find(|bucket| bucket["policy"] == "tiered");
        tiered.map(|bucket| bucket["limit"].as_u64())
    };
    crate::waiting::until("the policy holds", || limit("filer").is_some());
    assert_eq!(limit("filer"), Some(Some(7)), "the file says free");
    // a row that says nothing of a tier leaves it to the file
    assert_eq!(stage.put("/api/v1/clients/filer", &json!({})).status, 200);
    assert_eq!(limit("filer"), Some(Some(7)));
    stage
        .server
        .sql("INSERT INTO clients (id, tier) VALUES ('lost', 'gone') ON CONFLICT (id) DO NOTHING");
    crate::waiting::until("a tier that is gone is none", || {
        let shown = stage.get("/api/v1/limits?client=lost").text();
        limit("lost") == Some(Some(5)) && !shown.contains("gone")
    });
}
