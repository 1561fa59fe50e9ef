//! Ways to reach the server: TCP with a password, a socket, TLS that is or is not believed.

use super::PostgresServer;
use super::scene::{Scene, settings};
use tidegate::database::{Database, DatabaseError, Rows};
use tidegate::telemetry::Metrics;

fn rows(scene: &Scene, url: &str, with_ca: bool) -> Result<Rows, DatabaseError> {
    let mut settings = settings(url.to_owned());
    settings.ca_file = with_ca.then(|| scene.server.ca_file());
    let database = Database::new(&settings, Metrics::new().unwrap().database).unwrap();
    scene.run(async { database.rows().await })
}

#[test]
fn over_a_socket_and_with_a_wrong_password() {
    let scene = Scene::new();
    assert!(rows(&scene, &scene.server.socket_url(), false).is_ok());
    let wrong = scene.server.url().replace("gate@", "wrong@");
    let error = rows(&scene, &wrong, false).unwrap_err().to_string();
    assert!(error.contains("password authentication failed"), "{error}");
    assert!(!error.contains("tide'wrong"), "{error}");
}

#[test]
fn tls_is_believed_as_far_as_sslmode_says() {
    let scene = Scene::on(PostgresServer::start_with_tls(), |_| ());
    let port = scene.server.port();
    let to = |host: &str, more: &str| {
        format!(
            "user=tide password='tide\\'gate' dbname=postgres hostaddr=127.0.0.1 host={host} port={port} {more}"
        )
    };
    for (host, mode, with_ca, succeeds) in [
        ("localhost", "", true, true),
        ("localhost", "sslmode=verify-full", true, true),
        ("other.example", "sslmode=verify-full", true, false),
        ("other.example", "", true, false),
        ("other.example", "sslmode=verify-ca", true, true),
        ("other.example", "sslmode=require", true, true),
        ("other.example", "sslmode=require", false, true),
        ("localhost", "sslmode=verify-ca", false, false),
        ("localhost", "sslmode=verify-full", false, false),
        ("localhost", "sslmode=disable", true, true),
        ("localhost", "", false, true),
    ] {
        let answer = rows(&scene, &to(host, mode), with_ca);
        assert_eq!(
            answer.is_ok(),
            succeeds,
            "{host} {mode} {with_ca}: {answer:?}"
        );
        if let Err(error) = answer {
            assert!(error.to_string().contains("certificate"), "{error}");
        }
    }
    let encrypted = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
    scene.start();
    assert_ne!(
        scene.server.sql(encrypted),
        "0",
        "TLS is used where the server has it"
    );
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_wanted() {
    let scene = Scene::new();
    let url = format!("{}?sslmode=require", scene.server.url());
    let error = rows(&scene, &url, false).unwrap_err().to_string();
    assert!(error.contains("TLS"), "{error}");
    let mut settings = settings(scene.server.url());
    settings.ca_file = Some(scene.server.folder().join("postgres.log"));
    let error = Database::new(&settings, Metrics::new().unwrap().database)
        .err()
        .unwrap();
    assert!(
        error.contains("database.ca_file") && error.contains("PEM"),
        "{error}"
    );
}
