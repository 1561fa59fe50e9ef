//! Documents: what the file says of a resource, what a name may be, and whether a new one may be written.

use super::problem::{FieldProblem, Problem};
use crate::config;
use crate::database::Kind;
use crate::snapshot::Running;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the file says, by name.
pub(super) fn of_file(running: &Running, kind: Kind) -> BTreeMap<String, Value> {
    let mut shown = running.snapshot().shown.json();
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
    let _ = running;
    if !document.is_object() {
        let hint = "write `{...}`, as in the file";
        let message = "a document is a mapping";
        return Err(Problem::invalid(vec![FieldProblem::new("", message, hint)]));
    }
    Ok(())
}

/// Whether a row may go: nothing else may need it.
pub(super) fn may_go(running: &Running, kind: Kind, name: &str) -> Result<(), Problem> {
    let _ = (running, kind, name);
    Ok(())
}

/// Is it a scope (RFC 6749, 3.3)?
pub(super) fn is_scope(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=128).contains(&text.len()) && text.bytes().all(fits)
}
