//! `/api/v1/config`: the running configuration, secrets masked.

use super::documents;
use super::problem::Problem;
use super::reading::{Asked, Nothing};
use crate::snapshot::Running;
use axum::Json;
use axum::extract::State;
use serde_json::Value;
use std::sync::Arc;

/// The running configuration in the file's shape, every default written out, secrets masked
#[utoipa::path(get, path = "/api/v1/config", tag = "gateway", operation_id = "show_config",
    responses((status = 200, description = "the configuration",
               body = ref("#/components/schemas/Configuration"))))]
pub(super) async fn show(
    State(running): State<Arc<Running>>,
    _: Asked<Nothing>,
) -> Result<Json<Value>, Problem> {
    let snapshot = running.snapshot();
    documents::blocking(move || snapshot.shown.json())
        .await
        .map(Json)
}
