//! Those who write at the same moment: what one was judged by is not changed by the other.

use super::api::is_problem;
use super::stage::Stage;
use crate::waiting;
use serde_json::{Value, json};

fn tiered() -> Value {
    json!({ "key": ["client"], "algorithm": "fixed_window", "quota": { "count": 5, "period": "1h" },
            "tiers": { "gold": { "count": 9, "period": "1h" } } })
}

#[test]
fn a_tier_does_not_go_in_the_moment_in_which_a_policy_names_it() {
    let stage = Stage::new();
    let other = stage.neighbour();
    let mut outcomes = (0, 0);
    for round in 0..4 {
        assert!(stage.put("/api/v1/tiers/gold", &json!({})).status < 300);
        let [named, gone] = std::thread::scope(|threads| {
            threads.spawn(|| {
                stage.server.sql(
                    "BEGIN; LOCK TABLE revisions IN EXCLUSIVE MODE; SELECT pg_sleep(1); COMMIT",
                )
            });
            waiting::until("nobody can write", || {
                let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'revisions'::regclass";
                stage.server.sql(locks) == "1"
            });
            // both are judged while neither has been written
            let named = threads.spawn(|| stage.put("/api/v1/policies/tiered", &tiered()));
            let gone = threads.spawn(|| other.delete("/api/v1/tiers/gold"));
            [named, gone].map(|one| one.join().unwrap())
        });
        match (named.status, gone.status) {
            (200 | 201, _) => {
                is_problem(&gone, 409);
                outcomes.0 += 1;
            }
            _ => {
                assert_eq!(gone.status, 204, "{round}: {gone}");
                is_problem(&named, 422);
                assert_eq!(named.json()["errors"][0]["path"], "tiers.gold");
                outcomes.1 += 1;
            }
        }
        stage.delete("/api/v1/policies/tiered");
        stage.delete("/api/v1/tiers/gold");
    }
    assert_eq!(outcomes.0 + outcomes.1, 4);
}

#[test]
fn many_who_write_different_things_at_once_all_come_through() {
    let stage = Stage::new();
    let other = stage.neighbour();
    let written = std::thread::scope(|threads| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (stage, other) = (&stage, &other);
                threads.spawn(move || {
                    let target = format!("/api/v1/tiers/t{n}");
                    match n {
                        0 => other.put(&target, &json!({})),
                        _ => stage.put(&target, &json!({})),
                    }
                })
            })
            .collect();
        let answers = writers.into_iter().map(|one| one.join().unwrap());
        answers.collect::<Vec<_>>()
    });
    for answer in &written {
        assert_eq!(answer.status, 201, "{answer}");
    }
    let revisions = stage.get("/api/v1/revisions").json();
    assert_eq!(revisions["items"].as_array().unwrap().len(), 8);
}

#[test]
fn whoever_knows_an_old_version_is_told_that_first() {
    let stage = Stage::new();
    let mut policy = tiered();
    policy["tiers"] = json!({ "free": { "count": 9, "period": "1h" } });
    let put = stage.put("/api/v1/policies/p", &policy);
    assert_eq!(put.status, 201, "{put}");
    let stale = [("If-Match", "\"0123\"")];
    // not valid either: there is no such tier
    is_problem(
        &stage.put_with("/api/v1/policies/p", &tiered(), &stale),
        412,
    );
    is_problem(&stage.put("/api/v1/policies/p", &tiered()), 422);
}

#[test]
fn a_rollback_takes_the_version_that_is_shown_of_the_file() {
    let stage = Stage::new();
    let mut filed = tiered();
    filed["tiers"] = json!({ "free": { "count": 9, "period": "1h" } });
    let put = stage.put("/api/v1/policies/filed", &filed);
    assert_eq!(put.status, 200, "{put}");
    assert_eq!(stage.delete("/api/v1/policies/filed").status, 204);
    let revisions = stage.get("/api/v1/revisions").json();
    let deleted = revisions["items"][0]["id"].as_i64().unwrap();
    let shown = stage.get("/api/v1/policies/filed");
    assert_eq!(shown.json()["source"], "file");
    let etag = shown.header("ETag").unwrap();
    let target = format!("/api/v1/revisions/{deleted}/rollback");
    is_problem(&stage.post_with(&target, &[("If-Match", "\"0123\"")]), 412);
    let back = stage.post_with(&target, &[("If-Match", etag)]);
    assert_eq!(back.status, 200, "{back}");
    assert_eq!(back.json()["document"], filed);
}
