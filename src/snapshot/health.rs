//! The health document, the same on every listener.

use super::{Running, Snapshot};
use crate::config::HealthDetail;
use serde_json::{Map, Value, json};

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
        document.insert(
            "status".into(),
            json!(if draining { "draining" } else { "ok" }),
        );
        if detail == HealthDetail::Full {
            document.insert("redis".into(), json!("disabled"));
            document.insert("postgres".into(), json!("disabled"));
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
