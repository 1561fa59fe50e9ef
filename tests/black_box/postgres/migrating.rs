//! The schema: from nothing, again, at once by two, older and newer than wanted.

use super::PostgresServer;
use super::scene::Scene;
use crate::waiting;
use std::time::Duration;
use tidegate::database::{DatabaseError, Health, SchemaVersion};

#[test]
fn from_nothing_to_the_schema_and_the_second_time_nothing() {
    let scene = Scene::empty(PostgresServer::start(), |_| ());
    let first = scene.run(scene.database.migrate()).unwrap();
    assert_eq!((first.from, first.to), (0, 1));
    assert_eq!(first.applied, ["V1__policies_clients_keys"]);
    let second = scene.run(scene.database.migrate()).unwrap();
    assert_eq!((second.from, second.to, second.applied), (1, 1, vec![]));
}

#[test]
fn migrations_at_once_wait_for_each_other() {
    let scene = Scene::empty(PostgresServer::start(), |_| ());
    let all = [(); 6].map(|()| {
        let database = scene.database.clone();
        scene.runtime.spawn(async move { database.migrate().await })
    });
    let applied = all.map(|one| scene.run(one).unwrap().unwrap().applied.len());
    assert_eq!(applied.iter().sum::<usize>(), 1);
}

#[test]
fn a_migration_that_somebody_holds_up_says_so_and_changes_nothing() {
    let scene = Scene::empty(PostgresServer::start(), |settings| {
        settings.timeout = Duration::from_millis(300);
    });
    let error = std::thread::scope(|threads| {
        threads.spawn(|| {
            scene
                .server
                .sql("BEGIN; CREATE TABLE tiers (a int); SELECT pg_sleep(6); ROLLBACK")
        });
        waiting::until("the name is taken", || {
            let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            scene.server.sql(sleeping) == "1"
        });
        scene.run(scene.database.migrate()).unwrap_err()
    });
    assert!(error.to_string().contains("see pg_locks"), "{error}");
    let done = scene.run(scene.database.migrate()).unwrap();
    assert_eq!((done.from, done.to), (0, 1));
}

#[test]
fn pruning_deletes_what_is_old_and_looks_at_little_where_nothing_is() {
    let prune = include_str!("../../../sql/queries/prune_changes.sql");
    let scene = Scene::new();
    scene.server.sql(
        "INSERT INTO changes (at, kind) SELECT now() - interval '2 days', 'rows' FROM generate_series(1, 15000);
         INSERT INTO changes (kind) SELECT 'rows' FROM generate_series(1, 50000);
         ANALYZE changes",
    );
    let left = || scene.server.sql("SELECT count(*) FROM changes");
    for expected in ["55000", "50000", "50000"] {
        scene.server.sql(prune);
        assert_eq!(left(), expected);
    }
    scene.server.sql("ANALYZE changes");
    let plan = scene.server.sql(&format!("EXPLAIN {prune}"));
    let walks = "Seq Scan on changes";
    assert!(!plan.contains(walks), "{plan}");
}

#[test]
fn revisions_are_kept_as_long_as_asked_for_and_the_newest_whatever_its_age() {
    let with = |keep| {
        Scene::on(PostgresServer::start(), move |settings| {
            settings.keep_revisions = keep;
        })
    };
    let fill = |scene: &Scene| {
        scene.server.sql(
            "INSERT INTO revisions (at, by, kind, name, rolled_back_from)
             SELECT now() - interval '3 hours' + n * interval '1 second', 'test', 'tier', 'n' || n,
                    CASE WHEN n = 5001 THEN 1 END
             FROM generate_series(1, 5001) AS n",
        );
    };
    let left = |scene: &Scene| scene.server.sql("SELECT count(*), max(id) FROM revisions");
    let scene = with(None);
    fill(&scene);
    scene.run(scene.database.prune()).unwrap();
    assert_eq!(left(&scene), "5001|5001");
    let scene = with(Some(Duration::from_secs(2 * 3_600)));
    fill(&scene);
    scene.run(scene.database.prune()).unwrap();
    // 3,600 of them are older than two hours, give or take what the test has taken
    let counts = left(&scene);
    let count: u64 = counts.split('|').next().unwrap().parse().unwrap();
    assert!((1_300..=1_401).contains(&count), "{counts}");
    scene
        .server
        .sql("UPDATE revisions SET at = now() - interval '1 day'");
    scene.run(scene.database.prune()).unwrap();
    assert_eq!(left(&scene), "1|5001");
    let taken_back = "SELECT rolled_back_from IS NULL FROM revisions";
    assert_eq!(scene.server.sql(taken_back), "t");
}

