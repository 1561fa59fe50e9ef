//! Keys and clients on demand: asked for once, remembered, stale rather than nothing, revoked at once.

use super::PostgresServer;
use super::scene::{SHORT, Scene, now_us};
use crate::waiting::{self, timed};
use serde_json::json;
use std::time::Duration;
use tidegate::database::{Expected, Kind, NewKey, Recalled, Unavailable};

const SECOND: Duration = Duration::from_secs(1);

fn impatient() -> Scene {
    let scene = Scene::on(PostgresServer::start(), |settings| settings.timeout = SHORT);
    scene.start();
    scene
}

fn look_ups(scene: &Scene) -> u64 {
    scene.metrics.database.look_ups.get()
}

#[test]
fn a_key_is_asked_for_once_and_then_known() {
    let scene = Scene::started();
    let (id, digest) = scene.key_of("acme");
    let directory = scene.database.directory();
    assert_eq!(directory.recall_key(&digest, now_us()), Recalled::Unknown);
    let before = look_ups(&scene);
    for _ in 0..3 {
        let found = scene
            .run(directory.find_key(digest, now_us()))
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.id.as_str(), found.client.as_str()),
            (id.as_str(), "acme")
        );
        assert_eq!(found.tier.as_deref(), Some("pro"));
    }
    assert!(matches!(
        directory.recall_key(&digest, now_us()),
        Recalled::Known(_)
    ));
    assert_eq!(look_ups(&scene), before + 1);
    let client = scene
        .run(directory.find_client("acme", now_us()))
        .unwrap()
        .unwrap();
    assert_eq!(client.tier.as_deref(), Some("pro"));
    assert!(matches!(
        directory.recall_client("acme", now_us()),
        Recalled::Known(_)
    ));
}

#[test]
fn what_does_not_exist_is_remembered_too_until_it_does() {
    let scene = Scene::started();
    let directory = scene.database.directory();
    let before = look_ups(&scene);
    for _ in 0..3 {
        assert_eq!(scene.client_of(&[7; 32]), Ok(None));
        assert_eq!(scene.run(directory.find_client("late", now_us())), Ok(None));
    }
    assert_eq!(look_ups(&scene), before + 2);
    assert_eq!(directory.recall_key(&[7; 32], now_us()), Recalled::Absent);
    scene.put(Kind::Client, "late", &json!({}));
    let insert = "INSERT INTO api_keys (id, sha256, client) \
                  VALUES ('late', decode(repeat('07', 32), 'hex'), 'late')";
    let ((), took) = timed(|| {
        scene.server.sql(insert);
        waiting::until("the new key is known", || {
            scene.client_of(&[7; 32]) == Ok(Some("late".to_owned()))
        });
        // heard of before the key, yet asked for again after it where one message told of both
        waiting::until("the new client is known", || {
            let found = scene.run(directory.find_client("late", now_us()));
            found.unwrap().is_some()
        });
    });
    assert!(took < SECOND, "{took:?}");
}

#[test]
fn many_who_want_one_key_at_once_are_one_query() {
    const KEYS: u64 = 50;
    let scene = Scene::started();
    let (_, first) = scene.key_of("acme");
    let others = (1..KEYS).map(|_| scene.another_key_of("acme").1);
    let digests: Vec<_> = std::iter::once(first).chain(others).collect();
    scene.until_quiet();
    let before = look_ups(&scene);
    for digest in digests {
        let all: Vec<_> = (0..500)
            .map(|_| {
                let directory = scene.database.directory().clone();
                scene
                    .runtime
                    .spawn(async move { directory.find_key(digest, now_us()).await })
            })
            .collect();
        for one in all {
            assert!(scene.run(one).unwrap().unwrap().is_some());
        }
    }
    assert_eq!(look_ups(&scene), before + KEYS);
}

#[test]
fn whoever_stops_waiting_does_not_keep_the_others_from_the_answer() {
    let scene = Scene::started();
    let (_, digest) = scene.key_of("acme");
    let directory = scene.database.directory();
    scene.run(async {
        tokio::select! {
            biased;
            _ = directory.find_key(digest, now_us()) => panic!("it did not have to wait"),
            () = std::future::ready(()) => (),
        }
    });
    assert_eq!(scene.client_of(&digest), Ok(Some("acme".to_owned())));
}

#[test]
fn a_revoked_key_is_refused_within_a_second() {
    let scene = Scene::started();
    let (id, digest) = scene.key_of("acme");
    assert_eq!(scene.client_of(&digest), Ok(Some("acme".to_owned())));
    let ((), took) = timed(|| {
        scene.run(scene.database.revoke_key(&id, "test")).unwrap();
        waiting::until("the key is refused", || {
            scene.client_of(&digest) == Ok(None)
        });
    });
    assert!(took < SECOND, "{took:?}");
    let again = scene.run(scene.database.revoke_key(&id, "test")).unwrap();
    assert!(again.revoked_at.is_some());
}

