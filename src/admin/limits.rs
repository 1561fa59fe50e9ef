//! `/api/v1/limits`: the buckets of a client or an address, now; and how to empty them.

use super::access::problem;
use crate::limit::algorithm::Answer;
use crate::limit::descriptor::BucketKey;
use crate::snapshot::buckets::{Named, Whose};
use crate::snapshot::{Running, Snapshot};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Whose buckets; exactly one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    client: Option<String>,
    ip: Option<IpAddr>,
    key: Option<String>,
}

/// Why there is no answer.
type Refusal = (StatusCode, &'static str);

const SAY_WHOSE: Refusal = (
    StatusCode::BAD_REQUEST,
    "Say whose buckets: exactly one of ?client=<id>, ?ip=<address> and ?key=<bucket key>.",
);

/// One bucket.
#[derive(Serialize)]
struct Bucket {
    policy: String,
    key: String,
    algorithm: &'static str,
    limit: u64,
    remaining: u64,
    reset_after_ms: u64,
    /// `null`: there is room now, or no wait helps
    retry_after_ms: Option<u64>,
}

/// GET: what is left in each.
pub(super) async fn show(
    State(running): State<Arc<Running>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Ok(Query(asked)) = asked else {
        return refused(SAY_WHOSE);
    };
    let snapshot = running.snapshot();
    let buckets = match find(&snapshot, &asked, running.clock.now_us()) {
        Ok(buckets) => buckets,
        Err(refusal) => return refused(refusal),
    };
    let mut shown = Vec::with_capacity(buckets.len());
    for named in &buckets {
        match look(&running, &snapshot, named).await {
            Some(bucket) => shown.push(bucket),
            None => return store_is_out(),
        }
    }
    Json(serde_json::json!({ "buckets": shown })).into_response()
}

/// DELETE: empties them, on every gateway.
pub(super) async fn reset(
    State(running): State<Arc<Running>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Ok(Query(asked)) = asked else {
        return refused(SAY_WHOSE);
    };
    let snapshot = running.snapshot();
    let keys: Vec<BucketKey> = match (find(&snapshot, &asked, running.clock.now_us()), &asked.key) {
        (Ok(buckets), _) => buckets.iter().map(|named| named.key).collect(),
        // a key that is a hash can be emptied although nobody knows whose it is
        (Err(refusal), Some(key)) if key.starts_with('#') => {
            match BucketKey::read(key.as_bytes()) {
                Some(key) => vec![key],
                None => return refused(refusal),
            }
        }
        (Err(refusal), _) => return refused(refusal),
    };
    match running.limiter.reset(&keys).await {
        Ok(()) => Json(serde_json::json!({ "reset": keys.len() })).into_response(),
        Err(error) => {
            tracing::warn!("a reset failed: {error}");
            store_is_out()
        }
    }
}

fn find(snapshot: &Snapshot, asked: &Asked, now_us: u64) -> Result<Vec<Named>, Refusal> {
    match (&asked.client, asked.ip, &asked.key) {
        (Some(id), None, None) => match snapshot.clients.get(id) {
            Some(client) => Ok(snapshot.buckets_of(&Whose::Client(client), now_us)),
            None => Err((StatusCode::NOT_FOUND, "There is no such client.")),
        },
        (None, Some(ip), None) => Ok(snapshot.buckets_of(&Whose::Address(ip), now_us)),
        (None, None, Some(key)) => BucketKey::read(key.as_bytes())
            .and_then(|key| snapshot.bucket(&key))
            .map(|named| vec![named])
            .ok_or((
                StatusCode::NOT_FOUND,
                "No policy has such a bucket; a key reads <letter>:<policy>:<type>:<value>, as GET shows it.",
            )),
        _ => Err(SAY_WHOSE),
    }
}

async fn look(running: &Running, snapshot: &Snapshot, named: &Named) -> Option<Bucket> {
    let policy = snapshot.policies.get(named.policy)?;
    let charge = snapshot.charge(named)?;
    let now_us = running.clock.now_us();
    let decision = running.limiter.peek(&charge, now_us).await.ok()?;
    let bucket = decision.buckets.first()?;
    let retry_after_us = match bucket.answer {
        Answer::Admit { .. } => None,
        Answer::Refuse { retry_after_us } => retry_after_us,
    };
    Some(Bucket {
        policy: policy.name().to_owned(),
        key: named.key.to_string(),
        algorithm: policy.algorithm().name(),
        limit: policy.quota(named.quota).limit,
        remaining: bucket.reading.remaining,
        reset_after_ms: bucket.reading.reset_after_us.div_ceil(1_000),
        retry_after_ms: retry_after_us.map(|micros| micros.div_ceil(1_000)),
    })
}

fn refused((status, detail): Refusal) -> Response {
    problem(status, detail)
}

fn store_is_out() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "The shared store does not answer; try again.",
    )
}
