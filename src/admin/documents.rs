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

/// Findings in one answer.
const MOST_ERRORS: usize = 50;

/// What the file says, by name.
pub(super) fn of_file(running: &Running, kind: Kind) -> BTreeMap<String, Value> {
    let mut shown = running.file_shown().json();
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

/// Whether a document may be written: its name, its shape, and the whole that it would be part of.
pub(super) fn validate(
    running: &Running,
    kind: Kind,
    name: &str,
    document: &Value,
) -> Result<(), Problem> {
    if !is_name(kind, name) {
        let hint = match kind {
            Kind::Client => "write 1 to 128 visible ASCII characters without spaces",
            _ => "write 1 to 63 of `a-z 0-9 _ -`, starting with a letter or digit",
        };
        let message = "nothing can have this name";
        return Err(Problem::invalid(vec![FieldProblem::new(
            "name", message, hint,
        )]));
    }
    if !document.is_object() {
        let hint = "write `{...}`, as in the file";
        let message = "a document is a mapping";
        return Err(Problem::invalid(vec![FieldProblem::new("", message, hint)]));
    }
    let section = section_of(kind);
    let row = Row {
        section,
        name: name.to_owned(),
        document: document.clone(),
    };
    let problems = running.validate(section, name, Some(document)).err();
    let errors = problems.unwrap_or_default();
    let mut errors: Vec<FieldProblem> = errors
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| field_problem(problem, &row.path()))
        .collect();
    errors.truncate(MOST_ERRORS);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::invalid(errors))
    }
}

/// Where documents of a kind stand in the configuration.
fn section_of(kind: Kind) -> Section {
    match kind {
        Kind::Policy => Section::Policies,
        Kind::Tier => Section::Tiers,
        Kind::Client => Section::Clients,
        Kind::RouteSettings => Section::RouteSettings,
    }
}

/// A finding of the configuration's validator; its path begins at the document.
fn field_problem(problem: &config::Problem, top: &str) -> FieldProblem {
    let below = problem.path.strip_prefix(top);
    FieldProblem {
        path: below
            .map_or(problem.path.as_str(), |path| path.trim_start_matches('.'))
            .to_owned(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

/// Whether a row may go: nothing else may need it.
pub(super) fn may_go(running: &Running, kind: Kind, name: &str) -> Result<(), Problem> {
    let Err(problems) = running.validate(section_of(kind), name, None) else {
        return Ok(());
    };
    let mut needed = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| format!("{}: {}", problem.path, problem.message));
    match needed.next() {
        None => Ok(()),
        Some(first) => Err(Problem::new(
            StatusCode::CONFLICT,
            format!("It cannot go, because it is needed: {first}."),
        )),
    }
}

/// Is it a scope (RFC 6749, 3.3)?
pub(super) fn is_scope(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}
