//! `POST /api/v1/explain` and `tidegate explain`: what would happen, why, and at nobody's cost.

use super::api::post;
use crate::gateway::{Gateway, app, outcome, tidegate};
use crate::redis::RedisServer;
use crate::scratch::Scratch;
use crate::upstream::Upstream;
use serde_json::{Value, json};

const ROUTES: &str = "tiers: { pro: {} }
clients: { acme: { tier: pro, api_keys: [{ plain: key-of-acme-0123456789 }] }, other: { api_keys: [{ plain: key-of-other-0123456789 }] } }
routes:
  - { name: search, match: { hosts: [api.example.com], path: /search, methods: [GET] }, upstream: app, auth: required }
  - { name: open, match: { path: /open }, upstream: app, auth: optional }
policies:
  per-client:
    routes: [search]
    key: [client]
    algorithm: token_bucket
    quota: { count: 2, period: 1h }
    tiers: { pro: { count: 5, period: 1h } }
    overrides: { other: { count: 1, period: 1h } }
  watch:
    routes: [search]
    key: [ip]
    algorithm: fixed_window
    quota: { count: 1, period: 1h }
    mode: shadow
  posts: { routes: [open], key: [ip], algorithm: sliding_window, quota: { count: 7, period: 60s }, methods: [POST] }
  by-key: { routes: [open], key: [\"header:x-api-key\"], algorithm: token_bucket, quota: { count: 1, period: 1h } }
";

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + ROUTES))
}

fn explained(gateway: &Gateway, question: &Value) -> Value {
    let response = post(gateway, "/api/v1/explain", question);
    assert_eq!(response.status, 200, "{response}");
    assert!(!response.text().contains("key-of-"), "{response}");
    response.json()
}

fn search(key: &str) -> Value {
    json!({ "url": "http://api.example.com/search", "headers": { "X-API-Key": key }, "ip": "127.0.0.1" })
}

#[test]
fn what_is_explained_is_what_happens_and_costs_nothing() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let host = ("Host", "api.example.com");
    for _ in 0..20 {
        let said = explained(&gateway, &search("key-of-other-0123456789"));
        assert_eq!(said["outcome"]["verdict"], "allowed", "{said}");
    }
    let said = explained(&gateway, &search("key-of-acme-0123456789"));
    assert_eq!(said["route"]["name"], "search");
    assert_eq!(
        said["route"]["takes"],
        "host api.example.com, path below /search, method GET"
    );
    assert_eq!(said["client"]["id"], "acme");
    assert_eq!(said["client"]["tier"], "pro");
    let policy = &said["policies"][0];
    assert_eq!(policy["policy"], "per-client");
    assert_eq!(policy["quota_of"], "tier");
    assert_eq!(policy["quota_name"], "pro");
    assert_eq!(policy["quota"], json!({ "count": 5, "period": "1h" }));
    assert_eq!(policy["key"], "t:per-client:c:acme");
    assert_eq!(policy["remaining"], 5);
    assert_eq!(policy["defined_in"], "file");

    let key = ("X-API-Key", "key-of-other-0123456789");
    assert_eq!(gateway.get_with("/search", &[host, key]).status, 200);
    let said = explained(&gateway, &search("key-of-other-0123456789"));
    assert_eq!(said["outcome"]["verdict"], "refused", "{said}");
    assert_eq!(said["outcome"]["status"], 429);
    assert_eq!(said["outcome"]["policy"], "per-client");
    assert_eq!(said["policies"][0]["quota_of"], "override");
    assert_eq!(said["policies"][1]["policy"], "watch");
    assert_eq!(said["policies"][1]["shadow"], true);
    assert_eq!(said["policies"][1]["has_room"], false, "{said}");
    let refused = gateway.get_with("/search", &[host, key]);
    assert_eq!(refused.status, 429);
    let wait = said["outcome"]["retry_after"].as_u64().unwrap();
    assert!(
        wait.abs_diff(refused.number("Retry-After")) <= 2,
        "{said} {refused}"
    );
    // shadow alone refuses nobody
    let said = explained(&gateway, &search("key-of-acme-0123456789"));
    assert_eq!(said["outcome"]["verdict"], "allowed", "{said}");
}

