//! Two gateways, one Postgres, one Redis: what one is told, both do; and what both do without Postgres.

use crate::admin::api::send;
use crate::client::Response;
use crate::gateway::{Gateway, app, outcome, tidegate};
use crate::postgres::PostgresServer;
use crate::redis::RedisServer;
use crate::scratch::Scratch;
use crate::upstream::Upstream;
use crate::waiting::{self, pause};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A change is enforced everywhere within this; the issue says so.
const SOON: Duration = Duration::from_secs(1);

/// Dropped in this order.
struct Site {
    gateways: Vec<Gateway>,
    upstream: Upstream,
    redis: RedisServer,
    postgres: PostgresServer,
    scratch: Scratch,
}

impl Site {
    /// A migrated database and so many gateways.
    fn new(gateways: usize) -> Self {
        let mut site = Site {
            gateways: Vec::new(),
            upstream: Upstream::scripted(|exchange| exchange.answer("ok")),
            redis: RedisServer::start(),
            postgres: PostgresServer::start(),
            scratch: Scratch::new(),
        };
        let file = site.scratch.file("migrate.yaml", &site.configuration(0));
        let mut migrate = tidegate(site.scratch.path());
        let (code, out, err) = outcome(migrate.args(["migrate", "-c"]).arg(&file));
        assert_eq!(code, Some(0), "{out}{err}");
        for index in 0..gateways {
            site.gateways.push(site.start(index));
        }
        site
    }

    /// Each gateway keeps its state in a folder of its own.
    fn configuration(&self, index: usize) -> String {
        format!(
            "{}database: {{ url: \"{}\", timeout: 2s, state_dir: \"{}\" }}\n\
             store: {{ redis: {{ url: \"{}\", timeout: 500ms }} }}\n\
             routes: [{{ name: open, match: {{ path: /open }}, upstream: app }}, {{ name: closed, match: {{ path: /closed }}, upstream: app, auth: required }}]\n\
             policies: {{ p: {{ routes: [open], key: [ip], algorithm: sliding_window, quota: {{ count: 6, period: 1h }} }} }}\n",
            app(self.upstream.address),
            self.postgres.url(),
            self.scratch.path().join(format!("state-{index}")).display(),
            self.redis.url(),
        )
    }

    fn start(&self, index: usize) -> Gateway {
        Gateway::start(&self.configuration(index))
    }

    /// One request to the first gateway's admin API.
    fn tell(&self, method: &str, target: &str, body: &Value) -> Response {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        send(&self.gateways[0], method, target, &[], body.as_bytes())
    }

    /// Puts a document, whether something is there or not.
    fn put(&self, target: &str, document: &Value) {
        let put = self.tell("PUT", target, document);
        assert!(matches!(put.status, 200 | 201), "{}", put.text());
    }

