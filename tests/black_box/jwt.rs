//! Tokens: who is believed, what is forwarded, and what is said to those who are not.

use crate::gateway::{Gateway, app};
use crate::token::{by_rsa, by_secret, key_file, now};
use crate::upstream::{Upstream, header_in};
use serde_json::json;

const SECRET: &str = "a-secret-of-at-least-32-characters";

fn with(upstream: &Upstream, rest: &str) -> Gateway {
    let rsa = key_file("rsa.pub");
    Gateway::start(&format!(
        "{}auth:
  jwt:
    issuer: https://issuer.example
    audience: tidegate
    algorithms: [HS256, RS256]
    keys: [{{ kid: dev, secret: {SECRET} }}, {{ kid: main, pem_file: {rsa} }}]
tiers: {{ free: {{}}, pro: {{}} }}
clients:
  acme: {{ tier: free, api_keys: [{{ plain: key-of-acme }}] }}
routes:
  - {{ name: open, match: {{ path: /open }}, upstream: app }}
  - {{ name: optional, match: {{ path: /optional }}, upstream: app, auth: optional }}
  - {{ name: required, match: {{ path: /required }}, upstream: app, auth: required }}
  - {{ name: forwarding, match: {{ path: /forwarding }}, upstream: app, auth: required, forward_credentials: true }}
  - {{ name: scoped, match: {{ path: /scoped }}, upstream: app, auth: required, scopes: ['orders:read', 'orders:write'] }}
{rest}",
        app(upstream.address)
    ))
}

fn token(sub: &str, more: serde_json::Value) -> String {
    let mut claims = json!({ "iss": "https://issuer.example", "aud": ["tidegate"], "sub": sub });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    by_secret(SECRET, claims)
}

#[test]
fn a_valid_token_names_client_and_tier_and_stays_here() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let token = token("globex", json!({ "tier": "pro" }));
    let get = |path: &str| gateway.get_with(path, &[("Authorization", &token)]);
    for _ in 0..2 {
        let seen = get("/required").text();
        assert_eq!(header_in(&seen, "x-tidegate-client"), Some("globex"));
        assert_eq!(header_in(&seen, "x-tidegate-tier"), Some("pro"));
        assert_eq!(header_in(&seen, "authorization"), None);
    }
    let seen = get("/forwarding").text();
    assert_eq!(header_in(&seen, "authorization"), Some(token.as_str()));
    let seen = get("/open").text();
    assert_eq!(header_in(&seen, "authorization"), Some(token.as_str()));
    assert_eq!(header_in(&seen, "x-tidegate-client"), None);
    assert_eq!(
        gateway.metric("tidegate_authentications_total{method=\"jwt\",outcome=\"valid\"}"),
        3.0
    );
}

#[test]
fn a_key_from_a_file_verifies_tokens_with_its_id() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let claims = json!({ "iss": "https://issuer.example", "aud": "tidegate", "sub": "x" });
    let status = |key: &str, kid: &str| {
        let token = by_rsa(key, kid, claims.clone());
        gateway
            .get_with("/required", &[("Authorization", &token)])
            .status
    };
    assert_eq!(status("rsa", "main"), 200);
    assert_eq!(status("other-rsa", "main"), 401);
    assert_eq!(status("rsa", "dev"), 401);
}

