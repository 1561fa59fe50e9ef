//! `/api/v1/limits`: the buckets of a client or an address, now; and how to empty them.

use super::problem::Problem;
use super::reading::Asked;
use crate::auth::Client;
use crate::config;
use crate::limit::algorithm::Answer;
use crate::limit::descriptor::BucketKey;
use crate::snapshot::buckets::{Named, Whose};
use crate::snapshot::{Running, Snapshot};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Whose buckets; exactly one of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// A client's id.
    client: Option<String>,
    /// An address nobody is authenticated at.
    #[param(value_type = Option<String>)]
    ip: Option<IpAddr>,
    /// A bucket's key, as GET shows it.
    key: Option<String>,
}

const SAY_WHOSE: &str =
    "Say whose buckets: exactly one of ?client=<id>, ?ip=<address> and ?key=<bucket key>.";

/// What is left.
#[derive(Serialize, ToSchema)]
pub(super) struct Buckets {
    /// Those that follow from client or address, tier and routes.
    buckets: Vec<Bucket>,
}

/// One bucket.
#[derive(Serialize, ToSchema)]
pub(super) struct Bucket {
    /// Whose quota it counts.
    policy: String,
    /// Its name on every gateway.
    key: String,
    /// How it counts.
    algorithm: &'static str,
    /// Units at most.
    limit: u64,
    /// Units left now.
    remaining: u64,
    /// Milliseconds until it is whole again.
    reset_after_ms: u64,
    /// Milliseconds until there is room; null: there is now, or no wait helps.
    retry_after_ms: Option<u64>,
}

/// What was emptied.
#[derive(Serialize, ToSchema)]
pub(super) struct Emptied {
    /// How many buckets.
    reset: usize,
}

/// What is left in the buckets of a client or an address
#[utoipa::path(get, path = "/api/v1/limits", tag = "limits", operation_id = "show_limits", params(Of),
    responses((status = 200, description = "the buckets, now", body = Buckets),
              (status = 404, description = "no such bucket, or no id of a client")))]
pub(super) async fn show(
    State(running): State<Arc<Running>>,
    Asked(of): Asked<Of>,
) -> Result<Json<Buckets>, Problem> {
    let snapshot = running.snapshot();
    let found = find(&running, &snapshot, &of).await?;
    let mut buckets = Vec::with_capacity(found.len());
    for named in &found {
        let bucket = look(&running, &snapshot, named).await;
        buckets.push(bucket.ok_or_else(Problem::store_is_out)?);
    }
    Ok(Json(Buckets { buckets }))
}

/// Empty the buckets of a client or an address, on every gateway
#[utoipa::path(delete, path = "/api/v1/limits", tag = "limits", operation_id = "reset_limits", params(Of),
    responses((status = 200, description = "they are empty", body = Emptied),
              (status = 404, description = "no such bucket, or no id of a client")))]
pub(super) async fn reset(
    State(running): State<Arc<Running>>,
    Asked(of): Asked<Of>,
) -> Result<Json<Emptied>, Problem> {
    let snapshot = running.snapshot();
    let keys: Vec<BucketKey> = match (find(&running, &snapshot, &of).await, &of.key) {
        (Ok(buckets), _) => buckets.iter().map(|named| named.key).collect(),
        // a key that is a hash can be emptied although nobody knows whose it is
        (Err(problem), Some(key)) if key.starts_with('#') => {
            vec![BucketKey::read(key.as_bytes()).ok_or(problem)?]
        }
        (Err(problem), _) => return Err(problem),
    };
    running.limiter.reset(&keys).await.map_err(|error| {
        tracing::warn!("a reset failed: {error}");
        Problem::store_is_out()
    })?;
    Ok(Json(Emptied { reset: keys.len() }))
}

async fn find(running: &Running, snapshot: &Snapshot, of: &Of) -> Result<Vec<Named>, Problem> {
    let now_us = running.clock.now_us();
    match (&of.client, of.ip, &of.key) {
        (Some(id), None, None) => {
            let client = client(running, snapshot, id, now_us).await?;
            Ok(snapshot.buckets_of(&Whose::Client(&client), now_us))
        }
        (None, Some(ip), None) => Ok(snapshot.buckets_of(&Whose::Address(ip), now_us)),
        (None, None, Some(key)) => BucketKey::read(key.as_bytes())
            .and_then(|key| snapshot.bucket(&key))
            .map(|named| vec![named])
            .ok_or_else(|| {
                Problem::not_found(
                    "No policy has such a bucket; a key reads <letter>:<policy>:<type>:<value>, as GET shows it.",
                )
            }),
        _ => Err(Problem::unreadable(SAY_WHOSE)),
    }
}

/// As requests find it: the database's tier, or else the file's; one that does not exist is none. A
/// client may also be one that only tokens name.
async fn client(
    running: &Running,
    snapshot: &Snapshot,
    id: &str,
    now_us: u64,
) -> Result<Arc<Client>, Problem> {
    if !config::is_client_id(id) {
        return Err(Problem::not_found(
            "No client can have this id: it is 1 to 128 visible ASCII characters without spaces.",
        ));
    }
    let in_file = snapshot.clients.get(id);
    let found = match &running.database {
        Some(database) => database.directory().find_client(id, now_us).await,
        None => Ok(None),
    };
    let record = match (found, in_file) {
        (Ok(record), _) => record,
        (Err(_), Some(_)) => None,
        (Err(why), None) => {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("It is not known which tier this client has: {why}."),
            ));
        }
    };
    let of_file = in_file.and_then(|client| client.tier.as_deref());
    let of_database = record.as_ref().and_then(|record| record.tier.as_deref());
    let tier = of_database.or(of_file);
    let tier = tier.filter(|tier| snapshot.tiers.contains(*tier));
    Ok(Arc::new(Client::new(id, tier.map(Arc::from))))
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
