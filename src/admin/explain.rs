//! `/api/v1/explain`: what would happen to a request, and why.

use super::problem::{FieldProblem, Problem};
use super::reading::{Asked, Body, Nothing};
use crate::admission::explain::{BadQuestion, Explanation, Question};
use crate::snapshot::Running;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// What would happen to a request, and why; nothing is charged
#[utoipa::path(post, path = "/api/v1/explain", tag = "explain", operation_id = "explain",
    request_body = ref("#/components/schemas/ExplainRequest"),
    responses((status = 200, description = "what would happen",
               body = ref("#/components/schemas/Explanation"))))]
pub(super) async fn explain(
    State(running): State<Arc<Running>>,
    _: Asked<Nothing>,
    Body(question): Body<Question>,
) -> Result<Json<Explanation>, Problem> {
    let parsed = question
        .parse()
        .map_err(|bad| Problem::invalid(bad.into_iter().map(field).collect()))?;
    let snapshot = running.snapshot();
    let now_us = running.clock.now_us();
    let explanation =
        crate::admission::explain::explain(&running, &snapshot, &parsed.request(), now_us).await;
    Ok(Json(explanation))
}

fn field(bad: BadQuestion) -> FieldProblem {
    FieldProblem::new(&bad.path, bad.message, bad.hint)
}
