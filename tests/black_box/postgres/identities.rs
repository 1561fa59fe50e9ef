//! Who is calling, where the database knows: keys and scopes, tiers of clients that tokens name, and while it is frozen.

use super::PostgresServer;
use crate::client::Response;
use crate::gateway::{Gateway, app, outcome, tidegate};
use crate::scratch::Scratch;
use crate::token::by_secret;
use crate::upstream::{Then, Upstream, header_in};
use crate::waiting;
use serde_json::json;

const SECRET: &str = "a-secret-of-at-least-32-characters";

/// Dropped in this order.
struct Scene {
    gateway: Gateway,
    _upstream: Upstream,
    server: PostgresServer,
    scratch: Scratch,
}

impl Scene {
    fn new() -> Self {
        Self::with("300ms", "")
    }

    /// The database's timeout, and what else stands under `auth`.
    fn with(timeout: &str, auth: &str) -> Self {
        Self::with_routes(timeout, auth, "")
    }

    /// The same with more routes.
    fn with_routes(timeout: &str, auth: &str, routes: &str) -> Self {
        let (upstream, server, scratch) =
            (Upstream::echo(), PostgresServer::start(), Scratch::new());
        let configuration = format!(
            "{}database: {{ url: \"{}\", timeout: {timeout}, state_dir: \"{}\" }}
auth:
  timeout: 500ms
{auth}  jwt: {{ algorithms: [HS256], keys: [{{ secret: {SECRET} }}] }}
tiers: {{ free: {{}}, pro: {{}} }}
clients: {{ filed: {{ tier: free }} }}
routes:
  - {{ name: app, upstream: app, auth: required }}
  - {{ name: scoped, match: {{ path: /scoped }}, upstream: app, auth: required, scopes: ['orders:read'] }}
{routes}",
            app(upstream.address),
            server.url(),
            scratch.path().join("state").display(),
        );
        let file = scratch.file("gate.yaml", &configuration);
        let mut migrate = tidegate(scratch.path());
        let (code, _, err) = outcome(migrate.args(["migrate", "-c"]).arg(&file));
        assert_eq!(code, Some(0), "{err}");
        server.sql("INSERT INTO clients (id, tier) VALUES ('acme', 'pro'), ('plain', NULL)");
        Scene {
            gateway: Gateway::start(&configuration),
            _upstream: upstream,
            server,
            scratch,
        }
    }

    fn key(&self, arguments: &[&str]) -> String {
        let mut command = tidegate(self.scratch.path());
        let create = command.args(["-c", "gate.yaml", "keys", "create"]);
        let (code, out, err) = outcome(create.args(arguments));
        assert_eq!(code, Some(0), "{err}");
        out.trim().to_owned()
    }

    fn with_key(&self, path: &str, key: &str) -> Response {
        self.gateway.get_with(path, &[("X-API-Key", key)])
    }

    fn with_token(&self, claims: serde_json::Value) -> Response {
        let token = by_secret(SECRET, claims);
        self.gateway.get_with("/", &[("Authorization", &token)])
    }

    fn look_ups(&self) -> f64 {
        self.gateway.metric("tidegate_directory_look_ups_total ")
    }
}

fn client_and_tier(answer: &Response) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer}");
    let seen = answer.text();
    let header = |name| header_in(&seen, name).unwrap_or("-").to_owned();
    (header("x-tidegate-client"), header("x-tidegate-tier"))
}

fn pair(client: &str, tier: &str) -> (String, String) {
    (client.to_owned(), tier.to_owned())
}

