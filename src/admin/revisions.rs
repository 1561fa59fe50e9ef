//! `/api/v1/revisions`: who changed what and when, and how to take it back.

use super::actor::Actor;
use super::documents;
use super::paging::{Backwards, Listed};
use super::precondition::{Conditions, Versions};
use super::problem::Problem;
use super::reading::{Asked, Named, Nothing};
use super::{resources, turn};
use crate::database::{self, Kind, Terms, Written};
use crate::snapshot::Running;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// One change.
#[derive(Serialize, ToSchema)]
pub(super) struct Revision {
    /// Grows with time.
    id: i64,
    /// When (RFC 3339).
    at: String,
    /// Who.
    by: String,
    /// What: `policy`, `tier`, `client`, `route_settings` or `key`.
    kind: String,
    /// Its name, or a key's id.
    name: String,
    /// The document before; null: there was none.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// The document after; null: it was deleted.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// The revision that this one took back.
    rolled_back_from: Option<i64>,
}

/// What came of taking a revision back.
#[derive(Serialize, ToSchema)]
pub(super) struct TakenBack {
    /// The revision that records it.
    revision: i64,
    /// The document that holds now; null: it is deleted, and what the file says holds.
    #[schema(value_type = Option<Object>)]
    document: Option<Value>,
}

impl From<database::Revision> for Revision {
    fn from(revision: database::Revision) -> Self {
        let database::Revision {
            id,
            at,
            by,
            kind,
            name,
            before,
            after,
            rolled_back_from,
        } = revision;
        Revision {
            id,
            at,
            by,
            kind,
            name,
            before,
            after,
            rolled_back_from,
        }
    }
}

/// List revisions from the newest on
#[utoipa::path(get, path = "/api/v1/revisions", tag = "revisions", operation_id = "list_revisions",
    params(Backwards),
    responses((status = 200, description = "who changed what", body = Listed<Revision>,
               headers(("Link" = String, description = "the next piece")))))]
pub(super) async fn list(
    State(running): State<Arc<Running>>,
    Asked(piece): Asked<Backwards>,
) -> Result<Response, Problem> {
    let listed = match &running.database {
        None => Listed {
            items: Vec::new(),
            next: None,
        },
        Some(database) => {
            let page = database.revisions(piece.before, piece.limit).await?;
            Listed {
                items: page.items.into_iter().map(Revision::from).collect(),
                next: page.next,
            }
        }
    };
    Ok(listed.answer("/api/v1/revisions", "before", piece.limit))
}

/// Show a revision
#[utoipa::path(get, path = "/api/v1/revisions/{id}", tag = "revisions", operation_id = "show_revision",
    params(("id" = i64, Path, description = "its number")),
    responses((status = 200, description = "the revision", body = Revision),
              (status = 404, description = "there is none such")))]
pub(super) async fn show(
    State(running): State<Arc<Running>>,
    Named(id): Named<i64>,
    _: Asked<Nothing>,
) -> Result<Json<Revision>, Problem> {
    let revision = match &running.database {
        Some(database) => database.revision(id).await?,
        None => None,
    };
    Ok(Json(revision.ok_or_else(absent)?.into()))
}

/// Take a revision back: what was there before it is written again
#[utoipa::path(post, path = "/api/v1/revisions/{id}/rollback", tag = "revisions", operation_id = "roll_back",
    params(("id" = i64, Path, description = "its number"),
           ("If-Match" = Option<String>, Header, description = "ETag of the version to replace"),
           ("X-Tidegate-Actor" = Option<String>, Header, description = "on whose behalf, for the revision")),
    responses((status = 200, description = "what holds now", body = TakenBack),
              (status = 404, description = "there is no such revision"),
              (status = 409, description = "it cannot be taken back, or no database is configured"),
              (status = 412, description = "it has changed meanwhile")))]
pub(super) async fn rollback(
    State(running): State<Arc<Running>>,
    Named(id): Named<i64>,
    _: Asked<Nothing>,
    conditions: Conditions,
    by: Actor,
) -> Result<Json<TakenBack>, Problem> {
    let database = resources::database(&running)?;
    let revision = database.revision(id).await?.ok_or_else(absent)?;
    let kind = kind(&revision.kind).ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "A key cannot be brought back: make a new one.",
        )
    })?;
    let attempt = || try_rollback(&running, kind, &revision, &conditions, &by);
    let written = turn::take(database, attempt).await?;
    Ok(Json(TakenBack {
        revision: written.revision,
        document: written.stored.map(|stored| stored.document),
    }))
}

/// Absent: overtaken.
async fn try_rollback(
    running: &Arc<Running>,
    kind: Kind,
    revision: &database::Revision,
    conditions: &Conditions,
    by: &Actor,
) -> Result<Option<Written>, Problem> {
    let database = resources::database(running)?;
    let name = revision.name.as_str();
    let row = database.get(kind, name).await?;
    let row = row.as_ref().map(|row| row.etag.as_str());
    let file = documents::of_file(running, kind).await?;
    let file = file.get(name).map(documents::etag_in_file);
    let file = file.as_deref();
    let expected = conditions.expected(Versions { row, file })?;
    let judged_at = match (&revision.before, row) {
        (Some(document), _) => documents::validate(running, kind, name, document).await?,
        (None, Some(_)) => documents::may_go(running, kind, name).await?,
        (None, None) => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "There was nothing before it, and there is nothing now.",
            ));
        }
    };
    let terms = Terms {
        expected,
        judged_at,
    };
    let done = database.rollback(revision.id, &by.0, terms);
    turn::written(done.await)
}

fn kind(name: &str) -> Option<Kind> {
    let kinds = [Kind::Policy, Kind::Tier, Kind::Client, Kind::RouteSettings];
    kinds.into_iter().find(|kind| kind.name() == name)
}

fn absent() -> Problem {
    Problem::not_found("There is no such revision.")
}
