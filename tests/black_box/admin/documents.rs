//! Policies, tiers, clients and route settings: written, read, taken back, and in force.

use super::api::is_problem;
use super::stage::Stage;
use crate::waiting;
use serde_json::{Value, json};
use std::sync::Barrier;

fn policy(count: u64) -> Value {
    json!({ "key": ["client"], "algorithm": "fixed_window", "quota": { "count": count, "period": "1h" } })
}

fn etag(response: &crate::client::Response) -> String {
    response.header("ETag").unwrap().to_owned()
}

#[test]
fn a_policy_is_created_replaced_enforced_and_deleted() {
    let stage = Stage::new();
    let made = stage.put("/api/v1/policies/strict", &policy(2));
    assert_eq!(made.status, 201, "{made}");
    assert_eq!(made.json()["source"], "database");
    assert_eq!(made.json()["document"], policy(2));
    waiting::until("it is enforced", || {
        stage.gateway.get("/").header("X-RateLimit-Limit") == Some("2")
    });
    waiting::until("it refuses", || stage.gateway.get("/").status == 429);
    let replaced = stage.put("/api/v1/policies/strict", &policy(50));
    assert_eq!(replaced.status, 200, "{replaced}");
    assert_ne!(etag(&made), etag(&replaced));
    waiting::until("it allows again", || stage.gateway.get("/").status == 200);
    let shown = stage.get("/api/v1/policies/strict");
    assert_eq!(etag(&shown), etag(&replaced));
    assert_eq!(shown.json()["document"]["quota"]["count"], 50);
    let deleted = stage.delete("/api/v1/policies/strict");
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    is_problem(&stage.get("/api/v1/policies/strict"), 404);
    is_problem(&stage.delete("/api/v1/policies/strict"), 404);
}

#[test]
fn a_row_replaces_what_the_file_says_and_deleting_it_brings_that_back() {
    let stage = Stage::new();
    let filed = stage.get("/api/v1/policies/filed");
    assert_eq!(filed.json()["source"], "file");
    is_problem(&stage.delete("/api/v1/policies/filed"), 409);
    let replaced = stage.put("/api/v1/policies/filed", &policy(7));
    assert_eq!(replaced.status, 200, "{replaced}");
    assert_eq!(
        stage.get("/api/v1/policies/filed").json()["source"],
        "database"
    );
    let explained = || {
        let said = stage
            .post("/api/v1/explain", &json!({ "url": "http://h/" }))
            .json();
        (
            said["policies"][0]["limit"].clone(),
            said["policies"][0]["defined_in"].clone(),
        )
    };
    waiting::until("the row holds", || {
        explained() == (json!(7), json!("database"))
    });
    let shown = stage.get("/api/v1/config").json();
    assert_eq!(shown["policies"]["filed"]["quota"]["count"], 7);
    assert_eq!(stage.delete("/api/v1/policies/filed").status, 204);
    assert_eq!(stage.get("/api/v1/policies/filed").text(), filed.text());
    waiting::until("the file holds again", || {
        explained() == (json!(100), json!("file"))
    });
}

#[test]
fn what_is_shown_of_the_file_can_be_written_as_it_is() {
    let stage = Stage::new();
    for target in [
        "/api/v1/tiers/free",
        "/api/v1/policies/filed",
        "/api/v1/policies/off",
        "/api/v1/clients/filer",
        "/api/v1/routes/app/settings",
    ] {
        let document = stage.get(target).json()["document"].clone();
        let written = stage.put(target, &document);
        assert_eq!(written.status, 200, "{target}: {written}");
    }
    let config = stage.get("/api/v1/config").json();
    assert_eq!(config["policies"]["off"]["mode"], "off");
}

#[test]
fn lists_merge_rows_with_the_file_and_come_in_pieces() {
    let stage = Stage::new();
    for name in ["a", "c", "filed", "zz"] {
        assert!(
            stage
                .put(&format!("/api/v1/policies/{name}"), &policy(5))
                .status
                < 300
        );
    }
    let mut found = Vec::new();
    let mut target = "/api/v1/policies?limit=2".to_owned();
    loop {
        let piece = stage.get(&target);
        assert_eq!(piece.status, 200, "{piece}");
        for item in piece.json()["items"].as_array().unwrap() {
            found.push(format!("{}:{}", item["name"], item["source"]).replace('"', ""));
        }
        match piece.header("Link") {
            Some(link) => target = link[1..link.find('>').unwrap()].to_owned(),
            None => break,
        }
    }
    let all = [
        "a:database",
        "c:database",
        "filed:database",
        "off:file",
        "zz:database",
    ];
    assert_eq!(found, all);
}