#[test]
fn bad_tokens_get_401_that_names_the_scheme_and_repeats_nothing() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let expired = token("x", json!({ "exp": now() - 60 }));
    let early = token("x", json!({ "nbf": now() + 600 }));
    let elsewhere = token("x", json!({ "aud": "other" }));
    let stranger = token("x", json!({ "iss": "https://evil.example" }));
    let unnamed = token("a b", json!({}));
    for bad in [
        &expired,
        &early,
        &elsewhere,
        &stranger,
        &unnamed,
        &by_secret(
            "another-secret-of-32-characters-or-so",
            json!({ "sub": "x" }),
        ),
        "Bearer",
        "Bearer x",
        "bearer a.b.c",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ] {
        for path in ["/required", "/optional"] {
            let refusal = gateway.get_with(path, &[("Authorization", bad)]);
            assert_eq!(refusal.status, 401, "{bad}: {refusal}");
            assert_eq!(
                refusal.header("WWW-Authenticate"),
                Some("Bearer realm=\"tidegate\", error=\"invalid_token\"")
            );
            assert_eq!(
                refusal.json()["detail"],
                "The token is not valid or has expired."
            );
        }
        assert_eq!(
            gateway.get_with("/open", &[("Authorization", bad)]).status,
            200
        );
    }
    let signature = expired.rsplit_once('.').unwrap().1;
    assert!(!gateway.stderr.text().contains(signature));
    let missing = gateway.get("/required");
    assert_eq!(missing.status, 401);
    assert_eq!(
        missing.header("WWW-Authenticate"),
        Some("ApiKey realm=\"tidegate\", Bearer realm=\"tidegate\"")
    );
}

#[test]
fn a_key_and_a_token_of_different_clients_are_refused() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let both = |token: &str| {
        let headers = [("X-API-Key", "key-of-acme"), ("Authorization", token)];
        gateway.get_with("/required", &headers)
    };
    let seen = both(&token("acme", json!({ "tier": "pro" }))).text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), Some("acme"));
    assert_eq!(
        header_in(&seen, "x-tidegate-tier"),
        Some("free"),
        "the file's"
    );
    assert_eq!(header_in(&seen, "authorization"), None);
    assert_eq!(header_in(&seen, "x-api-key"), None);
    assert_eq!(both(&token("globex", json!({}))).status, 401);
    assert_eq!(both("Basic eDp5").status, 200);
}

#[test]
fn a_tier_that_does_not_exist_is_none_and_is_counted() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let token = token("globex", json!({ "tier": "platinum" }));
    let seen = gateway
        .get_with("/required", &[("Authorization", &token)])
        .text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), Some("globex"));
    assert_eq!(header_in(&seen, "x-tidegate-tier"), None);
    assert_eq!(gateway.metric("tidegate_auth_unknown_tiers_total"), 1.0);
    gateway.stderr.line_with("platinum");
}

#[test]
fn a_route_with_scopes_takes_those_that_have_all_of_them() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let get = |scope: serde_json::Value| {
        let token = token("x", json!({ "scope": scope }));
        gateway.get_with("/scoped", &[("Authorization", &token)])
    };
    assert_eq!(get(json!("orders:read orders:write more")).status, 200);
    assert_eq!(get(json!(["orders:write", "orders:read"])).status, 200);
    for scope in [
        json!("orders:read"),
        json!(""),
        json!(null),
        json!(7),
        json!("orders:readorders:write"),
    ] {
        let refusal = get(scope);
        assert_eq!(refusal.status, 403, "{refusal}");
        assert_eq!(
            refusal.header("WWW-Authenticate"),
            Some(
                "Bearer realm=\"tidegate\", error=\"insufficient_scope\", scope=\"orders:read orders:write\""
            )
        );
        assert_eq!(refusal.json()["status"], 403);
    }
    let by_key = gateway.get_with("/scoped", &[("X-API-Key", "key-of-acme")]);
    assert_eq!(
        (by_key.status, by_key.header("WWW-Authenticate")),
        (403, None)
    );
    assert_eq!(gateway.get("/scoped").status, 401);
}

#[test]
fn a_policy_counts_by_a_claim_and_without_it_by_address() {
    let upstream = Upstream::echo();
    let gateway = with(
        &upstream,
        "policies: { p: { routes: [optional], key: ['jwt:org'], algorithm: sliding_window, quota: { count: 1, period: 1h } } }",
    );
    let status = |org: &str| {
        let token = token("x", json!({ "org": org }));
        gateway
            .get_with("/optional", &[("Authorization", &token)])
            .status
    };
    assert_eq!([status("a"), status("a"), status("b")], [200, 429, 200]);
    assert_eq!(gateway.get("/optional").status, 200);
    assert_eq!(gateway.get("/optional").status, 429);
}

