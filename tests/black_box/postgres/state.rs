//! What is known outlives the process: keys in a file, uses of keys in the database.

use super::PostgresServer;
use super::scene::{SHORT, Scene, now_us, settings};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tidegate::database::Database;
use tidegate::telemetry::Metrics;

fn state_dir(scene: &Scene) -> std::path::PathBuf {
    let folder = scene.server.folder().join("state");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Another process, as it were, with the same state.
fn successor(scene: &Scene, folder: std::path::PathBuf) -> Arc<Database> {
    let mut settings = settings(scene.server.url());
    settings.timeout = SHORT;
    settings.state_dir = Some(folder);
    let _entered = scene.runtime.enter();
    let database = Database::new(&settings, Metrics::new().unwrap().database).unwrap();
    database.start();
    database
}

fn client_of(scene: &Scene, database: &Database, digest: [u8; 32]) -> Result<bool, String> {
    let found = scene.run(database.directory().find_key(digest, now_us()));
    found
        .map(|found| found.is_some())
        .map_err(|error| error.to_string())
}

#[test]
fn a_start_without_postgres_knows_the_keys_of_the_last_run() {
    let server = PostgresServer::start();
    let folder = server.folder().join("state");
    std::fs::create_dir_all(&folder).unwrap();
    let mut scene = Scene::on(server, |settings| settings.state_dir = Some(folder.clone()));
    scene.start();
    let (_, known) = scene.key_of("acme");
    let (_, revoked) = scene.another_key_of("acme");
    let (_, never_seen) = scene.another_key_of("acme");
    for digest in [&known, &revoked] {
        assert!(scene.client_of(digest).unwrap().is_some());
    }
    scene.database.save();
    let file = folder.join("directory.saved");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.server.sql(&format!(
        "UPDATE api_keys SET revoked_at = now() WHERE sha256 = decode('{}', 'hex')",
        revoked.map(|byte| format!("{byte:02x}")).concat()
    ));
    scene.server.stop();
    let next = successor(&scene, folder.clone());
    assert_eq!(client_of(&scene, &next, known), Ok(true));
    assert!(client_of(&scene, &next, never_seen).is_err());
    // with Postgres, what was saved counts for nothing
    scene.server.start_again();
    crate::waiting::until("the revoked key is refused", || {
        client_of(&scene, &next, revoked) == Ok(false)
    });
    assert_eq!(client_of(&scene, &next, never_seen), Ok(true));
    // a torn file is no reason not to start
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    scene.server.stop();
    let last = successor(&scene, folder);
    assert!(client_of(&scene, &last, known).is_err());
}

#[test]
fn keys_revoked_in_bulk_serve_in_no_outage_neither_from_memory_nor_from_the_file() {
    let server = PostgresServer::start();
    let folder = server.folder().join("state");
    std::fs::create_dir_all(&folder).unwrap();
    let mut scene = Scene::on(server, |settings| {
        settings.state_dir = Some(folder.clone());
        settings.timeout = SHORT;
    });
    scene.start();
    scene.server.sql(
        "INSERT INTO api_keys (id, sha256, client) \
         SELECT 'k' || n, sha256(n::text::bytea), 'c' || n FROM generate_series(1, 1500) AS n",
    );
    let [kept, revoked] =
        ["1", "2"].map(|text| tidegate::database::generated_key::digest(text.as_bytes()));
    for digest in [&kept, &revoked] {
        assert!(scene.client_of(digest).unwrap().is_some());
    }
    scene.database.save();
    let saved = || std::fs::read_to_string(folder.join("directory.saved")).unwrap();
    assert!(saved().contains("\"k1\"") && saved().contains("\"k2\""));
    let expired = || scene.metrics.database.expired_all.get();
    let before = expired();
    // more than a thousand at once are told of as "all of them"; nobody uses one of them again
    scene
        .server
        .sql("UPDATE api_keys SET revoked_at = now() WHERE id <> 'k1'");
    crate::waiting::until("the change is noticed", || expired() > before);
    crate::waiting::until("everything is asked for again", || {
        let health = scene.metrics.database.known.get();
        scene.database.save();
        health <= 1 && saved().contains("\"k1\"") && !saved().contains("\"k2\"")
    });
    scene.server.stop();
    scene.wait_for_outage();
    assert!(scene.client_of(&kept).unwrap().is_some());
    assert_ne!(scene.client_of(&revoked), Ok(Some("c2".to_owned())));
    let next = successor(&scene, folder);
    assert_eq!(client_of(&scene, &next, kept), Ok(true));
    assert!(client_of(&scene, &next, revoked).is_err());
}

#[test]
fn what_was_revoked_during_an_outage_and_is_not_used_is_forgotten_afterwards() {
    let mut scene = Scene::on(PostgresServer::start(), |settings| settings.timeout = SHORT);
    scene.start();
    let (id, digest) = scene.key_of("acme");
    assert!(scene.client_of(&digest).unwrap().is_some());
    let known = || scene.metrics.database.known.get();
    crate::waiting::until("the key is counted", || known() == 1);
    scene.until_quiet();
    // nobody is told of it, as of what happens during an outage
    scene.server.sql(&format!(
        "SET session_replication_role = replica; UPDATE api_keys SET revoked_at = now() WHERE id = '{id}'"
    ));
    scene.server.stop();
    scene.wait_for_outage();
    assert_eq!(scene.client_of(&digest), Ok(Some("acme".to_owned())));
    scene.server.start_again();
    scene.wait_for(&tidegate::database::Health::Connected);
    let known = || scene.metrics.database.known.get();
    crate::waiting::until("the key is known no more", || known() == 0);
    scene.server.stop();
    scene.wait_for_outage();
    assert_ne!(scene.client_of(&digest), Ok(Some("acme".to_owned())));
}

#[test]
fn a_folder_that_cannot_be_written_to_hurts_nobody() {
    let scene = Scene::started();
    let missing = state_dir(&scene).join("missing");
    let next = successor(&scene, missing);
    let (_, digest) = scene.key_of("acme");
    assert_eq!(client_of(&scene, &next, digest), Ok(true));
    next.save();
    assert_eq!(client_of(&scene, &next, digest), Ok(true));
}

#[test]
fn uses_of_keys_are_noted_now_and_then_and_are_no_changes() {
    let scene = Scene::started();
    let keys = [(); 3].map(|()| scene.key_of("acme"));
    let directory = scene.database.directory();
    for (_, digest) in &keys[..2] {
        assert!(scene.client_of(digest).unwrap().is_some());
    }
    let (latest, digest) = &keys[0];
    let used_us = now_us() + 60_000_000;
    let _ = directory.recall_key(digest, used_us);
    scene.server.sql("DELETE FROM changes");
    scene.run(scene.database.note_uses()).unwrap();
    let noted = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL";
    assert_eq!(scene.server.sql(noted), "2");
    let when = format!(
        "SELECT (extract(epoch FROM last_used_at) * 1000000)::bigint FROM api_keys WHERE id = '{latest}'"
    );
    assert_eq!(scene.server.sql(&when), used_us.to_string());
    assert_eq!(scene.server.sql("SELECT count(*) FROM changes"), "0");
    let page = scene.run(scene.database.list_keys(None, None, 10)).unwrap();
    let used = page.items.iter().filter(|key| key.last_used_at.is_some());
    assert_eq!(used.count(), 2);
}