#[test]
fn where_there_is_no_route_it_says_why() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    for (question, status, allow) in [
        (
            json!({ "url": "http://api.example.com/nothing" }),
            404,
            None,
        ),
        (json!({ "url": "http://elsewhere/search" }), 404, None),
        (
            json!({ "url": "http://api.example.com/search", "method": "POST" }),
            405,
            Some("GET, HEAD"),
        ),
        (
            json!({ "url": "http://api.example.com/open%2f" }),
            400,
            None,
        ),
        (
            json!({ "url": "/open", "headers": { "Host": "not a host" } }),
            400,
            None,
        ),
        (json!({ "url": "http://api.example.com/search" }), 401, None),
        (search("wrong"), 401, None),
    ] {
        let said = explained(&gateway, &question);
        assert_eq!(said["outcome"]["status"], status, "{said}");
        assert_eq!(said["outcome"]["allow"].as_str(), allow, "{said}");
        assert_eq!(said["policies"], json!([]));
    }
    // wrong keys in questions are no failed authentications
    for _ in 0..60 {
        explained(&gateway, &search("wrong"));
    }
    let headers = [
        ("Host", "api.example.com"),
        ("X-API-Key", "key-of-acme-0123456789"),
    ];
    assert_eq!(gateway.get_with("/search", &headers).status, 200);
}

#[test]
fn policies_that_do_not_apply_are_named_and_credentials_in_keys_masked() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let question =
        json!({ "url": "http://any/open", "headers": { "X-API-Key": ["key-of-acme-0123456789"] } });
    let said = explained(&gateway, &question);
    assert!(
        said["not_applied"][0].as_str().unwrap().contains("`posts`"),
        "{said}"
    );
    assert_eq!(said["policies"][0]["key"], "*:by-key:***");
    assert_eq!(said["client"]["id"], "acme");
    let said = explained(
        &gateway,
        &json!({ "url": "http://any/open", "method": "POST" }),
    );
    assert_eq!(said["client"]["id"], Value::Null);
    assert_eq!(said["policies"].as_array().unwrap().len(), 2);
}

#[test]
fn questions_that_make_no_sense_are_told_what_is_wrong() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    for (question, path) in [
        (json!({ "url": "http://h/", "method": "G\nT" }), "method"),
        (json!({ "url": "nowhere" }), "url"),
        (
            json!({ "url": "http://h/", "headers": { "a": "x\u{0}y" } }),
            "headers.a",
        ),
        (json!({ "url": "http://h/", "ip": "300.1.1.1" }), ""),
        (json!({ "url": "http://h/", "path": "/" }), ""),
        (json!([1]), ""),
        (json!({}), ""),
    ] {
        let response = post(&gateway, "/api/v1/explain", &question);
        assert_eq!(response.status, 422, "{response}");
        assert_eq!(response.json()["errors"][0]["path"], path, "{response}");
    }
}