#[test]
fn wrong_tokens_are_failures_and_remembered_ones_still_pass_the_guard() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let (good, fresh) = (token("x", json!({})), token("y", json!({})));
    let mut connection = gateway.connect();
    let mut status = |token: &str| {
        let headers = [("Authorization", token)];
        connection.request("GET", "/required", &headers, b"").status
    };
    assert_eq!(status(&good), 200);
    let guesses: Vec<u16> = (0..45)
        .map(|n| status(&format!("Bearer a.b.{n}")))
        .collect();
    assert_eq!(guesses[..30], [401; 30]);
    assert!(guesses[30..].contains(&429), "{guesses:?}");
    assert_eq!(status(&good), 200, "verified before");
    // one attempt more is looked at every two seconds: spend it
    while status("Bearer a.b.c") == 401 {}
    assert_eq!(status(&fresh), 429, "never seen");
}

#[test]
fn a_token_too_large_for_a_header_is_refused_early() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let large = format!("Bearer {}", "x".repeat(9_000));
    assert_eq!(
        gateway
            .get_with("/required", &[("Authorization", &large)])
            .status,
        401
    );
    let mut connection = gateway.connect();
    connection.send("GET /required HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ");
    connection.send("x".repeat(1 << 20));
    connection.send("\r\n\r\n");
    if let Ok(answer) = connection.answer_to("GET") {
        assert!(matches!(answer.status, 400 | 431), "{answer}");
    }
    assert_eq!(gateway.get("/open").status, 200);
}

#[test]
fn the_command_signs_tokens_that_the_gateway_accepts() {
    use crate::gateway::{outcome, tidegate};
    use crate::scratch::Scratch;
    let upstream = Upstream::echo();
    let gateway = with(&upstream, "");
    let files = Scratch::new();
    let rsa = key_file("rsa.pub");
    let configuration = files.file(
        "tidegate.yaml",
        &format!(
            "auth:\n  jwt:\n    issuer: https://issuer.example\n    audience: tidegate\n    algorithms: [HS256, RS256]\n    keys: [{{ kid: dev, secret: {SECRET} }}, {{ kid: main, pem_file: {rsa} }}]\n"
        ),
    );
    let command = |arguments: &[&str]| {
        let mut command = tidegate(files.path());
        command.arg("token").arg("-c").arg(&configuration);
        outcome(command.args(arguments))
    };
    let private = key_file("rsa");
    for key in [
        &[][..],
        &["--key", &private, "--kid", "main"],
        &["--key", &private],
    ] {
        let wanted = ["--client", "globex", "--tier", "pro", "--expires", "10m"];
        let more = [
            "--scope",
            "orders:read",
            "--scope",
            "orders:write",
            "--claim",
            "org=7",
        ];
        let (code, token, stderr) = command(&[&wanted[..], &more, key].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let bearer = format!("Bearer {}", token.trim());
        let seen = gateway
            .get_with("/scoped", &[("Authorization", &bearer)])
            .text();
        assert_eq!(header_in(&seen, "x-tidegate-client"), Some("globex"));
        assert_eq!(header_in(&seen, "x-tidegate-tier"), Some("pro"));
    }
    let (code, _, stderr) = command(&["--client", "a b"]);
    assert_eq!(code, Some(0));
    assert!(
        stderr.contains("not accepted: it names no client"),
        "{stderr}"
    );
    let (code, _, stderr) = command(&["--client", "x", "--key", &rsa]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("is no private key"), "{stderr}");
    let (code, _, stderr) = command(&["--client", "x", "--expires", "soon"]);
    assert_eq!(code, Some(2), "{stderr}");
}
