//! The API as a whole: its description, and the problems that every operation has alike.

use crate::client::{Connection, Response};
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::Upstream;
use serde_json::{Value, json};

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A request with a JSON body on the admin listener.
pub(crate) fn send(
    gateway: &Gateway,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let headers: Vec<_> = [JSON].iter().chain(headers).copied().collect();
    Connection::open(gateway.admin).request(method, target, &headers, body)
}

pub(crate) fn post(gateway: &Gateway, target: &str, body: &Value) -> Response {
    send(gateway, "POST", target, &[], body.to_string().as_bytes())
}

/// A refusal as every one of them must look.
pub(crate) fn is_problem(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{response}");
    assert_eq!(
        response.header("Content-Type"),
        Some("application/problem+json"),
        "{response}"
    );
    let body = response.json();
    assert_eq!(body["status"], status, "{body}");
    assert!(
        body["title"].is_string() && body["detail"].is_string(),
        "{body}"
    );
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + EVERYTHING))
}

#[test]
fn everything_in_the_description_is_served() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let document = gateway.ask_admin("/openapi.json", &[]).json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 18, "{:?}", paths.keys());
    for (path, item) in paths {
        let target = path.replace("{id}", "1").replace("{name}", "app");
        for method in item.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let response = send(&gateway, &method, &target, &[], b"");
            let text = response.text();
            assert_ne!(response.status, 405, "{method} {target}");
            assert!(
                !text.contains("Nothing is served here"),
                "{method} {target}: {text}"
            );
            assert!(response.status < 500, "{method} {target}: {text}");
            let documented = &item[method.to_ascii_lowercase()]["responses"];
            let status = response.status.to_string();
            assert!(
                documented.get(&status).is_some(),
                "{method} {target}: {status}"
            );
        }
        let other = send(&gateway, "PATCH", &target, &[], b"{}");
        is_problem(&other, 405);
        assert!(other.header("Allow").is_some(), "{target}: {other}");
    }
}

#[test]
fn with_a_token_everything_but_health_and_the_start_page_needs_it() {
    let upstream = Upstream::echo();
    let gateway =
        Gateway::start_with_admin(", token: s3cret", &(app(upstream.address) + EVERYTHING));
    let bearer = [("Authorization", "Bearer s3cret")];
    let document = gateway.ask_admin("/openapi.json", &bearer).json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let target = path.replace("{id}", "1").replace("{name}", "app");
        for method in item.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let response = send(&gateway, &method, &target, &[], b"");
            let open = path == "/" || path == "/health";
            match open {
                true => assert_eq!(response.status, 200, "{method} {target}"),
                false => is_problem(&response, 401),
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_a_problem_that_says_why() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let target = "/api/v1/explain";
    let said = send(&gateway, "POST", target, &[], b"{\"url\":\n  oops}");
    is_problem(&said, 400);
    assert!(said.text().contains("line 2 column"), "{said}");
    for body in [
        &b""[..],
        b"{",
        b"\xff\xfe",
        b"{} {}",
        b"{\"url\":\"a\",\"url\":\"b\"}",
        &[b'['; 5000][..],
    ] {
        is_problem(&send(&gateway, "POST", target, &[], body), 400);
    }
    let huge = format!("{{\"url\":\"{}\"}}", "x".repeat(1024 * 1024));
    is_problem(&send(&gateway, "POST", target, &[], huge.as_bytes()), 413);
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
    ] {
        let headers = [("Content-Type", kind)];
        let said = Connection::open(gateway.admin).request("POST", target, &headers, b"{}");
        is_problem(&said, 415);
    }
    is_problem(
        &send(&gateway, "GET", "/api/v1/policies/%ff", &[], b""),
        404,
    );
    is_problem(&send(&gateway, "GET", "/api/v1/revisions/x", &[], b""), 404);
    is_problem(&send(&gateway, "GET", "/nothing", &[], b""), 404);
    for target in [
        "/api/v1/policies?limti=5",
        "/api/v1/policies?limit=0",
        "/api/v1/policies?limit=1001",
        "/api/v1/policies?limit=-1",
        "/api/v1/policies?limit=5&limit=6",
        "/api/v1/policies?after=a%00b",
        "/api/v1/policies/p?x=1",
        "/api/v1/revisions?before=x",
        "/api/v1/config?pretty",
        "/api/v1/limits?clent=acme",
    ] {
        is_problem(&gateway.ask_admin(target, &[]), 400);
    }
}

