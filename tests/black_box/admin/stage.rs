//! A gateway with a real database behind its admin API.

use super::api::send;
use crate::client::Response;
use crate::gateway::{Gateway, app};
use crate::postgres::PostgresServer;
use crate::upstream::Upstream;
use serde_json::Value;
use std::time::Duration;
use tidegate::database::{Database, Settings};
use tidegate::telemetry::Metrics;

/// What its file says beside listeners, upstream and database.
const FILE: &str = "tiers: { free: {} }
clients: { filer: { tier: free, api_keys: [{ plain: key-of-filer-0123456789 }] } }
routes: [{ name: app, upstream: app, auth: optional }, { name: docs, match: { path: /docs }, upstream: app }]
policies:
  filed: { key: [client], algorithm: token_bucket, quota: { count: 100, period: 60s } }
  off: { key: [ip], algorithm: fixed_window, quota: { count: 1, period: 1s }, mode: \"off\" }
";

/// Dropped in this order.
pub(super) struct Stage {
    pub(super) gateway: Gateway,
    upstream: Upstream,
    pub(super) server: PostgresServer,
}

impl Stage {
    pub(super) fn new() -> Self {
        let server = PostgresServer::start();
        migrate(&server.url());
        let upstream = Upstream::echo();
        Stage {
            gateway: gateway(&upstream, &server, "state"),
            upstream,
            server,
        }
    }

    /// Another gateway of the same file and database.
    pub(super) fn neighbour(&self) -> Neighbour {
        Neighbour(gateway(&self.upstream, &self.server, "other-state"))
    }

    pub(super) fn get(&self, target: &str) -> Response {
        send(&self.gateway, "GET", target, &[], b"")
    }

    pub(super) fn put(&self, target: &str, document: &Value) -> Response {
        self.put_with(target, document, &[])
    }

    pub(super) fn put_with(
        &self,
        target: &str,
        document: &Value,
        headers: &[(&str, &str)],
    ) -> Response {
        let body = document.to_string();
        send(&self.gateway, "PUT", target, headers, body.as_bytes())
    }

    pub(super) fn post(&self, target: &str, document: &Value) -> Response {
        let body = document.to_string();
        send(&self.gateway, "POST", target, &[], body.as_bytes())
    }

    pub(super) fn post_with(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        send(&self.gateway, "POST", target, headers, b"null")
    }

    pub(super) fn delete(&self, target: &str) -> Response {
        send(&self.gateway, "DELETE", target, &[], b"")
    }
}

pub(super) struct Neighbour(Gateway);

impl Neighbour {
    pub(super) fn put(&self, target: &str, document: &Value) -> Response {
        let body = document.to_string();
        send(&self.0, "PUT", target, &[], body.as_bytes())
    }

    pub(super) fn delete(&self, target: &str) -> Response {
        send(&self.0, "DELETE", target, &[], b"")
    }
}

fn gateway(upstream: &Upstream, server: &PostgresServer, state: &str) -> Gateway {
    let state = server.folder().join(state);
    Gateway::start(&format!(
        "{}{FILE}database: {{ url: \"{}\", state_dir: \"{}\" }}\n",
        app(upstream.address),
        server.url(),
        state.display()
    ))
}

/// Brings an empty database to the current schema.
fn migrate(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let settings = Settings {
        url: url.to_owned(),
        ca_file: None,
        pool: 1,
        timeout: Duration::from_secs(10),
        max_cached: 10,
        state_dir: None,
        keep_revisions: None,
    };
    runtime.block_on(async {
        let metrics = Metrics::new().unwrap();
        let database = Database::new(&settings, metrics.database.clone()).unwrap();
        database.migrate().await.unwrap();
    });
}