    /// A client of the database and a key of its own: the key's id and text.
    fn key_of(&self, client: &str) -> (String, String) {
        let made = self.tell("PUT", &format!("/api/v1/clients/{client}"), &json!({}));
        assert!(matches!(made.status, 200 | 201), "{}", made.text());
        let key = self.tell(
            "POST",
            &format!("/api/v1/clients/{client}/keys"),
            &json!({}),
        );
        assert_eq!(key.status, 201, "{}", key.text());
        let key = key.json();
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    /// Whether this comes true on every gateway, and in time.
    fn soon(&self, what: &str, holds: impl Fn(&Gateway) -> bool) {
        let began = Instant::now();
        for gateway in &self.gateways {
            waiting::until(what, || holds(gateway));
        }
        let took = began.elapsed();
        assert!(took < SOON, "{what}: {took:?}");
    }
}

fn policy(count: u64) -> Value {
    json!({ "routes": ["open"], "key": ["ip"], "algorithm": "sliding_window", "quota": { "count": count, "period": "1h" } })
}

fn limit_of(gateway: &Gateway) -> u64 {
    gateway.get("/open").number("x-ratelimit-limit")
}

fn with_key(gateway: &Gateway, key: &str) -> u16 {
    gateway.get_with("/closed", &[("X-API-Key", key)]).status
}

#[test]
fn a_policy_is_enforced_by_both_within_a_second_and_the_count_stays() {
    let site = Site::new(2);
    for gateway in &site.gateways {
        assert_eq!(gateway.get("/open").status, 200);
    }
    // two are spent; looking at the limit costs more, but refusals cost nothing
    site.put("/api/v1/policies/p", &policy(2));
    site.soon("the row is in force", |gateway| limit_of(gateway) == 2);
    for gateway in &site.gateways {
        assert_eq!(gateway.get("/open").status, 429);
    }
    site.put("/api/v1/policies/p", &policy(100));
    site.soon("the next row is in force", |gateway| {
        limit_of(gateway) == 100
    });
    let remaining = site.gateways[1]
        .get("/open")
        .number("x-ratelimit-remaining");
    assert!(
        remaining <= 95,
        "what was spent before stays spent: {remaining}"
    );
    assert_eq!(
        site.tell("DELETE", "/api/v1/policies/p", &Value::Null)
            .status,
        204
    );
    site.soon("the file's policy is back", |gateway| {
        limit_of(gateway) == 6
    });
}

#[test]
fn a_revoked_key_is_refused_by_both_within_a_second() {
    let site = Site::new(2);
    let (id, key) = site.key_of("acme");
    for gateway in &site.gateways {
        assert_eq!(with_key(gateway, &key), 200);
    }
    assert_eq!(
        site.tell("DELETE", &format!("/api/v1/keys/{id}"), &Value::Null)
            .status,
        204
    );
    site.soon("the key is refused", |gateway| {
        with_key(gateway, &key) == 401
    });
}

#[test]
fn a_tier_and_an_override_reach_the_client_they_are_for() {
    let site = Site::new(2);
    let (_, key) = site.key_of("acme");
    site.put("/api/v1/tiers/gold", &json!({}));
    let document = json!({
        "routes": ["closed"], "key": ["client"], "algorithm": "token_bucket", "quota": { "count": 10, "period": "1h" },
        "tiers": { "gold": { "count": 20, "period": "1h" } },
        "overrides": { "umbrella": { "count": 30, "period": "1h", "expires": "2999-01-01T00:00:00Z" } },
    });
    site.put("/api/v1/policies/c", &document);
    let limit = |gateway: &Gateway, key: &str| {
        let answer = gateway.get_with("/closed", &[("X-API-Key", key)]);
        answer
            .header("x-ratelimit-limit")
            .and_then(|limit| limit.parse::<u64>().ok())
    };
    site.soon("the policy holds", |gateway| {
        limit(gateway, &key) == Some(10)
    });
    site.put("/api/v1/clients/acme", &json!({ "tier": "gold" }));
    site.soon("the tier holds", |gateway| limit(gateway, &key) == Some(20));
    let (_, other) = site.key_of("umbrella");
    site.soon("the override holds", |gateway| {
        limit(gateway, &other) == Some(30)
    });
    // what is needed cannot go
    let refused = site.tell("DELETE", "/api/v1/tiers/gold", &Value::Null);
    assert_eq!(refused.status, 409, "{}", refused.text());
}

#[test]
fn settings_of_a_route_reach_both() {
    let site = Site::new(2);
    let put = site.tell(
        "PUT",
        "/api/v1/routes/open/settings",
        &json!({ "maintenance": true }),
    );
    assert!(matches!(put.status, 200 | 201), "{}", put.text());
    site.soon("it is in maintenance", |gateway| {
        gateway.get("/open").status == 503
    });
    assert_eq!(
        site.tell("DELETE", "/api/v1/routes/open/settings", &Value::Null)
            .status,
        204
    );
    site.soon("it serves again", |gateway| {
        gateway.get("/open").status != 503
    });
}

#[test]
fn a_gateway_that_starts_without_postgres_enforces_what_it_knew() {
    let mut site = Site::new(1);
    let (_, key) = site.key_of("acme");
    let (_, unseen) = site.key_of("other");
    assert_eq!(with_key(&site.gateways[0], &key), 200);
    site.put("/api/v1/policies/p", &policy(3));
    site.soon("the row is in force", |gateway| limit_of(gateway) == 3);
    site.postgres.stop();
    let mut gateway = site.gateways.remove(0);
    assert_eq!(
        with_key(&gateway, &key),
        200,
        "a known key needs no database"
    );
    assert_eq!(with_key(&gateway, &unseen), 503, "nobody knows whose it is");
    gateway.signal("TERM");
    gateway.ended();
    let gateway = site.start(0);
    gateway.stderr.line_with("starting with what it knew");
    assert_eq!(limit_of(&gateway), 3);
    assert_eq!(with_key(&gateway, &key), 200);
    let unknown = gateway.get_with("/closed", &[("X-API-Key", &unseen)]);
    assert_eq!(unknown.status, 503);
    assert!(unknown.number("retry-after") >= 1);
    assert_eq!(
        gateway
            .get_with("/closed", &[("X-API-Key", "garbage")])
            .status,
        401
    );
    assert_eq!(gateway.get("/health").json()["postgres"], "unavailable");
    site.postgres.start_again();
    waiting::until("the database is back", || {
        gateway.get("/health").json()["postgres"] == "connected"
    });
    waiting::until("the other key is known", || {
        with_key(&gateway, &unseen) == 200
    });
}

#[test]
fn a_gateway_that_never_saw_the_database_starts_with_its_file() {
    let mut site = Site::new(0);
    site.postgres.stop();
    let gateway = site.start(0);
    gateway.stderr.line_with("starting with the file alone");
    assert_eq!(limit_of(&gateway), 6);
    site.postgres.start_again();
    site.postgres.sql("INSERT INTO policies (name, key, algorithm, quota) VALUES ('p', '{ip}', 'sliding_window', '{\"count\": 9, \"period\": \"1h\"}')");
    waiting::until("the row is in force", || limit_of(&gateway) == 9);
}

#[test]
fn a_row_that_slipped_in_by_hand_is_left_out_and_named() {
    let site = Site::new(1);
    let gateway = &site.gateways[0];
    site.postgres.sql(
        "INSERT INTO policies (name, key, algorithm, quota) VALUES \
         ('bad', '{ip}', 'token_bucket', '{\"count\": 0}'), \
         ('p', '{ip}', 'sliding_window', '{\"count\": 8, \"period\": \"1h\"}'), \
         ('worse', '{nonsense}', 'magic', '{\"count\": 1, \"period\": \"1h\"}')",
    );
    waiting::until("the good row is in force", || limit_of(gateway) == 8);
    let health = gateway.get("/health").json();
    let refused = health["refused"].to_string();
    assert!(
        refused.contains("policies.bad") && refused.contains("policies.worse"),
        "{health}"
    );
    assert!(!refused.contains("policies.p"), "{health}");
    gateway.stderr.line_with("policies.worse.algorithm");
    assert!(gateway.metric("tidegate_snapshot_refused_rows ") >= 2.0);
    // a row in force that is spoilt stays in force as it was
    site.postgres
        .sql("UPDATE policies SET quota = '{\"count\": -5}' WHERE name = 'p'");
    waiting::until("it is named", || {
        gateway.get("/health").json()["refused"]
            .to_string()
            .contains("policies.p")
    });
    assert_eq!(limit_of(gateway), 8);
    site.postgres
        .sql("DELETE FROM policies WHERE name IN ('bad', 'worse', 'p')");
    waiting::until("nothing is left out", || {
        gateway.get("/health").json().get("refused").is_none()
    });
    assert_eq!(limit_of(gateway), 6);
}

#[test]
fn a_lost_notification_is_made_up_for_within_a_second() {
    let site = Site::new(1);
    let listens =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query ILIKE 'listen%'";
    site.postgres.sql(listens);
    let began = Instant::now();
    site.put("/api/v1/policies/p", &policy(7));
    waiting::until("the row is in force", || limit_of(&site.gateways[0]) == 7);
    assert!(began.elapsed() < 2 * SOON, "{:?}", began.elapsed());
}

/// Whatever happens to Postgres, no request fails for it.
#[test]
fn no_request_fails_while_postgres_is_frozen_cut_or_killed_under_load() {
    let mut site = Site::new(2);
    let (_, key) = site.key_of("acme");
    site.put("/api/v1/policies/p", &policy(10_000));
    site.soon("the row is in force", |gateway| limit_of(gateway) == 10_000);
    let Site {
        gateways,
        postgres,
        scratch: _scratch,
        ..
    } = &mut site;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| ["/open", "/closed"].map(|target| (gateway, target)))
            .map(|(gateway, target)| {
                let (done, key) = (&done, key.as_str());
                scope.spawn(move || {
                    let mut connection = gateway.connect();
                    let mut requests = 0;
                    while !done.load(Ordering::SeqCst) {
                        let status = connection
                            .request("GET", target, &[("X-API-Key", key)], b"")
                            .status;
                        assert_eq!(status, 200, "{target}");
                        requests += 1;
                        pause(Duration::from_millis(2));
                    }
                    requests
                })
            })
            .collect();
        let reload = || gateways.iter().for_each(|gateway| gateway.signal("HUP"));
        pause(Duration::from_millis(200));
        postgres.freeze();
        reload();
        pause(Duration::from_millis(1_500));
        postgres.thaw();
        postgres.cut_connections();
        pause(Duration::from_millis(300));
        postgres.stop();
        reload();
        pause(Duration::from_millis(800));
        postgres.start_again();
        waiting::until("both are connected again", || {
            gateways
                .iter()
                .all(|gateway| gateway.get("/health").json()["postgres"] == "connected")
        });
        done.store(true, Ordering::SeqCst);
        for one in load {
            assert!(one.join().unwrap() > 50);
        }
    });
    for gateway in gateways.iter() {
        assert_eq!(
            limit_of(gateway),
            10_000,
            "what the database said outlives its outage"
        );
    }
}

