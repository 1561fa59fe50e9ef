//! SQL, control characters and nonsense in every field: an answer below 500, and nothing else happens.

use super::api::{is_problem, send};
use super::stage::Stage;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

const NASTY: [&str; 16] = [
    "'; DROP TABLE policies; --",
    "\" OR \"1\"=\"1",
    "$1",
    "%s%n",
    "\\",
    "\u{0}",
    "a\u{0}b",
    "\r\nX-Injected: 1",
    "\u{1b}[31m",
    "\u{202e}evil",
    "${HOME}",
    "$${X}",
    "../../etc/passwd",
    "a b",
    "\u{10ffff}",
    " ",
];

#[test]
fn nasty_names_reach_nothing() {
    let stage = Stage::new();
    for text in NASTY {
        let name = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        for (method, target) in [
            ("GET", format!("/api/v1/policies/{name}")),
            ("PUT", format!("/api/v1/policies/{name}")),
            ("DELETE", format!("/api/v1/policies/{name}")),
            ("PUT", format!("/api/v1/tiers/{name}")),
            ("PUT", format!("/api/v1/routes/{name}/settings")),
            ("GET", format!("/api/v1/clients/{name}")),
            ("GET", format!("/api/v1/clients/{name}/keys")),
            ("POST", format!("/api/v1/clients/{name}/keys")),
            ("DELETE", format!("/api/v1/keys/{name}")),
            ("GET", format!("/api/v1/revisions/{name}")),
            ("GET", format!("/api/v1/policies?after={name}")),
            ("GET", format!("/api/v1/clients/filer/keys?after={name}")),
            ("GET", format!("/api/v1/revisions?before={name}")),
            ("GET", format!("/api/v1/limits?key={name}")),
            ("GET", format!("/api/v1/limits?ip={name}")),
        ] {
            let answered = send(&stage.gateway, method, &target, &[], b"{}");
            assert!(
                (400..500).contains(&answered.status),
                "{method} {target}: {answered}"
            );
            assert!(answered.header("X-Injected").is_none());
            is_problem(&answered, answered.status);
        }
        // a token may name a client that looks like this
        let answered = stage.get(&format!("/api/v1/limits?client={name}"));
        assert!([200, 400, 404].contains(&answered.status), "{answered}");
    }
    assert_eq!(stage.get("/api/v1/revisions").json()["items"], json!([]));
    assert_eq!(
        stage.server.sql("SELECT count(*) FROM policies").trim(),
        "0"
    );
}

/// Every text of a document replaced by something nasty, one at a time.
fn mutations(document: &Value, nasty: &str) -> Vec<Value> {
    let mut all = Vec::new();
    match document {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => all.push(json!(nasty)),
        Value::Null => (),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                for mutated in mutations(item, nasty) {
                    let mut copy = items.clone();
                    copy[index] = mutated;
                    all.push(Value::Array(copy));
                }
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                for mutated in mutations(value, nasty) {
                    let mut copy = entries.clone();
                    copy.insert(key.clone(), mutated);
                    all.push(Value::Object(copy));
                }
                let mut copy = entries.clone();
                copy.insert(nasty.to_owned(), value.clone());
                all.push(Value::Object(copy));
            }
        }
    }
    all
}

#[test]
fn nasty_texts_in_every_field_of_every_document_are_refused_or_kept_as_they_are() {
    let stage = Stage::new();
    let quota = json!({ "count": 5, "period": "60s" });
    let policy = json!({
        "routes": ["app"], "key": ["client"], "algorithm": "token_bucket", "quota": quota,
        "tiers": { "free": quota }, "overrides": { "acme": { "count": 9, "period": "1s", "expires": "2040-01-01T00:00:00Z" } },
        "cost": 1, "mode": "shadow", "methods": ["GET"], "status": 429
    });
    let settings =
        json!({ "upstream": "app", "canary": { "upstream": "app", "weight": 5 }, "timeout": "5s" });
    let key = json!({ "name": "n", "scopes": ["s"], "expires": "2040-01-01T00:00:00Z" });
    for nasty in NASTY {
        for (method, target, document) in [
            ("PUT", "/api/v1/policies/p", &policy),
            ("PUT", "/api/v1/clients/c", &json!({ "tier": "free" })),
            ("PUT", "/api/v1/tiers/t", &json!({ "x": 1 })),
            ("PUT", "/api/v1/routes/app/settings", &settings),
            ("POST", "/api/v1/clients/filer/keys", &key),
        ] {
            for mutated in mutations(document, nasty) {
                let body = mutated.to_string();
                let answered = send(&stage.gateway, method, target, &[], body.as_bytes());
                assert!(
                    answered.status < 500,
                    "{method} {target} {body}: {answered}"
                );
            }
        }
        let question =
            json!({ "method": nasty, "url": nasty, "headers": { nasty: nasty }, "ip": nasty });
        for mutated in mutations(&question, nasty) {
            let answered = stage.post("/api/v1/explain", &mutated);
            assert!(answered.status < 500, "{mutated}: {answered}");
        }
    }
    // still whole
    assert_eq!(stage.put("/api/v1/policies/p", &policy).status / 100, 2);
    assert_eq!(stage.gateway.get("/").status, 200);
}

#[test]
fn nasty_actors_are_refused() {
    let stage = Stage::new();
    for actor in ["caf\u{e9}", "", "\t", &"x".repeat(129)] {
        let headers = [("X-Tidegate-Actor", actor)];
        let refused = stage.put_with("/api/v1/tiers/t", &json!({}), &headers);
        is_problem(&refused, 400);
    }
    let headers = [("X-Tidegate-Actor", "Robert'); DROP TABLE revisions; --")];
    assert_eq!(
        stage
            .put_with("/api/v1/tiers/t", &json!({}), &headers)
            .status,
        201
    );
    let newest = &stage.get("/api/v1/revisions").json()["items"][0];
    assert_eq!(newest["by"], "Robert'); DROP TABLE revisions; --");
}

#[test]
fn huge_and_deep_bodies_are_refused() {
    let stage = Stage::new();
    let big = json!({ "key": vec!["client"; 200_000] }).to_string();
    is_problem(
        &send(
            &stage.gateway,
            "PUT",
            "/api/v1/policies/p",
            &[],
            big.as_bytes(),
        ),
        413,
    );
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    is_problem(
        &send(
            &stage.gateway,
            "PUT",
            "/api/v1/policies/p",
            &[],
            deep.as_bytes(),
        ),
        400,
    );
    let wide = json!({ "key": vec!["client"; 90_000] }).to_string();
    is_problem(
        &send(
            &stage.gateway,
            "PUT",
            "/api/v1/policies/p",
            &[],
            wide.as_bytes(),
        ),
        422,
    );
    // no length, no end: the head promises more than comes
    let mut connection = crate::client::Connection::open(stage.gateway.admin);
    connection.send("PUT /api/v1/policies/p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..40 {
        connection.send(format!("10000\r\n{}\r\n", " ".repeat(0x10000)));
    }
    let refused = connection.answer_to("PUT");
    if let Ok(refused) = refused {
        is_problem(&refused, 413);
    }
}
