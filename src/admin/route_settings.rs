//! `/api/v1/routes`: what may be set of a route while it serves.

use super::actor::Actor;
use super::paging::{Listed, Piece};
use super::precondition::Conditions;
use super::problem::Problem;
use super::reading::{Asked, Body, Named, Nothing};
use super::resources::{self, Resource};
use crate::database::Kind;
use crate::snapshot::Running;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

/// List the settings of all routes
#[utoipa::path(get, path = "/api/v1/routes", tag = "routes", operation_id = "list_routes", params(Piece),
    responses((status = 200, description = "those of the file and of the database, by name",
               body = Listed<Resource>, headers(("Link" = String, description = "the next piece")))))]
pub(super) async fn list(
    State(running): State<Arc<Running>>,
    Asked(piece): Asked<Piece>,
) -> Result<Response, Problem> {
    let listed = resources::list(&running, Kind::RouteSettings, &piece).await?;
    Ok(listed.answer("/api/v1/routes", "after", piece.limit))
}

/// Show a route's settings
#[utoipa::path(get, path = "/api/v1/routes/{name}/settings", tag = "routes", operation_id = "show_route_settings",
    params(("name" = String, Path, description = "the route's name"),
           ("If-None-Match" = Option<String>, Header, description = "ETag of the version at hand")),
    responses((status = 200, description = "a route's settings", body = Resource,
               headers(("ETag" = String, description = "its version"))),
              (status = 304, description = "it is the version at hand"),
              (status = 404, description = "there is none such")))]
pub(super) async fn show(
    State(running): State<Arc<Running>>,
    Named(name): Named<String>,
    _: Asked<Nothing>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    resources::show(&running, Kind::RouteSettings, &name, &conditions).await
}

/// Create or replace a route's settings; it holds on every gateway within a second
#[utoipa::path(put, path = "/api/v1/routes/{name}/settings", tag = "routes", operation_id = "put_route_settings",
    params(("name" = String, Path, description = "the route's name"),
           ("If-Match" = Option<String>, Header, description = "ETag of the version to replace"),
           ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none yet"),
           ("X-Tidegate-Actor" = Option<String>, Header, description = "on whose behalf, for the revision")),
    request_body = ref("#/components/schemas/RouteSettings"),
    responses((status = 200, description = "replaced", body = Resource,
               headers(("ETag" = String, description = "its version"))),
              (status = 201, description = "created", body = Resource,
               headers(("ETag" = String, description = "its version"))),
              (status = 404, description = "there can be none such"),
              (status = 409, description = "no database is configured"),
              (status = 412, description = "it has changed meanwhile")))]
pub(super) async fn put(
    State(running): State<Arc<Running>>,
    Named(name): Named<String>,
    _: Asked<Nothing>,
    conditions: Conditions,
    by: Actor,
    Body(document): Body<Value>,
) -> Result<Response, Problem> {
    resources::put(
        &running,
        Kind::RouteSettings,
        &name,
        &document,
        &conditions,
        &by,
    )
    .await
}

/// Delete a route's settings from the database; what the file says holds again
#[utoipa::path(delete, path = "/api/v1/routes/{name}/settings", tag = "routes", operation_id = "delete_route_settings",
    params(("name" = String, Path, description = "the route's name"),
           ("If-Match" = Option<String>, Header, description = "ETag of the version to delete"),
           ("X-Tidegate-Actor" = Option<String>, Header, description = "on whose behalf, for the revision")),
    responses((status = 204, description = "deleted"),
              (status = 404, description = "there is none such"),
              (status = 409, description = "it is only in the file, something needs it, or no database is configured"),
              (status = 412, description = "it has changed meanwhile")))]
pub(super) async fn delete(
    State(running): State<Arc<Running>>,
    Named(name): Named<String>,
    _: Asked<Nothing>,
    conditions: Conditions,
    by: Actor,
) -> Result<StatusCode, Problem> {
    resources::delete(&running, Kind::RouteSettings, &name, &conditions, &by).await
}