#[test]
fn the_command_asks_the_running_gateway_and_else_the_file() {
    let upstream = Upstream::echo();
    let gateway =
        Gateway::start_with_admin(", token: s3cret-token", &(app(upstream.address) + ROUTES));
    let scratch = Scratch::new();
    let file = |admin: &str, token: &str| {
        let name = format!("{}.yaml", admin.replace(':', "-") + token);
        let text = format!(
            "admin: {{ address: \"{admin}\", token: \"{token}\" }}\n{}{ROUTES}",
            app(upstream.address)
        );
        scratch.file(&name, &text)
    };
    let explain = |file: &std::path::Path, more: &[&str]| {
        let mut command = tidegate(scratch.path());
        command.args(["explain", "-c"]).arg(file).args(more);
        let said = outcome(&mut command);
        assert!(!format!("{said:?}").contains("key-of-"), "{said:?}");
        assert!(!format!("{said:?}").contains("s3cret"), "{said:?}");
        said
    };
    let acme = "X-API-Key: key-of-acme-0123456789";
    let request = [
        "--url",
        "http://api.example.com/search?q=1",
        "--header",
        acme,
    ];
    let headers = [
        ("Host", "api.example.com"),
        ("X-API-Key", "key-of-acme-0123456789"),
    ];
    assert_eq!(gateway.get_with("/search", &headers).status, 200);

    let here = file(&gateway.admin.to_string(), "s3cret-token");
    let (code, out, err) = explain(&here, &request);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for part in [
        "request        GET api.example.com/search from 127.0.0.1",
        "the gateway at 127.0.0.1:",
        "search (host api.example.com, path below /search, method GET) -> upstream app",
        "acme, tier pro (API key",
        "per-client has room",
        "that of tier pro, from the file",
        "bucket t:per-client:c:acme",
        "4 of 5 left",
        "watch would refuse, but is shadow",
        "allowed: it is forwarded",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    let (code, out, _) = explain(
        &here,
        &["--offline", request[0], request[1], request[2], request[3]],
    );
    assert_eq!(code, Some(0));
    assert!(
        out.contains("the file alone") && out.contains("5 of 5 left"),
        "{out}"
    );
    let nobody = file("127.0.0.1:1", "x");
    let (code, out, _) = explain(&nobody, &request);
    assert_eq!(code, Some(0));
    assert!(out.contains("no gateway answers at 127.0.0.1:1"), "{out}");
    let text = std::fs::read_to_string(&here).unwrap()
        + "database: { url: \"postgres://127.0.0.1:1/tide\" }\n";
    let with_database = scratch.file("with-database.yaml", &text);
    let (code, out, err) = explain(&with_database, &[&["--offline"], &request[..]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("not evaluated  what the database has"),
        "{out}"
    );
    assert!(
        out.contains("outcome        not known: by the file alone, "),
        "{out}"
    );
    let (code, _, err) = explain(&file(&gateway.admin.to_string(), "wrong"), &request);
    assert_eq!(code, Some(1));
    assert!(err.contains("401") && err.contains("--offline"), "{err}");
    let (code, _, err) = explain(&here, &["--url", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("url: "), "{err}");
    let (code, _, err) = explain(
        &here,
        &["--url", "http://h/", "--header", "key-of-acme-0123456789"],
    );
    assert_eq!(code, Some(1));
    assert!(err.contains("no colon"), "{err}");
}

#[test]
fn without_the_shared_store_it_says_what_is_not_known_and_what_refuses_all_the_same() {
    let upstream = Upstream::echo();
    let redis = RedisServer::start();
    let policies: String = (0..6)
        .map(|n| format!("  p{n}: {{ routes: [open], key: [ip], algorithm: token_bucket, quota: {{ count: 5, period: 1h }} }}\n"))
        .collect();
    let gateway = Gateway::start(&format!(
        "{}store: {{ redis: {{ url: \"{}\" }} }}
routes: [{{ name: open, match: {{ path: /open }}, upstream: app }}, {{ name: shut, match: {{ path: /shut }}, upstream: app }}]
policies:
{policies}  shut: {{ routes: [shut], key: [ip], algorithm: token_bucket, quota: {{ count: 5, period: 1h }}, on_outage: deny }}
",
        app(upstream.address),
        redis.url()
    ));
    let ask = |path: &str| explained(&gateway, &json!({ "url": format!("http://h{path}") }));
    crate::waiting::until("the store answers", || {
        ask("/open")["outcome"]["verdict"] == "allowed"
    });
    redis.freeze();
    let begin = std::time::Instant::now();
    let said = ask("/open");
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    assert_eq!(said["outcome"]["verdict"], "unknown", "{said}");
    assert_eq!(said["not_evaluated"].as_array().unwrap().len(), 6);
    assert_eq!(said["policies"][5]["remaining"], Value::Null);
    let said = ask("/shut");
    assert_eq!(said["outcome"]["status"], 503, "{said}");
    redis.thaw();
}

#[test]
fn what_depends_on_a_client_that_forward_auth_would_name_is_not_decided() {
    let upstream = Upstream::echo();
    let policy = |key: &str, count: u8| {
        format!(
            "{{ key: [{key}], algorithm: token_bucket, quota: {{ count: {count}, period: 1h }} }}"
        )
    };
    let text = |settings: &str| {
        format!(
            "{}routes: [{{ name: app, upstream: app, forward_auth: {{ url: 'http://{}/'{settings} }} }}]
policies: {{ per-client: {}, per-address: {} }}
",
            app(upstream.address),
            upstream.address,
            policy("client", 1),
            policy("ip", 2),
        )
    };
    let question = json!({ "url": "http://x/", "ip": "127.0.0.1" });
    let gateway = Gateway::start(&text(", client_header: X-User"));
    let said = explained(&gateway, &question);
    let policies = |said: &Value| said["policies"].as_array().unwrap().len();
    assert_eq!(policies(&said), 1, "{said}");
    assert_eq!(said["policies"][0]["policy"], "per-address");
    let not_evaluated = said["not_evaluated"].to_string();
    assert!(not_evaluated.contains("policy `per-client`: "), "{said}");
    assert_eq!(gateway.get("/").status, 200);
    // nobody was named, so the address has used up what a client may
    assert_eq!(gateway.get("/").status, 429);
    let said = explained(&gateway, &question);
    assert_eq!(said["outcome"]["verdict"], "unknown", "{said}");
    let gateway = Gateway::start(&text(""));
    let said = explained(&gateway, &question);
    assert_eq!(policies(&said), 2, "{said}");
}