#[test]
fn keys_of_the_database_bring_client_tier_and_scopes() {
    let scene = Scene::new();
    let (of_acme, scoped, of_file) = (
        scene.key(&["--client", "acme"]),
        scene.key(&["--client", "acme", "--scope", "orders:read"]),
        scene.key(&["--client", "filed"]),
    );
    for _ in 0..3 {
        let answer = scene.with_key("/", &of_acme);
        assert_eq!(client_and_tier(&answer), pair("acme", "pro"));
        assert_eq!(header_in(&answer.text(), "x-api-key"), None);
    }
    assert_eq!(
        client_and_tier(&scene.with_key("/", &of_file)),
        pair("filed", "free")
    );
    assert_eq!(scene.with_key("/scoped", &scoped).status, 200);
    assert_eq!(scene.with_key("/scoped", &of_acme).status, 403);
    // both at once must agree
    let token = by_secret(SECRET, json!({ "sub": "plain" }));
    let both = [("X-API-Key", of_acme.as_str()), ("Authorization", &token)];
    assert_eq!(scene.gateway.get_with("/", &both).status, 401);
}

#[test]
fn garbage_never_reaches_the_database() {
    let scene = Scene::new();
    let key = scene.key(&["--client", "acme"]);
    let before = scene.look_ups();
    let mut mistyped = key.clone();
    mistyped.pop();
    mistyped.push(if key.ends_with('a') { 'b' } else { 'a' });
    for garbage in [
        "x",
        "tg_abc_def",
        "' OR 1=1 --",
        &mistyped,
        &key.to_uppercase(),
    ] {
        assert_eq!(scene.with_key("/", garbage).status, 401, "{garbage}");
    }
    assert_eq!(scene.look_ups(), before);
    assert_eq!(scene.with_key("/", &key).status, 200);
    assert_eq!(scene.look_ups(), before + 1.0);
}

#[test]
fn the_databases_tier_beats_the_tokens_claim() {
    let scene = Scene::new();
    let who = |sub: &str, tier: &str| {
        client_and_tier(&scene.with_token(json!({ "sub": sub, "tier": tier })))
    };
    assert_eq!(who("acme", "free"), pair("acme", "pro"));
    assert_eq!(who("plain", "free"), pair("plain", "free"));
    assert_eq!(who("stranger", "pro"), pair("stranger", "pro"));
    assert_eq!(who("filed", "pro"), pair("filed", "free"));
    scene
        .server
        .sql("UPDATE clients SET tier = 'free' WHERE id = 'acme'");
    waiting::until("the new tier holds", || {
        who("acme", "pro") == pair("acme", "free")
    });
}

#[test]
fn while_the_database_is_frozen_known_ones_pass_and_unknown_keys_wait_for_the_deadline_only() {
    let scene = Scene::new();
    let (known, unknown) = (
        scene.key(&["--client", "acme"]),
        scene.key(&["--client", "acme"]),
    );
    assert_eq!(scene.with_key("/", &known).status, 200);
    scene.server.freeze();
    assert_eq!(
        client_and_tier(&scene.with_key("/", &known)),
        pair("acme", "pro")
    );
    let refusal = scene.with_key("/", &unknown);
    assert_eq!(refusal.status, 503, "{refusal}");
    assert!(refusal.number("Retry-After") >= 1);
    // a token is valid by itself; its claim holds until the database says more
    waiting::until("tokens pass", || {
        let answer = scene.with_token(json!({ "sub": "someone", "tier": "pro" }));
        answer.status == 200 && client_and_tier(&answer) == pair("someone", "pro")
    });
    scene.server.thaw();
    waiting::until("the other key passes too", || {
        scene.with_key("/", &unknown).status == 200
    });
}

#[test]
fn a_database_slower_than_a_request_may_wait_costs_no_proven_client_its_answer() {
    let scene = Scene::with("30s", "");
    scene.server.freeze();
    for turn in 0..2 {
        let answer = scene.with_token(json!({ "sub": "someone", "tier": "pro" }));
        assert_eq!(client_and_tier(&answer), pair("someone", "pro"), "{turn}");
    }
    scene.server.thaw();
}

