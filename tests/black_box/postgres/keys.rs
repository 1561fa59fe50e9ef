//! `tidegate migrate` and `tidegate keys` on a real database.

use super::PostgresServer;
use crate::gateway::{EVERYTHING, app, outcome, tidegate};
use crate::scratch::Scratch;
use crate::upstream::nobody;
use serde_json::Value;

struct CommandLine {
    scratch: Scratch,
    server: PostgresServer,
}

impl CommandLine {
    fn new() -> Self {
        let (scratch, server) = (Scratch::new(), PostgresServer::start());
        let text = format!(
            "database: {{ url: \"{}\" }}\ntiers: {{ pro: {{}} }}\nclients: {{ filed: {{ tier: pro }} }}\n{}{EVERYTHING}",
            server.url(),
            app(nobody())
        );
        scratch.file("gate.yaml", &text);
        CommandLine { scratch, server }
    }

    fn migrated() -> Self {
        let line = Self::new();
        let (code, _, err) = line.run(&["migrate"]);
        assert_eq!(code, Some(0), "{err}");
        line.server.sql("INSERT INTO clients (id) VALUES ('acme')");
        line
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = tidegate(self.scratch.path());
        command.env("USER", "ann").env_remove("SUDO_USER");
        outcome(command.args(["-c", "gate.yaml"]).args(arguments))
    }

    fn make(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(&[&["keys", "create"], arguments].concat());
        assert_eq!(code, Some(0), "{err}");
        let key = out.strip_suffix('\n').unwrap();
        assert!(!err.contains(key), "the key is told once: {err}");
        key.to_owned()
    }
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

#[test]
fn migrate_says_what_it_did() {
    let line = CommandLine::new();
    let (code, _, err) = line.run(&["keys", "list"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("run `tidegate migrate`"), "{err}");
    let (code, out, err) = line.run(&["migrate"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "applied V1__policies_clients_keys\nschema 1 (it was 0)\n"
    );
    let (code, out, _) = line.run(&["migrate"]);
    assert_eq!((code, out.as_str()), (Some(0), "schema 1: nothing to do\n"));
    line.server
        .sql("INSERT INTO schema_history VALUES (9, 'later', '2026-01-01T00:00:00Z', '1')");
    let (code, _, err) = line.run(&["migrate"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("schema 9 in the database"), "{err}");
}

#[test]
fn without_a_database_or_with_one_that_is_away_the_error_says_so() {
    let mut line = CommandLine::new();
    line.server.stop();
    for arguments in [
        &["migrate"][..],
        &["keys", "list"],
        &["keys", "create", "--client", "a"],
    ] {
        let (code, out, err) = line.run(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(
            err.contains("unavailable") && err.contains("refused"),
            "{err}"
        );
        assert!(!err.contains("tide'gate") && !err.contains("%27"), "{err}");
    }
    line.scratch
        .file("gate.yaml", &format!("{}{EVERYTHING}", app(nobody())));
    let (code, _, err) = line.run(&["migrate"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("database.url") && err.contains("DATABASE_URL"),
        "{err}"
    );
}

#[test]
fn a_key_is_made_shown_once_listed_without_its_secret_and_revoked() {
    let line = CommandLine::migrated();
    let key = line.make(&[
        "--client",
        "acme",
        "--name",
        "ci",
        "--scope",
        "read",
        "--scope",
        "write",
        "--expires",
        "30d",
    ]);
    assert!(tidegate::database::generated_key::is_well_formed(
        key.as_bytes()
    ));
    let other = line.make(&["--client", "filed"]);
    let stored = line.server.sql(&format!(
        "SELECT encode(sha256, 'hex') = encode(sha256('{key}'), 'hex'), expires_at - created_at \
         FROM api_keys WHERE id = '{}'",
        id_of(&key)
    ));
    assert!(
        stored.starts_with("t|30 days") || stored.starts_with("t|29 days"),
        "{stored}"
    );
    let (_, out, _) = line.run(&["keys", "list"]);
    assert_eq!(out.lines().count(), 3, "{out}");
    for word in [
        "CLIENT",
        id_of(&key),
        id_of(&other),
        "read write",
        "ci",
        "filed",
    ] {
        assert!(out.contains(word), "{word} is not in\n{out}");
    }
    assert!(!out.contains(&key) && !out.contains(&key[16..]));
    let (code, _, err) = line.run(&["keys", "revoke", id_of(&key)]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("is revoked since"), "{err}");
    // found in a log, say
    assert_eq!(line.run(&["keys", "revoke", &other]).0, Some(0));
    let (_, out, _) = line.run(&["keys", "list", "--json"]);
    let keys: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter()
            .all(|key| key["revoked_at"].is_string() && key.get("key").is_none())
    );
    let who = "SELECT string_agg(DISTINCT by || ' ' || kind, ',') FROM revisions";
    assert_eq!(line.server.sql(who), "cli:ann key");
    let secrets = format!(
        "SELECT count(*) FROM revisions AS r WHERE r::text LIKE '%{}%'",
        &key[16..]
    );
    assert_eq!(line.server.sql(&secrets), "0");
    assert_eq!(line.server.sql("SELECT count(*) FROM revisions"), "4");
}

#[test]
fn keys_in_json_and_of_one_client_and_many_pages() {
    let line = CommandLine::migrated();
    let (_, out, err) = line.run(&["keys", "create", "--client", "acme", "--json"]);
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((err.as_str(), &made["client"]), ("", &"acme".into()));
    let key = made["key"].as_str().unwrap();
    assert_eq!(made["id"], id_of(key));
    line.server.sql(
        "INSERT INTO api_keys (id, sha256, client) \
         SELECT 'k' || n, sha256(n::text::bytea), 'many' FROM generate_series(1, 1200) AS n",
    );
    let count = |arguments: &[&str]| {
        let (_, out, _) = line.run(&[&["keys", "list", "--json"], arguments].concat());
        serde_json::from_str::<Vec<Value>>(&out).unwrap().len()
    };
    assert_eq!(count(&[]), 1201);
    assert_eq!(count(&["--client", "acme"]), 1);
    assert_eq!(count(&["--client", "nobody'; --"]), 0);
    let (_, out, _) = line.run(&["keys", "list", "--client", "nobody"]);
    assert!(out.starts_with("ID"), "{out}");
}

#[test]
fn mistakes_are_explained() {
    let line = CommandLine::migrated();
    for (arguments, word) in [
        (
            &["keys", "create", "--client", "acmee"][..],
            "/api/v1/clients/acmee",
        ),
        (&["keys", "create", "--client", "a b"], "visible ASCII"),
        (
            &["keys", "create", "--client", "acme", "--expires", "soon"],
            "30d",
        ),
        (
            &["keys", "create", "--client", "acme", "--scope", "a b"],
            "scopes",
        ),
        (
            &["keys", "create", "--client", "acme", "--name", ""],
            "name",
        ),
        (&["keys", "revoke", "0123456789ab"], "key `0123456789ab`"),
        (
            &["keys", "revoke", "'; DROP TABLE api_keys; --"],
            "does not exist",
        ),
    ] {
        let (code, out, err) = line.run(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.contains(word), "{arguments:?}: {err}");
    }
    assert_eq!(line.server.sql("SELECT count(*) FROM api_keys"), "0");
    let (code, _, err) = line.run(&["keys"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("revoke"), "{err}");
}
