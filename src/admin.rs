//! The admin listener: health, metrics and the start page, on axum.

mod access;
mod limits;

pub use access::Access;

use crate::snapshot::Running;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves `running` on `listener` to whom `access` lets in, until the process ends.
pub async fn serve(
    listener: TcpListener,
    running: Arc<Running>,
    access: Access,
) -> std::io::Result<()> {
    axum::serve(listener, router(running, access)).await
}

/// Every resource, one line each.
fn router(running: Arc<Running>, access: Access) -> Router {
    let protected = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/limits", get(limits::show).delete(limits::reset))
        .layer(axum::middleware::from_fn_with_state(
            access.clone(),
            access::require_token,
        ));
    Router::new()
        .route("/", get(start_page))
        .route("/health", get(health))
        .merge(protected)
        .fallback(|| async {
            access::problem(
                StatusCode::NOT_FOUND,
                "Nothing is served here; see / for what is.",
            )
        })
        .layer(axum::middleware::from_fn_with_state(
            access,
            access::require_own_origin,
        ))
        .with_state(running)
}

async fn start_page() -> Html<&'static str> {
    Html(include_str!("admin/start.html"))
}

async fn health(State(running): State<Arc<Running>>) -> Response {
    let health = running.health(running.snapshot().health_detail);
    let status = StatusCode::from_u16(health.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        health.body,
    )
        .into_response()
}

async fn metrics(State(running): State<Arc<Running>>) -> Response {
    match running.metrics.render() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!("cannot render metrics: {error}");
            access::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The metrics could not be rendered.",
            )
        }
    }
}
