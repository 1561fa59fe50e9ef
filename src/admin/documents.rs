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

/// Whether a document may be written: its shape, and the whole that it would be part of.
pub(super) async fn validate(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: &Value,
) -> Result<(), Problem> {
    if kind == Kind::Client && document.get("api_keys").is_some() {
        let hint = "make one with POST /api/v1/clients/{id}/keys";
        let message = "keys are a resource of their own";
        return Err(Problem::invalid(vec![FieldProblem::new(
            "api_keys", message, hint,
        )]));
    }
    let problems = stands(running, kind, name, Some(document)).await?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Problem::invalid(problems)),
    }
}

/// Whether a row may go: nothing else may need it.
pub(super) async fn may_go(running: &Arc<Running>, kind: Kind, name: &str) -> Result<(), Problem> {
    let problems = stands(running, kind, name, None).await?;
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Problem::needed(problems)),
    }
}

/// What would be wrong with the whole.
async fn stands(
    running: &Arc<Running>,
    kind: Kind,
    name: &str,
    document: Option<&Value>,
) -> Result<Vec<FieldProblem>, Problem> {
    catch_up(running).await?;
    let row = Row {
        section: section(kind),
        name: name.to_owned(),
        document: Value::Null,
    };
    let own_path = row.path();
    let (running, document) = (running.clone(), document.cloned());
    let found =
        blocking(move || running.validate(row.section, &row.name, document.as_ref())).await?;
    let problems = found.err().unwrap_or_default().into_iter();
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    let errors = errors.take(MOST_ERRORS);
    Ok(errors.map(|problem| field(problem, &own_path)).collect())
}

/// A write of a moment ago, here or through another gateway, may not have arrived in the snapshot
/// yet; what is valid is judged by the newest.
async fn catch_up(running: &Arc<Running>) -> Result<(), Problem> {
    let (Some(database), Some(origins)) = (&running.database, &running.origins) else {
        return Ok(());
    };
    let newest = database.revisions(None, 1).await?;
    let newest = newest.items.first().map_or(0, |revision| revision.id);
    if origins.revision() >= newest {
        return Ok(());
    }
    let rows = database.rows().await?;
    let running = running.clone();
    // what is wrong with rows is told where the watcher applies them
    let _ = blocking(move || running.apply_newer(&rows)).await?;
    Ok(())
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

/// Is it a scope (RFC 6749, 3.3)?
pub(super) fn is_scope(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}
