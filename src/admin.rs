//! The admin listener, on axum: health, metrics, the start page and the API, one file per resource.

mod access;
mod actor;
mod clients;
mod configuration;
mod connections;
mod documents;
mod explain;
mod health;
mod keys;
mod limits;
mod openapi;
mod paging;
mod policies;
mod precondition;
mod problem;
mod reading;
mod resources;
mod revisions;
mod route_settings;
mod tiers;
mod turn;

pub use access::Access;

use crate::snapshot::Running;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::Response;
use axum::serve::ListenerExt;
use connections::Bounded;
use problem::Problem;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Serves `running` on `listener` to whom `access` lets in, until the process ends.
pub async fn serve(
    listener: TcpListener,
    running: Arc<Running>,
    access: Access,
) -> std::io::Result<()> {
    let router = router(running, access);
    // tapped for the sake of its type alone: axum knows the address of what was
    let listener = Bounded::new(listener).tap_io(|_| ());
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await
}

/// What is open even where there is a token.
fn open() -> OpenApiRouter<Arc<Running>> {
    OpenApiRouter::new()
        .routes(routes!(health::start_page))
        .routes(routes!(health::health))
}

/// Everything else, one line for each path. Only `routes!` registers: what it routes it documents.
fn protected() -> OpenApiRouter<Arc<Running>> {
    OpenApiRouter::new()
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(limits::show, limits::reset))
        .routes(routes!(explain::explain))
        .routes(routes!(configuration::show))
        .routes(routes!(policies::list))
        .routes(routes!(policies::show, policies::put, policies::delete))
        .routes(routes!(tiers::list))
        .routes(routes!(tiers::show, tiers::put, tiers::delete))
        .routes(routes!(clients::list))
        .routes(routes!(clients::show, clients::put, clients::delete))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(route_settings::list))
        .routes(routes!(
            route_settings::show,
            route_settings::put,
            route_settings::delete
        ))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::show))
        .routes(routes!(revisions::rollback))
}

fn router(running: Arc<Running>, access: Access) -> Router {
    let token = middleware::from_fn_with_state(access.clone(), access::require_token);
    let origin = middleware::from_fn_with_state(access, access::require_own_origin);
    let (open, _) = open().split_for_parts();
    let (protected, _) = protected().split_for_parts();
    open.merge(protected.layer(token))
        .fallback(|| async { Problem::not_found("Nothing is served here; see / for what is.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "This method is not served here; see the Allow header.",
            )
        })
        .layer(DefaultBodyLimit::max(reading::MAX_BODY))
        .layer(origin)
        .layer(middleware::map_response(is_not_kept))
        .with_state(running)
}

/// Answers hold what changes and what is nobody else's business.
async fn is_not_kept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
