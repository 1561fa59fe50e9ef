//! Changes are followed: told, found by looking, whoever makes them and whatever is cut.

use super::scene::Scene;
use crate::waiting::{self, timed};
use serde_json::json;
use std::time::Duration;
use tidegate::database::{Expected, Health, Kind};

const SECOND: Duration = Duration::from_secs(1);

/// How long it takes until `changed` says so.
fn noticed(scene: &Scene, act: impl FnOnce()) -> Duration {
    let changed = scene.database.changed();
    let before = *changed.borrow();
    act();
    timed(|| waiting::until("it is noticed", || *changed.borrow() > before)).1
}

/// So many bumps until it has been still for a while.
fn settled(scene: &Scene) -> u64 {
    let changed = scene.database.changed();
    loop {
        let before = *changed.borrow();
        waiting::pause(SECOND);
        if *changed.borrow() == before {
            return before;
        }
    }
}

#[test]
fn every_table_of_the_snapshot_is_followed_whoever_writes() {
    let scene = Scene::started();
    let policy = json!({ "key": ["ip"], "algorithm": "token_bucket", "quota": { "count": 1, "period": "1s" } });
    let took = noticed(&scene, || scene.put(Kind::Policy, "p", &policy));
    assert!(took < SECOND, "{took:?}");
    for sql in [
        "INSERT INTO tiers (name) VALUES ('pro')",
        "UPDATE policies SET status = 503",
        "INSERT INTO policy_tiers VALUES ('p', 'pro', '{\"count\": 2}')",
        "INSERT INTO policy_overrides VALUES ('p', 'acme', '{\"count\": 2}')",
        "INSERT INTO route_settings (route, maintenance) VALUES ('r', true)",
        "TRUNCATE route_settings",
        "DELETE FROM policies",
    ] {
        let took = noticed(&scene, || drop(scene.server.sql(sql)));
        assert!(took < SECOND, "{sql}: {took:?}");
    }
}

#[test]
fn a_lost_notification_is_made_up_for_within_a_second() {
    let scene = Scene::started();
    // whatever tells of changes tells nobody
    scene.server.sql(
        "CREATE OR REPLACE FUNCTION tidegate_note_rows() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO changes (kind) VALUES (''rows''); RETURN NULL; END'",
    );
    for _ in 0..3 {
        let took = noticed(&scene, || {
            drop(scene.server.sql("UPDATE tiers SET name = name"))
        });
        assert!(took < SECOND, "{took:?}");
    }
}

#[test]
fn a_change_that_is_long_under_way_is_noticed_when_it_is_made_and_once() {
    let scene = Scene::started();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            scene.server.sql(
                "BEGIN; INSERT INTO tiers (name) VALUES ('slow'); SELECT pg_sleep(2.5); COMMIT",
            )
        });
        waiting::until("it is under way", || {
            scene.server.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2%' AND state = 'active' AND pid <> pg_backend_pid()") == "1"
        });
        // a quick one overtakes it
        let took = noticed(&scene, || {
            drop(
                scene
                    .server
                    .sql("INSERT INTO tiers (name) VALUES ('quick')"),
            )
        });
        assert!(took < SECOND, "{took:?}");
        let before = *scene.database.changed().borrow();
        waiting::until("the slow one is noticed", || {
            *scene.database.changed().borrow() > before
        });
        assert!(scene.server.sql("SELECT count(*) FROM tiers") == "2");
    });
    let after = settled(&scene);
    waiting::pause(SECOND);
    assert_eq!(
        *scene.database.changed().borrow(),
        after,
        "nothing is told twice"
    );
}

#[test]
fn a_cut_connection_is_made_again_and_nothing_is_missed() {
    let scene = Scene::started();
    for name in ["a", "b", "c"] {
        let took = noticed(&scene, || {
            assert!(scene.server.cut_connections() > 0);
            let insert = format!("INSERT INTO tiers (name) VALUES ('{name}')");
            scene.server.sql(&insert);
        });
        assert!(took < SECOND, "{took:?}");
        waiting::until("the rows are read", || {
            let rows = scene.run(scene.database.rows());
            rows.is_ok_and(|rows| rows.tiers.iter().any(|tier| tier == name))
        });
    }
    assert_eq!(
        scene.database.health(),
        Health::Connected,
        "a cut is no outage"
    );
}

#[test]
fn after_a_restart_everything_is_followed_again() {
    let mut scene = Scene::started();
    scene.server.stop();
    scene.wait_for_outage();
    assert!(scene.run(scene.database.rows()).is_err());
    let before = *scene.database.changed().borrow();
    scene.server.start_again();
    let ((), took) = timed(|| scene.wait_for(&Health::Connected));
    assert!(took < SECOND * 2, "{took:?}");
    waiting::until("who follows is told to look", || {
        *scene.database.changed().borrow() > before
    });
    let took = noticed(&scene, || scene.put(Kind::Tier, "pro", &json!({})));
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn a_start_without_postgres_becomes_one_with_it() {
    let mut scene = Scene::new();
    scene.server.stop();
    {
        let _entered = scene.runtime.enter();
        scene.database.start();
    }
    scene.wait_for_outage();
    let put = json!({});
    let error = scene.run(
        scene
            .database
            .put(Kind::Tier, "a", &put, "test", Expected::Any),
    );
    assert!(error.unwrap_err().to_string().contains("unavailable"));
    scene.server.start_again();
    scene.wait_for(&Health::Connected);
    scene.put(Kind::Tier, "a", &put);
}

#[test]
fn loading_very_many_keys_is_one_change() {
    let scene = Scene::started();
    let (_, digest) = scene.key_of("acme");
    assert!(scene.client_of(&digest).unwrap().is_some());
    assert_eq!(
        scene.client_of(&tidegate::database::generated_key::digest(b"77")),
        Ok(None)
    );
    scene.server.sql("DELETE FROM changes");
    scene.server.sql(
        "INSERT INTO api_keys (id, sha256, client) \
         SELECT 'k' || n, sha256(n::text::bytea), 'acme' FROM generate_series(1, 50000) AS n",
    );
    assert_eq!(
        scene.server.sql("SELECT kind, subject FROM changes"),
        "key|"
    );
    waiting::until("what did not exist is known", || {
        let digest = tidegate::database::generated_key::digest(b"77");
        scene.client_of(&digest) == Ok(Some("acme".to_owned()))
    });
    scene.server.sql("UPDATE api_keys SET revoked_at = now()");
    waiting::until("every key is refused", || {
        scene.client_of(&digest) == Ok(None)
    });
}