#[test]
fn a_key_counts_the_same_whatever_is_remembered_of_a_token_beside_it() {
    let scene = Scene::new();
    let scoped = scene.key(&["--client", "acme", "--scope", "orders:read"]);
    let token = by_secret(SECRET, json!({ "sub": "acme" }));
    let only_token = [("Authorization", token.as_str())];
    assert_eq!(scene.gateway.get_with("/", &only_token).status, 200);
    let both = [("X-API-Key", scoped.as_str()), ("Authorization", &token)];
    for turn in ["cold", "warm"] {
        let answer = scene.gateway.get_with("/scoped", &both);
        assert_eq!(answer.status, 200, "{turn}: {answer}");
    }
}

#[test]
fn what_was_known_before_a_reconnect_holds_while_look_ups_hang_and_under_guard() {
    let scene = Scene::with("30s", "  failures: { count: 3, period: 1h }\n");
    let (known, unknown) = (
        scene.key(&["--client", "acme"]),
        scene.key(&["--client", "acme"]),
    );
    // one token: another one, a second later, would not be known
    let token = by_secret(SECRET, json!({ "sub": "acme", "tier": "free" }));
    let of_acme = || scene.gateway.get_with("/", &[("Authorization", &token)]);
    let all_is_well = |when: &str| {
        let answers = [scene.with_key("/", &known), of_acme()];
        for answer in answers {
            assert_eq!(client_and_tier(&answer), pair("acme", "pro"), "{when}");
        }
    };
    all_is_well("at first");
    let changes = || scene.gateway.metric("tidegate_database_changes_total ");
    scene.server.until_heard_of(changes);
    let expired = || scene.gateway.metric("tidegate_database_expired_all_total ");
    let before = expired();
    std::thread::scope(|threads| {
        let lock = "BEGIN; LOCK TABLE api_keys, clients; SELECT pg_sleep(60)";
        threads.spawn(|| scene.server.ask(lock));
        waiting::until("the tables are locked", || {
            let held =
                "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
            scene.server.sql(held) != "0"
        });
        scene.server.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE query NOT LIKE '%LOCK%' AND pid <> pg_backend_pid() \
             AND backend_type = 'client backend'",
        );
        waiting::until("everything has expired", || expired() > before);
        all_is_well("while look-ups hang");
        assert_eq!(scene.with_key("/", &unknown).status, 503);
        for _ in 0..3 {
            assert_eq!(scene.with_key("/", "garbage").status, 401);
        }
        assert_eq!(scene.with_key("/", "garbage").status, 429);
        all_is_well("under guard");
        scene.server.cut_connections();
    });
}

#[test]
fn the_databases_tier_holds_for_a_client_that_forward_auth_names() {
    let authority = Upstream::scripted(|exchange| {
        let said = exchange.header("authorization").unwrap_or("").to_owned();
        exchange.write(format!(
            "HTTP/1.1 204 No Content\r\nX-User: {said}\r\nX-Plan: free\r\n\r\n"
        ))?;
        Ok(Then::Keep)
    });
    let asked = format!(
        "  - {{ name: asked, match: {{ path: /asked }}, upstream: app, forward_auth: {{ url: 'http://{}/', cache: 1h, client_header: X-User, tier_header: X-Plan }} }}\n",
        authority.address
    );
    let scene = Scene::with_routes("300ms", "", &asked);
    let who = |name: &str| {
        let answer = scene.gateway.get_with("/asked", &[("Authorization", name)]);
        client_and_tier(&answer)
    };
    for turn in ["asked", "remembered"] {
        assert_eq!(who("acme"), pair("acme", "pro"), "{turn}");
        assert_eq!(who("stranger"), pair("stranger", "free"), "{turn}");
    }
    scene
        .server
        .sql("UPDATE clients SET tier = 'free' WHERE id = 'acme'");
    waiting::until("the new tier holds", || who("acme") == pair("acme", "free"));
    assert_eq!(authority.requests(), 2);
}