#[test]
fn an_invalid_document_is_refused_with_every_reason_and_nothing_is_written() {
    let stage = Stage::new();
    let mut wrong = policy(0);
    wrong["algorithm"] = json!("token_buckt");
    wrong["tiers"] = json!({ "gold": { "count": 1, "period": "1s" } });
    wrong["nonsense"] = json!(1);
    let refused = stage.put("/api/v1/policies/wrong", &wrong);
    is_problem(&refused, 422);
    let body = refused.json();
    let paths: Vec<&str> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["path"].as_str().unwrap())
        .collect();
    for path in ["algorithm", "quota.count", "tiers.gold", "nonsense"] {
        assert!(paths.contains(&path), "{path} is not in {body}");
    }
    is_problem(&stage.get("/api/v1/policies/wrong"), 404);
    for (target, document) in [
        (
            "/api/v1/policies/routed",
            json!({ "routes": ["nowhere"], "key": ["ip"], "algorithm": "concurrency", "quota": { "count": 1 } }),
        ),
        ("/api/v1/clients/someone", json!({ "tier": "gold" })),
        (
            "/api/v1/clients/someone",
            json!({ "api_keys": [{ "plain": "x" }] }),
        ),
        ("/api/v1/clients/someone", json!({ "name": "x" })),
        ("/api/v1/tiers/gold", json!({ "count": 5 })),
        ("/api/v1/tiers/gold", json!([])),
        ("/api/v1/tiers/gold", json!(null)),
        ("/api/v1/tiers/UPPER", json!({})),
        (
            "/api/v1/routes/app/settings",
            json!({ "upstream": "nowhere" }),
        ),
        ("/api/v1/routes/app/settings", json!({ "cost": -1 })),
    ] {
        let refused = stage.put(target, &document);
        assert!(
            matches!(refused.status, 404 | 422),
            "{target} {document}: {refused}"
        );
    }
    is_problem(
        &stage.put("/api/v1/routes/nowhere/settings", &json!({})),
        404,
    );
    assert_eq!(stage.get("/api/v1/revisions").json()["items"], json!([]));
}

#[test]
fn a_policy_may_name_a_tier_that_was_written_a_moment_ago_and_keeps_it_from_going() {
    let stage = Stage::new();
    let mut tiered = policy(5);
    tiered["tiers"] = json!({ "gold": { "count": 9, "period": "1h" } });
    assert_eq!(stage.put("/api/v1/tiers/gold", &json!({})).status, 201);
    let written = stage.put("/api/v1/policies/tiered", &tiered);
    assert_eq!(written.status, 201, "{written}");
    let refused = stage.delete("/api/v1/tiers/gold");
    is_problem(&refused, 409);
    assert_eq!(
        refused.json()["errors"][0]["path"],
        "policies.tiered.tiers.gold"
    );
    assert_eq!(stage.delete("/api/v1/policies/tiered").status, 204);
    let deleted = stage.delete("/api/v1/tiers/gold");
    assert_eq!(deleted.status, 204, "{deleted}");
}

#[test]
fn a_route_pauses_and_goes_on() {
    let stage = Stage::new();
    let paused = stage.put(
        "/api/v1/routes/docs/settings",
        &json!({ "maintenance": true }),
    );
    assert_eq!(paused.status, 200, "{paused}");
    waiting::until("it pauses", || stage.gateway.get("/docs").status == 503);
    assert_eq!(stage.gateway.get("/").status, 200);
    let said = stage
        .post("/api/v1/explain", &json!({ "url": "http://h/docs" }))
        .json();
    assert_eq!(said["outcome"]["status"], 503, "{said}");
    let answered = stage.gateway.get("/docs").number("Retry-After");
    assert_eq!(said["outcome"]["retry_after"], answered, "{said}");
    assert_eq!(stage.delete("/api/v1/routes/docs/settings").status, 204);
    waiting::until("it goes on", || stage.gateway.get("/docs").status == 200);
}

