//! Documents: what the file says of a resource, what a name may be, and whether a new one may be written.

use super::problem::{FieldProblem, Problem};
use crate::config::{self, Row, Section, Severity};
use crate::database::Kind;
use crate::snapshot::Running;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// A revision that there never is.
const NONE: i64 = -1;

/// Findings in one answer.
const MOST_ERRORS: usize = 50;

/// What the file says, by name.
pub(super) async fn of_file(
    running: &Arc<Running>,
    kind: Kind,
) -> Result<BTreeMap<String, Value>, Problem> {
    let running = running.clone();
    blocking(move || documents(running.file_shown().json(), kind)).await
}

fn documents(mut shown: Value, kind: Kind) -> BTreeMap<String, Value> {
    let section = |name: &str, shown: &mut Value| match shown.get_mut(name).map(Value::take) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    };
    match kind {
        Kind::Policy => section("policies", &mut shown).into_iter().collect(),
        Kind::Tier => section("tiers", &mut shown).into_iter().collect(),
        // its keys are a resource of their own
        Kind::Client => section("clients", &mut shown)
            .into_iter()
            .map(|(id, client)| {
                let tier = client.get("tier").cloned().unwrap_or_default();
                (id, serde_json::json!({ "tier": tier }))
            })
            .collect(),
        Kind::RouteSettings => match shown.get_mut("routes").map(Value::take) {
            Some(Value::Array(routes)) => routes.into_iter().filter_map(settings).collect(),
            _ => BTreeMap::new(),
        },
    }
}

fn settings(mut route: Value) -> Option<(String, Value)> {
    let name = route.get("name")?.as_str()?.to_owned();
    let settings = route.get_mut("settings").map(Value::take);
    let settings = settings.filter(Value::is_object);
    Some((name, settings.unwrap_or_else(|| Value::Object(Map::new()))))
}

/// The version of a document of the file; no row has such a one.
pub(super) fn etag_in_file(document: &Value) -> String {
    let digest = Sha256::digest(document.to_string());
    let mut etag = "file-".to_owned();
    for byte in digest.iter().take(8) {
        // writing into a string does not fail
        let _ = write!(etag, "{byte:02x}");
    }
    etag
}

/// Can there be a resource of this name?
pub(super) fn is_name(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Client => config::is_client_id(name),
        Kind::Policy | Kind::Tier | Kind::RouteSettings => config::is_name(name),
    }
}

/// Whether something may be created under a name.
pub(super) fn check_name(kind: Kind, name: &str) -> Result<(), Problem> {
    if is_name(kind, name) {
        return Ok(());
    }
    let hint = match kind {
        Kind::Client => "write 1 to 128 visible ASCII characters without spaces",
        _ => "write 1 to 63 of `a-z 0-9 _ -`, starting with a letter or digit",
    };
    let message = "nothing can have this name";
    Err(Problem::invalid(vec![FieldProblem::new(
        "name", message, hint,
    )]))
}

/// Whether a document may be written: its shape, and the whole that it would be part of. The
/// newest revision of that; absent: nobody counts any.
pub(super) async fn validate(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: &Value,
) -> Result<Option<i64>, Problem> {
    if kind == Kind::Client && document.get("api_keys").is_some() {
        let hint = "make one with POST /api/v1/clients/{id}/keys";
        let message = "keys are a resource of their own";
        return Err(Problem::invalid(vec![FieldProblem::new(
            "api_keys", message, hint,
        )]));
    }
    let (problems, judged_at) = stands(running, kind, name, Some(document)).await?;
    match problems.is_empty() {
        true => Ok(judged_at),
        false => Err(Problem::invalid(problems)),
    }
}

/// Whether a row may go: nothing else may need it. The newest revision of what was looked at.
pub(super) async fn may_go(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
) -> Result<Option<i64>, Problem> {
    let (problems, judged_at) = stands(running, kind, name, None).await?;
    match problems.is_empty() {
        true => Ok(judged_at),
        false => Err(Problem::needed(problems)),
    }
}

/// What would be wrong with the whole, and the newest revision of it.
async fn stands(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: Option<&Value>,
) -> Result<(Vec<FieldProblem>, Option<i64>), Problem> {
    let (arrived, newest) = catch_up(running).await?;
    let row = Row {
        section: section(kind),
        name: name.to_owned(),
        document: Value::Null,
    };
    let own_path = row.path();
    let (task, document) = (running.clone(), document.cloned());
    let found = blocking(move || task.validate(row.section, &row.name, document.as_ref())).await?;
    // where the snapshot has moved meanwhile nobody knows which one it was: no revision is this one
    let is_same = arrived == taken_over(running);
    let judged_at = newest.map(|newest| if is_same { newest } else { NONE });
    let problems = found.err().unwrap_or_default().into_iter();
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    let errors = errors.take(MOST_ERRORS);
    let errors = errors.map(|problem| field(problem, &own_path)).collect();
    Ok((errors, judged_at))
}

/// The newest revision in the snapshot; absent: nobody counts any.
fn taken_over(running: &Running) -> Option<i64> {
    let origins = running.database.as_ref().and(running.origins.as_ref());
    origins.map(|origins| origins.revision())
}

/// A write of a moment ago, here or through another gateway, may not have arrived in the snapshot
/// yet; what is valid is judged by the newest. That in the snapshot, and the newest there is: they
/// differ only where what the database has cannot be taken over.
async fn catch_up(running: &Arc<Running>) -> Result<(Option<i64>, Option<i64>), Problem> {
    let Some(database) = &running.database else {
        return Ok((None, None));
    };
    let arrived = taken_over(running);
    let newest = database.revisions(None, 1).await?;
    let newest = newest.items.first().map_or(0, |revision| revision.id);
    if arrived.is_none_or(|arrived| arrived == newest) {
        return Ok((arrived, arrived));
    }
    let rows = database.rows().await?;
    let newest = rows.revision;
    let task = running.clone();
    // what is wrong with rows is told where the watcher applies them
    let applied = blocking(move || task.apply_newer(&rows)).await?;
    let arrived = taken_over(running);
    match applied {
        Ok(_) => Ok((arrived, arrived)),
        Err(_) => Ok((arrived, Some(newest))),
    }
}

/// Compiling a large configuration takes a while, in which others are to be answered.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!("work of the admin API failed: {error}");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something is wrong with this gateway; nothing was changed.",
        )
    })
}

fn section(kind: Kind) -> Section {
    match kind {
        Kind::Policy => Section::Policies,
        Kind::Tier => Section::Tiers,
        Kind::Client => Section::Clients,
        Kind::RouteSettings => Section::RouteSettings,
    }
}

/// A problem of the document itself has a path within it, one of others the whole path.
fn field(problem: config::Problem, own_path: &str) -> FieldProblem {
    let within = problem.path.strip_prefix(own_path);
    let within = within.filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    FieldProblem {
        path: within
            .map_or(problem.path.as_str(), |rest| rest.trim_start_matches('.'))
            .to_owned(),
        message: problem.message,
        hint: problem.hint,
    }
}