#[test]
fn a_client_that_changes_takes_its_keys_along_and_so_does_one_that_goes() {
    let scene = Scene::started();
    let (_, digest) = scene.key_of("acme");
    let directory = scene.database.directory();
    let tier = || {
        let found = scene.run(directory.find_key(digest, now_us())).unwrap();
        found.and_then(|key| key.tier.clone())
    };
    assert_eq!(tier().as_deref(), Some("pro"));
    scene.put(Kind::Client, "acme", &json!({ "tier": "free" }));
    waiting::until("the key has the new tier", || {
        tier().as_deref() == Some("free")
    });
    scene
        .run(
            scene
                .database
                .delete(Kind::Client, "acme", "test", Expected::Any),
        )
        .unwrap();
    waiting::until("the key is refused", || {
        scene.client_of(&digest) == Ok(None)
    });
    // a client of the same name that comes later has nothing to do with it
    scene.put(Kind::Client, "acme", &json!({}));
    assert_eq!(scene.client_of(&digest), Ok(None));
}

#[test]
fn a_key_that_expires_needs_nobody_to_say_so() {
    let scene = Scene::started();
    scene.put(Kind::Client, "acme", &json!({}));
    let end_us = now_us() + 3_600_000_000;
    let new = NewKey {
        client: "acme".to_owned(),
        expires_at_us: Some(end_us),
        ..NewKey::default()
    };
    let made = scene.run(scene.database.create_key(&new, "test")).unwrap();
    let digest = tidegate::database::generated_key::digest(made.text.as_bytes());
    let directory = scene.database.directory();
    let find = |now_us| {
        scene
            .run(directory.find_key(digest, now_us))
            .unwrap()
            .is_some()
    };
    assert!(find(end_us - 1) && !find(end_us) && find(end_us - 1));
    assert_eq!(directory.recall_key(&digest, end_us), Recalled::Absent);
}

#[test]
fn while_postgres_is_frozen_what_was_known_goes_on_and_nobody_waits_for_long() {
    let scene = impatient();
    let (_, known) = scene.key_of("acme");
    let (_, other) = scene.another_key_of("acme");
    assert!(scene.client_of(&known).unwrap().is_some());
    assert_eq!(scene.client_of(&[9; 32]), Ok(None));
    scene.until_quiet();
    scene.server.freeze();
    let (unknown, took) = timed(|| scene.client_of(&other));
    assert_eq!(unknown, Err(Unavailable::Away.to_string()));
    assert!(took < SHORT + SECOND, "{took:?}");
    let (rows, took) = timed(|| scene.run(scene.database.rows()));
    assert!(rows.is_err() && took < SHORT * 3 + SECOND, "{took:?}");
    scene.wait_for_outage();
    let (answers, took) =
        timed(|| [&known, &[9; 32], &other].map(|digest| scene.client_of(digest).ok()));
    assert_eq!(answers, [Some(Some("acme".to_owned())), Some(None), None]);
    assert!(
        took < SHORT,
        "nobody waits once it is known to be away: {took:?}"
    );
    let (rows, took) = timed(|| scene.run(scene.database.rows()));
    assert!(rows.is_err() && took < SHORT, "{took:?}");
    scene.server.thaw();
    waiting::until("the other key is found", || scene.client_of(&other).is_ok());
    assert!(scene.client_of(&other).unwrap().is_some());
}

#[test]
fn stale_answers_are_given_up_when_postgres_is_back() {
    let mut scene = impatient();
    let (id, digest) = scene.key_of("acme");
    assert!(scene.client_of(&digest).unwrap().is_some());
    scene.until_quiet();
    // nobody is told, as of what happens before a gateway is back
    scene.server.sql(&format!(
        "SET session_replication_role = replica; UPDATE api_keys SET revoked_at = now() WHERE id = '{id}'"
    ));
    scene.server.stop();
    scene.wait_for_outage();
    assert!(scene.client_of(&digest).unwrap().is_some());
    scene.server.start_again();
    waiting::until("the key is refused", || {
        scene.client_of(&digest) == Ok(None)
    });
}

#[test]
fn cut_connections_fail_no_look_up() {
    let scene = Scene::started();
    let digests: Vec<_> = std::iter::once(scene.key_of("acme"))
        .chain((0..20).map(|_| scene.another_key_of("acme")))
        .map(|(_, digest)| digest)
        .collect();
    for (round, digest) in digests.iter().enumerate() {
        if round % 4 == 0 {
            assert!(scene.server.cut_connections() > 0);
        }
        assert_eq!(
            scene.client_of(digest),
            Ok(Some("acme".to_owned())),
            "{round}"
        );
    }
}