#[test]
fn a_gateway_starts_and_reloads_while_postgres_is_frozen() {
    let mut site = Site::new(1);
    let (_, key) = site.key_of("acme");
    assert_eq!(with_key(&site.gateways[0], &key), 200);
    site.put("/api/v1/policies/p", &policy(3));
    site.soon("the row is in force", |gateway| limit_of(gateway) == 3);
    let mut gateway = site.gateways.remove(0);
    gateway.signal("TERM");
    gateway.ended();
    site.postgres.freeze();
    let (gateway, took) = waiting::timed(|| site.start(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    gateway.stderr.line_with("starting with what it knew");
    assert_eq!(limit_of(&gateway), 3);
    assert_eq!(with_key(&gateway, &key), 200);
    gateway.signal("HUP");
    gateway.stderr.line_with("configuration reloaded");
    assert_eq!(limit_of(&gateway), 3);
    site.postgres.thaw();
    waiting::until("the database is back", || {
        gateway.get("/health").json()["postgres"] == "connected"
    });
}

/// Every answer of Postgres takes 200 ms.
#[test]
fn a_slow_postgres_slows_the_first_sight_of_a_key_and_nothing_else() {
    let mut site = Site::new(0);
    let wire = crate::redis::Wire::before(
        format!("127.0.0.1:{}", site.postgres.port())
            .parse()
            .unwrap(),
    );
    let behind = wire.url().trim_start_matches("redis://").to_owned();
    let direct = format!("127.0.0.1:{}", site.postgres.port());
    let configuration = site.configuration(0).replace(&direct, &behind);
    site.gateways.push(Gateway::start(&configuration));
    let (_, key) = site.key_of("acme");
    site.put("/api/v1/policies/p", &policy(1_000));
    site.soon("the row is in force", |gateway| limit_of(gateway) == 1_000);
    let (_, unseen) = site.key_of("other");
    let gateway = &site.gateways[0];
    assert_eq!(with_key(gateway, &key), 200);
    wire.delay(Duration::from_millis(100), Duration::from_millis(100));
    for _ in 0..20 {
        let (status, took) = waiting::timed(|| with_key(gateway, &key));
        assert_eq!(status, 200);
        assert!(took < Duration::from_millis(150), "{took:?}");
    }
    let (status, took) = waiting::timed(|| with_key(gateway, &unseen));
    assert_eq!(status, 200);
    assert!(took >= Duration::from_millis(200), "{took:?}");
    let (status, took) = waiting::timed(|| with_key(gateway, &unseen));
    assert_eq!(status, 200);
    assert!(took < Duration::from_millis(150), "{took:?}");
}
