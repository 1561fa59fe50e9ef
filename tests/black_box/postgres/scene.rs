//! A server with Tidegate's database layer upon it, in the process of the test.

use super::PostgresServer;
use crate::waiting;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tidegate::database::{Database, Expected, Health, Kind, NewKey, Settings, generated_key};
use tidegate::telemetry::Metrics;
use tokio::runtime::Runtime;

/// How long anything may wait for the database: generous, because the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may where the database does not answer at all.
pub(super) const SHORT: Duration = Duration::from_secs(1);

pub(super) struct Scene {
    pub(super) database: Arc<Database>,
    pub(super) metrics: Metrics,
    pub(super) runtime: Runtime,
    pub(super) server: PostgresServer,
}

impl Scene {
    /// A migrated database that is not started yet.
    pub(super) fn new() -> Self {
        Self::on(PostgresServer::start(), |_| ())
    }

    /// The same, started and connected.
    pub(super) fn started() -> Self {
        let scene = Self::new();
        scene.start();
        scene
    }

    pub(super) fn on(server: PostgresServer, set: impl Fn(&mut Settings)) -> Self {
        let scene = Self::empty(server, set);
        scene.run(scene.database.migrate()).unwrap();
        scene
    }

    /// Nothing is migrated.
    pub(super) fn empty(server: PostgresServer, set: impl Fn(&mut Settings)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let metrics = Metrics::new().unwrap();
        let mut settings = settings(server.url());
        set(&mut settings);
        let database = Database::new(&settings, metrics.database.clone()).unwrap();
        Scene {
            database,
            metrics,
            runtime,
            server,
        }
    }

    pub(super) fn start(&self) {
        let _entered = self.runtime.enter();
        self.database.start();
        self.wait_for(&Health::Connected);
    }

    pub(super) fn wait_for(&self, health: &Health) {
        waiting::until(&format!("the database is {health:?}"), || {
            self.database.health() == *health
        });
    }

    /// Lets what the test has changed be heard of and asked for again.
    pub(super) fn until_quiet(&self) {
        let heard_of = || self.metrics.database.changes.get() as f64;
        self.server.until_heard_of(heard_of);
    }

    pub(super) fn wait_for_outage(&self) {
        waiting::until("the database is unavailable", || {
            matches!(self.database.health(), Health::Unavailable(_))
        });
    }

    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(super) fn put(&self, kind: Kind, name: &str, document: &Value) {
        let written = self
            .database
            .put(kind, name, document, "test", Expected::Any);
        self.run(written).unwrap();
    }

    /// A client with a key; the key's id and digest.
    pub(super) fn key_of(&self, client: &str) -> (String, [u8; 32]) {
        self.put(Kind::Client, client, &serde_json::json!({ "tier": "pro" }));
        self.another_key_of(client)
    }

    pub(super) fn another_key_of(&self, client: &str) -> (String, [u8; 32]) {
        let new = NewKey {
            client: client.to_owned(),
            ..NewKey::default()
        };
        let made = self.run(self.database.create_key(&new, "test")).unwrap();
        (made.key.id, generated_key::digest(made.text.as_bytes()))
    }

    /// Whose key it is, as a request finds out.
    pub(super) fn client_of(&self, digest: &[u8; 32]) -> Result<Option<String>, String> {
        let found = self.database.directory().find_key(*digest, now_us());
        self.run(found)
            .map(|found| found.map(|key| key.client.clone()))
            .map_err(|error| error.to_string())
    }
}

pub(super) fn settings(url: String) -> Settings {
    Settings {
        url,
        ca_file: None,
        pool: 8,
        timeout: TIMEOUT,
        max_cached: 1_000,
        state_dir: None,
        keep_revisions: None,
    }
}

pub(super) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_micros()).unwrap()
}