#[test]
fn a_connection_that_somebody_elses_runtime_wanted_does_not_stand_still_with_it() {
    let scene = Scene::on(PostgresServer::start(), |settings| {
        settings.pool = 1;
        settings.timeout = SHORT;
    });
    let (_, digest) = scene.key_of("acme");
    scene.start();
    scene.server.cut_connections();
    scene.wait_for(&tidegate::database::Health::Connected);
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    waiting::until("the other one has made a connection", || {
        other.block_on(scene.database.rows()).is_ok()
    });
    // its only thread does nothing any more
    assert_eq!(scene.client_of(&digest), Ok(Some("acme".to_owned())));
    drop(other);
    assert!(scene.run(scene.database.rows()).is_ok());
}

#[test]
fn no_more_than_so_many_look_ups_are_under_way_and_memory_is_bounded() {
    let scene = Scene::on(PostgresServer::start(), |settings| {
        settings.max_cached = 50;
        settings.timeout = waiting::DEADLINE;
    });
    scene.start();
    let expired = || scene.metrics.database.expired_all.get();
    let before = expired();
    scene.server.sql(
        "INSERT INTO api_keys (id, sha256, client) \
         SELECT 'k' || n, sha256(n::text::bytea), 'c' || n FROM generate_series(1, 2000) AS n",
    );
    waiting::until("the keys are noticed", || expired() > before);
    let directory = scene.database.directory();
    let find = |digest: [u8; 32]| {
        let directory = directory.clone();
        scene
            .runtime
            .spawn(async move { directory.find_key(digest, now_us()).await })
    };
    for n in 1..=200 {
        let digest = tidegate::database::generated_key::digest(n.to_string().as_bytes());
        assert!(scene.run(find(digest)).unwrap().unwrap().is_some(), "{n}");
        assert_eq!(scene.run(find([n; 32])).unwrap(), Ok(None));
    }
    waiting::until("the gauges follow", || {
        scene.metrics.database.absent.get() > 0
    });
    assert!(scene.metrics.database.known.get() <= 50);
    assert!(scene.metrics.database.absent.get() <= 50);
    let known = tidegate::database::generated_key::digest(b"200");
    assert!(scene.client_of(&known).unwrap().is_some());
    let before = expired();
    // held up by a lock until all have asked, the first 64 wait, the others do not
    let locked = std::thread::scope(|threads| {
        // the lock is in line behind the change, so that nobody reads between the two
        threads.spawn(|| {
            scene.server.sql(
                "BEGIN; UPDATE api_keys SET scopes = '{a}'; \
                 DO $$ BEGIN FOR i IN 1..400 LOOP PERFORM pg_sleep(0.05); \
                 EXIT WHEN EXISTS (SELECT FROM pg_locks \
                 WHERE mode = 'AccessExclusiveLock' AND NOT granted); \
                 END LOOP; END $$; COMMIT",
            )
        });
        let held = |mode: &str| {
            let locks = "SELECT count(*) FROM pg_locks WHERE granted \
                         AND relation = 'api_keys'::regclass AND mode = ";
            scene.server.sql(&format!("{locks}'{mode}'")) != "0"
        };
        waiting::until("the change is made", || held("RowExclusiveLock"));
        threads.spawn(|| {
            scene.server.sql(
                "BEGIN; LOCK api_keys; \
                 DO $$ BEGIN FOR i IN 1..400 LOOP PERFORM pg_sleep(0.05); \
                 EXIT WHEN EXISTS (SELECT FROM pg_class WHERE relname = 'asked'); \
                 END LOOP; END $$; COMMIT",
            )
        });
        waiting::until("the table is locked", || held("AccessExclusiveLock"));
        waiting::until("the change is noticed", || expired() > before);
        let all: Vec<_> = (0..200_u8)
            .map(|n| find([n, 1].repeat(16).try_into().unwrap()))
            .collect();
        // all of them have begun to wait, or were refused
        let last = scene.run(find([255; 32])).unwrap();
        assert_eq!(last, Err(Unavailable::TooMany));
        // whatever was known of it before so many changed: it may be one that was revoked
        let answer = scene.run(find(known)).unwrap();
        assert_eq!(answer, Err(Unavailable::TooMany));
        scene.server.sql("CREATE TABLE asked ()");
        let answers = all.into_iter().map(|one| scene.run(one).unwrap());
        answers.collect::<Vec<_>>()
    });
    let refused = locked
        .iter()
        .filter(|answer| **answer == Err(Unavailable::TooMany))
        .count();
    assert_eq!(refused, 200 - 64);
    assert_eq!(
        locked.iter().filter(|answer| **answer == Ok(None)).count(),
        64
    );
}
