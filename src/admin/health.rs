//! How the gateway is: the health document, the metrics, and the start page.

use super::problem::Problem;
use crate::snapshot::Running;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use std::sync::Arc;

/// The start page
#[utoipa::path(get, path = "/", tag = "gateway", operation_id = "start_page", security(()),
    responses((status = 200, description = "what is served here", body = String, content_type = "text/html")))]
pub(super) async fn start_page() -> Html<&'static str> {
    Html(include_str!("start.html"))
}

/// Whether the gateway serves
#[utoipa::path(get, path = "/health", tag = "gateway", operation_id = "health", security(()),
    responses((status = 200, description = "it serves; `degraded` while outage mode is in force", body = Object),
              (status = 503, description = "it is about to stop", body = Object)))]
pub(super) async fn health(State(running): State<Arc<Running>>) -> Response {
    let health = running.health(running.snapshot().health_detail);
    let status = StatusCode::from_u16(health.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, health.body).into_response()
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "gateway", operation_id = "metrics",
    responses((status = 200, description = "all metrics", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(running): State<Arc<Running>>) -> Result<Response, Problem> {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    match running.metrics.render() {
        Ok(text) => Ok((kind, text).into_response()),
        Err(error) => {
            tracing::error!("cannot render metrics: {error}");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The metrics could not be rendered.",
            ))
        }
    }
}