#[test]
fn every_table_and_column_has_a_comment() {
    let scene = Scene::new();
    let without = scene.server.sql(
        "SELECT c.relname || coalesce('.' || a.attname, '')
         FROM pg_class AS c
         LEFT JOIN LATERAL (SELECT attname, attnum FROM pg_attribute
                            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                            UNION ALL SELECT NULL, 0) AS a ON true
         WHERE c.relkind IN ('r', 'v') AND c.relnamespace = 'public'::regnamespace
           AND coalesce(CASE a.attnum WHEN 0 THEN obj_description(c.oid, 'pg_class')
                             ELSE col_description(c.oid, a.attnum) END, '') = ''",
    );
    assert_eq!(without, "");
    let tables = scene
        .server
        .sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "10");
}

#[test]
fn without_a_schema_and_with_a_newer_one_everybody_is_told_what_to_do() {
    let scene = Scene::empty(PostgresServer::start(), |_| ());
    {
        let _entered = scene.runtime.enter();
        scene.database.start();
    }
    scene.wait_for(&Health::Schema(SchemaVersion {
        found: 0,
        needed: 1,
    }));
    let error = scene.run(scene.database.rows()).unwrap_err();
    assert!(
        error.to_string().contains("run `tidegate migrate`"),
        "{error}"
    );
    scene.run(scene.database.migrate()).unwrap();
    // noticed without a restart
    scene.wait_for(&Health::Connected);
    scene
        .server
        .sql("INSERT INTO schema_history VALUES (7, 'later', '2026-01-01T00:00:00Z', '1')");
    scene.wait_for(&Health::Schema(SchemaVersion {
        found: 7,
        needed: 1,
    }));
    for error in [
        scene.run(scene.database.rows()).map(|_| ()).unwrap_err(),
        scene.run(scene.database.migrate()).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, DatabaseError::Schema(_)));
        assert!(
            error.to_string().contains("newer version of tidegate"),
            "{error}"
        );
    }
}

#[test]
fn a_role_with_the_rights_of_the_documentation_in_a_schema_of_its_own_can_do_everything() {
    let server = PostgresServer::start();
    server.sql(
        "CREATE SCHEMA gate; CREATE ROLE owner LOGIN; GRANT ALL ON SCHEMA gate TO owner;
         ALTER ROLE owner SET search_path = gate; CREATE ROLE gateway LOGIN;
         ALTER ROLE gateway SET search_path = gate",
    );
    let as_role = |role: &str| {
        server
            .socket_url()
            .replace("user=tide", &format!("user={role}"))
    };
    let (owner, gateway) = (as_role("owner"), as_role("gateway"));
    let scene = Scene::on(server, |settings| settings.url = owner.clone());
    scene.server.sql(
        "GRANT USAGE ON SCHEMA gate TO gateway;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA gate TO gateway;
         REVOKE INSERT, UPDATE, DELETE ON gate.schema_history FROM gateway",
    );
    let mut settings = super::scene::settings(gateway);
    settings.max_cached = 10;
    let metrics = tidegate::telemetry::Metrics::new().unwrap().database;
    let database = tidegate::database::Database::new(&settings, metrics).unwrap();
    let scene = Scene { database, ..scene };
    scene.start();
    let (id, digest) = scene.key_of("acme");
    assert!(scene.client_of(&digest).unwrap().is_some());
    scene.run(scene.database.note_uses()).unwrap();
    scene.run(scene.database.revoke_key(&id, "test")).unwrap();
    crate::waiting::until("the key is refused", || {
        scene.client_of(&digest) == Ok(None)
    });
    assert_eq!(scene.run(scene.database.rows()).unwrap().revision, 3);
    assert_eq!(
        scene
            .server
            .sql("SELECT to_regclass('public.policies') IS NULL"),
        "t"
    );
    let nothing_to_do = scene.run(scene.database.migrate());
    assert!(nothing_to_do.is_ok(), "{nothing_to_do:?}");
}

#[test]
fn a_role_that_may_not_create_tables_is_told_what_it_takes() {
    let server = PostgresServer::start();
    server.sql(
        "CREATE SCHEMA bare; CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA bare TO guest;
         ALTER ROLE guest SET search_path = bare; CREATE ROLE nobody LOGIN;
         ALTER ROLE nobody SET search_path = nowhere",
    );
    let mut scene = Scene::empty(server, |_| ());
    for role in ["guest", "nobody"] {
        let url = scene
            .server
            .socket_url()
            .replace("user=tide", &format!("user={role}"));
        let metrics = tidegate::telemetry::Metrics::new().unwrap().database;
        scene.database =
            tidegate::database::Database::new(&super::scene::settings(url), metrics).unwrap();
        let error = scene.run(scene.database.migrate()).unwrap_err().to_string();
        assert!(error.contains("may create tables"), "{error}");
    }
}
