//! The health document, the same on every listener.

use super::{Running, Snapshot};
use crate::config::HealthDetail;
use crate::limit::shared::Condition;
use serde_json::{Map, Value, json};

/// Rows that are left out, named in one answer.
const MOST_REFUSED: usize = 20;

/// What a health check answers.
pub struct Health {
    /// 200, or 503 while draining
    pub status: u16,
    /// JSON
    pub body: String,
}

impl Running {
    /// How things are.
    pub fn health(&self, detail: HealthDetail) -> Health {
        let draining = self.is_draining();
        let mut document = Map::new();
        let condition = self.limiter.condition();
        let out = matches!(
            condition,
            Some(Condition::Failing | Condition::Disconnected)
        );
        let status = match (draining, out) {
            (true, _) => "draining",
            (false, true) => "degraded",
            (false, false) => "ok",
        };
        document.insert("status".into(), json!(status));
        if detail == HealthDetail::Full {
            document.insert("redis".into(), json!(redis(condition)));
            document.insert("postgres".into(), json!(self.postgres()));
            if let Some(refused) = self.refused_rows() {
                document.insert("refused".into(), refused);
            }
            if let Some(jwks) = self.snapshot().authenticator.jwks() {
                let age_us = jwks.age_us(self.clock.now_us());
                let age_seconds = age_us.map(|age_us| age_us / 1_000_000);
                let jwks = json!({ "keys": jwks.len(), "age_seconds": age_seconds });
                document.insert("jwks".into(), jwks);
            }
            document.insert(
                "upstreams".into(),
                upstreams(&self.snapshot(), self.clock.now_us()),
            );
        }
        Health {
            status: if draining { 503 } else { 200 },
            body: Value::Object(document).to_string(),
        }
    }
}

impl Running {
    fn postgres(&self) -> String {
        let database = self.database.as_ref();
        database.map_or_else(
            || "disabled".to_owned(),
            |database| database.health().to_string(),
        )
    }

    /// Rows of the database that are left out; `None`: none are.
    fn refused_rows(&self) -> Option<Value> {
        let refused = self.origins.as_ref()?.refused();
        let paths: Vec<&str> = refused
            .iter()
            .take(MOST_REFUSED)
            .map(|problem| problem.path.as_str())
            .collect();
        (!paths.is_empty()).then(|| json!(paths))
    }
}

fn redis(condition: Option<Condition>) -> &'static str {
    match condition {
        None => "disabled",
        Some(Condition::Connected) => "connected",
        Some(Condition::Failing) => "failing",
        Some(Condition::Disconnected) => "disconnected",
    }
}

fn upstreams(snapshot: &Snapshot, now_us: u64) -> Value {
    let entry = |upstream: &std::sync::Arc<crate::upstream::Upstream>| {
        let (healthy, total) = upstream.healthy(now_us);
        (
            upstream.name().to_owned(),
            json!({ "healthy": healthy, "total": total }),
        )
    };
    snapshot
        .upstreams
        .iter()
        .map(entry)
        .collect::<Map<_, _>>()
        .into()
}
