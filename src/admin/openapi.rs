//! `/openapi.json`: the API described by its own handlers and types, completed with what all of them share.

use super::reading::{Asked, Nothing};
use crate::admission::explain::{Explanation, Question};
use crate::config;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use once_cell::sync::Lazy;
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Tidegate admin API", description = "Policies, tiers, clients and keys of a gateway while it serves; what it would do, and why.",
         license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")),
    components(schemas(super::problem::Body, super::problem::FieldProblem)),
    security(("bearer" = [])),
    modifiers(&Bearer)
)]
struct Frame;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("`admin.token` of the configuration, if there is one".to_owned());
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

static DOCUMENT: Lazy<String> = Lazy::new(|| assemble().to_string());

/// The description of this API (OpenAPI 3.1)
#[utoipa::path(get, path = "/openapi.json", tag = "gateway", operation_id = "openapi",
    responses((status = 200, description = "the document", body = Object)))]
pub(super) async fn document(_: Asked<Nothing>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, DOCUMENT.as_str()).into_response()
}

fn assemble() -> Value {
    let mut api = Frame::openapi();
    for router in [super::open(), super::protected()] {
        let (_, part) = router.split_for_parts();
        api.merge(part);
    }
    let mut document = serde_json::to_value(api).unwrap_or_default();
    // merging takes over the title of the parts, which have none of their own
    if let Some(schemas) = object(&mut document, "/components/schemas") {
        schemas.extend(schemas_of_types());
    }
    if let Some(paths) = object(&mut document, "/paths") {
        for (path, item) in paths {
            let operations = item.as_object_mut().into_iter().flat_map(Map::values_mut);
            for operation in operations {
                name_patterns(path, operation);
                complete(operation);
            }
        }
    }
    document
}

fn object<'d>(document: &'d mut Value, pointer: &str) -> Option<&'d mut Map<String, Value>> {
    document.pointer_mut(pointer)?.as_object_mut()
}

/// The schemas that the configuration and the explanation have already.
fn schemas_of_types() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, mut schema: Value| {
        let own = schema.as_object_mut();
        let parts = own.and_then(|schema| {
            schema.remove("$schema");
            schema.remove("$defs")
        });
        if let Some(Value::Object(parts)) = parts {
            all.extend(parts);
        }
        all.insert(name.to_owned(), schema);
    };
    add("Configuration", config::schema_of_types());
    add("Explanation", schemars::schema_for!(Explanation).to_value());
    add("ExplainRequest", schemars::schema_for!(Question).to_value());
    let tier = json!({ "type": ["string", "null"], "description": "Its tier, one of `tiers`." });
    all.insert(
        "ClientDocument".to_owned(),
        json!({ "type": "object", "description": "A client.", "additionalProperties": false, "properties": { "tier": tier } }),
    );
    for schema in all.values_mut() {
        point_at_components(schema);
    }
    all
}

/// What a name in a path can be.
fn name_patterns(path: &str, operation: &mut Value) {
    let Some(Value::Array(parameters)) = operation.get_mut("parameters") else {
        return;
    };
    for parameter in parameters {
        let name = parameter.get("name").and_then(Value::as_str);
        let pattern = match name {
            Some("name") => "^[a-z0-9][a-z0-9_-]{0,62}$",
            Some("id") if path.starts_with("/api/v1/clients/") => "^[!-~]{1,128}$",
            Some("id") if path.starts_with("/api/v1/keys/") => "^[0-9a-z]{12}$",
            _ => continue,
        };
        if let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) {
            schema.insert("pattern".to_owned(), json!(pattern));
        }
    }
}

/// `#/$defs/X` is `#/components/schemas/X` here, and a secret is shown masked.
fn point_at_components(schema: &mut Value) {
    if let Some(secret) = schema
        .as_object_mut()
        .filter(|schema| schema.contains_key("writeOnly"))
    {
        for keyword in ["writeOnly", "format", "pattern"] {
            secret.remove(keyword);
        }
    }
    match schema {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/$defs/") {
                *text = format!("#/components/schemas/{name}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point_at_components),
        Value::Object(entries) => entries.values_mut().for_each(point_at_components),
        _ => (),
    }
}

/// The refusals that reading a request and letting it in have for every operation alike; and every
/// refusal is a problem.
fn complete(operation: &mut Value) {
    let open = operation.get("security").is_some();
    let body = operation.get("requestBody").is_some();
    let Some(Value::Object(responses)) = operation.get_mut("responses") else {
        return;
    };
    let mut add = |status: &str, description: &str| {
        responses
            .entry(status)
            .or_insert_with(|| json!({ "description": description }));
    };
    add(
        "403",
        "without a token: the request comes from another site",
    );
    if !open {
        add("400", "a parameter or a header cannot be used");
        add("401", "the bearer token is missing or wrong");
        add("404", "the path names nothing");
        add("415", "the body is not JSON");
        add("503", "the database or the shared store does not answer");
    }
    if body {
        add("408", "the body did not arrive in time");
        add("413", "the body is larger than 1 MiB");
        add(
            "422",
            "the document or a parameter is not valid; `errors` says where and why",
        );
    }
    for (status, response) in responses.iter_mut() {
        let refusal = matches!(status.bytes().next(), Some(b'4' | b'5'));
        let Some(response) = response.as_object_mut().filter(|_| refusal) else {
            continue;
        };
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        response
            .entry("content")
            .or_insert_with(|| json!({ "application/problem+json": { "schema": schema } }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                all.push((path.clone(), method.clone(), operation.clone()));
            }
        }
        all
    }

    #[test]
    fn the_document_says_everything_about_every_operation() {
        let document = assemble();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["title"], "Tidegate admin API");
        assert_eq!(
            document["components"]["securitySchemes"]["bearer"]["scheme"],
            "bearer"
        );
        let mut ids = Vec::new();
        for (path, method, operation) in operations(&document) {
            let what = format!("{method} {path}: {operation}");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty() && !summary.ends_with('.'), "{what}");
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{what}"
            );
            for (status, response) in responses {
                let problem = &response["content"]["application/problem+json"];
                let refusal = status.starts_with('4') || (status == "503" && path != "/health");
                assert_eq!(problem.is_object(), refusal, "{status} of {what}");
            }
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let named = part.trim_end_matches('}');
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters
                        .iter()
                        .any(|p| p["name"] == named && p["in"] == "path"),
                    "{what}"
                );
            }
            let open = operation["security"] == json!([{}]);
            assert_eq!(open, path == "/" || path == "/health", "{what}");
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "operation ids are unique");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                Value::Object(entries) => {
                    for (key, value) in entries {
                        match (key.as_str(), value) {
                            ("$ref", Value::String(to)) => found.push(to.clone()),
                            _ => references(value, found),
                        }
                    }
                }
                _ => (),
            }
        }
        let document = assemble();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for to in found {
            let pointer = to.strip_prefix('#').unwrap_or_else(|| panic!("{to}"));
            assert!(document.pointer(pointer).is_some(), "{to}");
        }
    }

    #[test]
    fn only_what_is_documented_is_routed() {
        let source = include_str!("../admin.rs");
        let registered = source.matches("::new()").count();
        assert!(
            !source.contains(".route("),
            "register with routes!, which documents"
        );
        assert!(registered >= 2);
        let handlers: usize = source
            .split("routes!(")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap().matches("::").count())
            .sum();
        assert_eq!(handlers, operations(&assemble()).len());
    }
}