#[test]
fn answers_are_not_kept_by_anybody() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    for target in ["/api/v1/config", "/health", "/nothing"] {
        let response = gateway.ask_admin(target, &[]);
        assert_eq!(
            response.header("Cache-Control"),
            Some("no-store"),
            "{target}"
        );
    }
}

#[test]
fn the_running_configuration_is_shown_without_secrets() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start_with_admin(
        ", token: s3cret-token",
        &format!(
            "{}{EVERYTHING}clients: {{ acme: {{ api_keys: [{{ plain: key-of-acme-0123456789 }}] }} }}
store: {{ redis: {{ url: \"redis://user:hush-hush@127.0.0.1:1/0\" }} }}\n",
            app(upstream.address)
        ),
    );
    let bearer = [("Authorization", "Bearer s3cret-token")];
    let response = gateway.ask_admin("/api/v1/config", &bearer);
    assert_eq!(response.status, 200);
    let text = response.text();
    for secret in ["s3cret-token", "hush-hush", "key-of-acme"] {
        assert!(!text.contains(secret), "{text}");
    }
    let shown = response.json();
    assert_eq!(shown["routes"][0]["name"], "app");
    assert_eq!(shown["admin"]["token"], "***");
    assert_eq!(shown["store"]["redis"]["url"], "redis://***@127.0.0.1:1/0");
    assert_eq!(shown["server"]["grace_period"], "30s");
    let client = gateway.ask_admin("/api/v1/clients/acme", &bearer);
    assert_eq!(client.json()["document"], json!({ "tier": null }));
}

#[test]
fn without_a_database_the_files_documents_are_shown_and_nothing_is_written() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + EVERYTHING
            + "tiers: { free: {}, pro: {} }
clients: { acme: { tier: pro }, bob: {} }
policies:
  a: { key: [client], algorithm: token_bucket, quota: { count: 5, period: 60s } }
  b: { key: [ip], algorithm: fixed_window, quota: { count: 5, calendar: day } }
  c: { key: [ip], algorithm: concurrency, quota: { count: 5 }, mode: \"off\" }
"),
    );
    let listed = gateway.ask_admin("/api/v1/policies?limit=2", &[]);
    assert_eq!(listed.status, 200, "{listed}");
    let body = listed.json();
    assert_eq!(body["items"][0]["name"], "a");
    assert_eq!(body["items"][0]["source"], "file");
    assert_eq!(body["items"][0]["document"]["quota"]["count"], 5);
    assert_eq!(body["next"], "b");
    let link = listed.header("Link").unwrap();
    assert_eq!(link, "</api/v1/policies?limit=2&after=b>; rel=\"next\"");
    let rest = gateway
        .ask_admin("/api/v1/policies?limit=2&after=b", &[])
        .json();
    assert_eq!(rest["items"][0]["name"], "c");
    assert_eq!(rest["next"], Value::Null);

    let one = gateway.ask_admin("/api/v1/policies/a", &[]);
    let etag = one.header("ETag").unwrap().to_owned();
    assert_eq!(etag.trim_matches('"'), one.json()["etag"].as_str().unwrap());
    let again = gateway.ask_admin("/api/v1/policies/a", &[("If-None-Match", &etag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(
        gateway.ask_admin("/api/v1/tiers/pro", &[]).json()["document"],
        json!({})
    );
    let settings = gateway.ask_admin("/api/v1/routes/app/settings", &[]);
    assert_eq!(settings.status, 200, "{settings}");
    for target in [
        "/api/v1/policies/z",
        "/api/v1/tiers/z",
        "/api/v1/clients/z",
        "/api/v1/routes/z/settings",
        "/api/v1/revisions/1",
        "/api/v1/clients/z/keys",
    ] {
        is_problem(&gateway.ask_admin(target, &[]), 404);
    }
    assert_eq!(
        gateway.ask_admin("/api/v1/revisions", &[]).json()["items"],
        json!([])
    );
    assert_eq!(
        gateway.ask_admin("/api/v1/clients/acme/keys", &[]).json()["items"],
        json!([])
    );
    for (method, target) in [
        ("PUT", "/api/v1/policies/a"),
        ("DELETE", "/api/v1/policies/a"),
        ("PUT", "/api/v1/tiers/t"),
        ("PUT", "/api/v1/clients/acme"),
        ("PUT", "/api/v1/routes/app/settings"),
        ("POST", "/api/v1/clients/acme/keys"),
        ("DELETE", "/api/v1/keys/0123456789ab"),
        ("POST", "/api/v1/revisions/1/rollback"),
    ] {
        let refused = send(&gateway, method, target, &[], b"{}");
        is_problem(&refused, 409);
        assert!(refused.text().contains("database.url"), "{refused}");
    }
}