#[test]
fn of_many_writers_that_know_the_same_version_exactly_one_wins() {
    let stage = Stage::new();
    let first = etag(&stage.put("/api/v1/policies/shared", &policy(1)));
    let writers = 8;
    for (condition, target) in [
        (("If-Match", first.as_str()), "/api/v1/policies/shared"),
        (("If-None-Match", "*"), "/api/v1/policies/fresh"),
    ] {
        let barrier = Barrier::new(writers);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let write = |count: u64| {
                let (stage, barrier) = (&stage, &barrier);
                move || {
                    barrier.wait();
                    stage.put_with(target, &policy(count), &[condition]).status
                }
            };
            let threads: Vec<_> = (0..writers as u64)
                .map(|n| scope.spawn(write(n + 10)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let won = statuses.iter().filter(|status| **status < 300).count();
        let lost = statuses.iter().filter(|status| **status == 412).count();
        assert_eq!((won, lost), (1, writers - 1), "{statuses:?}");
    }
    let stale = stage.put_with(
        "/api/v1/policies/shared",
        &policy(2),
        &[("If-Match", &first)],
    );
    is_problem(&stale, 412);
    let now = etag(&stage.get("/api/v1/policies/shared"));
    assert_eq!(etag(&stale), now, "the refusal says which version is there");
    let bad = stage.put_with(
        "/api/v1/policies/shared",
        &policy(2),
        &[("If-Match", "unquoted")],
    );
    is_problem(&bad, 400);
    let absent = stage.put_with("/api/v1/policies/absent", &policy(2), &[("If-Match", "*")]);
    is_problem(&absent, 412);
    let filed = stage.put_with(
        "/api/v1/policies/filed",
        &policy(2),
        &[("If-None-Match", "*")],
    );
    is_problem(&filed, 412);
    let filed = etag(&stage.get("/api/v1/policies/filed"));
    let written = stage.put_with(
        "/api/v1/policies/filed",
        &policy(2),
        &[("If-Match", &filed)],
    );
    assert_eq!(written.status, 200, "{written}");
}

#[test]
fn revisions_say_who_changed_what_and_take_it_back() {
    let stage = Stage::new();
    let actor = [("X-Tidegate-Actor", "alice@example.com")];
    stage.put_with("/api/v1/policies/p", &policy(1), &actor);
    stage.put("/api/v1/policies/p", &policy(2));
    stage.delete("/api/v1/policies/p");
    let revisions = stage.get("/api/v1/revisions").json();
    let items = revisions["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(items[2]["by"], "alice@example.com");
    assert_eq!(items[1]["by"], "admin 127.0.0.1");
    assert_eq!(items[1]["before"], policy(1));
    assert_eq!(items[1]["after"], policy(2));
    assert_eq!(items[0]["after"], Value::Null);
    let id = |n: usize| items[n]["id"].as_i64().unwrap();
    assert_eq!(
        stage.get(&format!("/api/v1/revisions/{}", id(1))).json(),
        items[1]
    );

    let undeleted = stage.post(
        &format!("/api/v1/revisions/{}/rollback", id(0)),
        &json!(null),
    );
    assert_eq!(undeleted.status, 200, "{undeleted}");
    assert_eq!(undeleted.json()["document"], policy(2));
    assert_eq!(
        stage.get("/api/v1/policies/p").json()["document"],
        policy(2)
    );
    let newest = stage.get("/api/v1/revisions?limit=1");
    assert_eq!(newest.json()["items"][0]["rolled_back_from"], id(0));
    assert!(
        newest.header("Link").unwrap().contains("before="),
        "{newest}"
    );
    let unmade = stage.post(
        &format!("/api/v1/revisions/{}/rollback", id(2)),
        &json!(null),
    );
    assert_eq!(unmade.status, 200, "{unmade}");
    is_problem(&stage.get("/api/v1/policies/p"), 404);
    let again = stage.post(
        &format!("/api/v1/revisions/{}/rollback", id(2)),
        &json!(null),
    );
    is_problem(&again, 409);
    is_problem(
        &stage.post("/api/v1/revisions/999999/rollback", &json!(null)),
        404,
    );
    is_problem(&stage.get("/api/v1/revisions/9223372036854775807"), 404);
    is_problem(&stage.get("/api/v1/revisions/9223372036854775808"), 404);
}

#[test]
fn a_revision_is_not_taken_back_where_the_whole_would_not_stand() {
    let stage = Stage::new();
    stage.put("/api/v1/tiers/gold", &json!({}));
    let mut tiered = policy(5);
    tiered["tiers"] = json!({ "gold": { "count": 9, "period": "1h" } });
    stage.put("/api/v1/policies/tiered", &tiered);
    stage.put("/api/v1/policies/tiered", &policy(5));
    assert_eq!(stage.delete("/api/v1/tiers/gold").status, 204);
    let revisions = stage.get("/api/v1/revisions").json();
    let change = revisions["items"][1]["id"].as_i64().unwrap();
    let refused = stage.post(
        &format!("/api/v1/revisions/{change}/rollback"),
        &json!(null),
    );
    is_problem(&refused, 422);
    assert_eq!(refused.json()["errors"][0]["path"], "tiers.gold");
}

#[test]
fn while_the_database_is_away_everything_says_503_and_then_goes_on() {
    let mut stage = Stage::new();
    stage.put("/api/v1/policies/p", &policy(3));
    stage.server.stop();
    for (method, target) in [
        ("GET", "/api/v1/policies"),
        ("GET", "/api/v1/policies/p"),
        ("PUT", "/api/v1/policies/p"),
        ("DELETE", "/api/v1/policies/p"),
        ("GET", "/api/v1/revisions"),
        ("POST", "/api/v1/clients/filer/keys"),
    ] {
        let document = if target.ends_with("keys") {
            json!({})
        } else {
            policy(4)
        };
        let body = document.to_string();
        let refused = super::api::send(&stage.gateway, method, target, &[], body.as_bytes());
        is_problem(&refused, 503);
        assert_eq!(refused.number("Retry-After"), 1);
    }
    assert_eq!(stage.get("/api/v1/config").status, 200);
    assert_eq!(
        stage
            .post("/api/v1/explain", &json!({ "url": "http://h/" }))
            .status,
        200
    );
    assert_eq!(stage.gateway.get("/").status, 200);
    stage.server.start_again();
    waiting::until("it is read again", || {
        stage.get("/api/v1/policies/p").status == 200
    });
    waiting::until("it is written again", || {
        stage.put("/api/v1/policies/p", &policy(5)).status == 200
    });
}
