//! Keys that an issuer publishes: fetched, rotated, kept while it is away.

use crate::gateway::{Gateway, app};
use crate::token::{by_rsa, published};
use crate::upstream::{Exchange, Then, Upstream};
use crate::waiting;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

/// What an issuer answers, changed as the test goes on.
#[derive(Clone)]
struct Issuer(Arc<Mutex<Script>>);

type Script = Arc<dyn Fn(&mut Exchange) -> std::io::Result<Then> + Send + Sync>;

impl Issuer {
    fn publishing(document: String) -> (Self, Upstream) {
        let issuer = Issuer(Arc::new(Mutex::new(answering(document))));
        let script = issuer.clone();
        let upstream = Upstream::scripted(move |exchange| {
            let script = script.0.lock().unwrap().clone();
            script(exchange)
        });
        (issuer, upstream)
    }

    fn now(&self, script: Script) {
        *self.0.lock().unwrap() = script;
    }
}

fn answering(document: String) -> Script {
    Arc::new(move |exchange| exchange.answer(&document))
}

fn with(upstream: &Upstream, issuer: SocketAddr, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "{}routes: [{{ name: app, upstream: app, auth: required }}]
auth:
  jwt:
    algorithms: [RS256]
    jwks_url: http://{issuer}/.well-known/jwks.json
{rest}",
        app(upstream.address)
    ))
}

fn status(gateway: &Gateway, key: &str, kid: &str) -> u16 {
    let token = by_rsa(key, kid, json!({ "sub": "acme" }));
    let answer = gateway.get_with("/", &[("Authorization", &token)]);
    if answer.status == 503 {
        assert!(answer.number("Retry-After") >= 1);
    }
    answer.status
}

#[test]
fn tokens_are_verified_with_published_keys_that_are_fetched_once() {
    let upstream = Upstream::echo();
    let (_issuer, published) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, published.address, "");
    for _ in 0..5 {
        assert_eq!(status(&gateway, "rsa", "a"), 200);
    }
    assert_eq!(status(&gateway, "other-rsa", "a"), 401);
    assert_eq!(published.requests(), 1);
    let head = &published.heads()[0];
    assert!(head.starts_with("GET /.well-known/jwks.json "), "{head}");
    waiting::until("the keys are counted", || {
        gateway.metric("tidegate_jwks_keys") == 1.0
    });
    assert_eq!(
        gateway.metric("tidegate_jwks_fetches_total{outcome=\"fetched\"}"),
        1.0
    );
    let health = gateway.get("/health").json();
    assert_eq!(
        (&health["status"], &health["jwks"]["keys"]),
        (&json!("ok"), &json!(1))
    );
    assert!(health["jwks"]["age_seconds"].is_u64(), "{health}");
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it_and_an_old_one_is_gone() {
    let upstream = Upstream::echo();
    let (issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    issuer.now(answering(published(&[("other-rsa", "b")])));
    assert_eq!(status(&gateway, "other-rsa", "b"), 200);
    assert_eq!(status(&gateway, "rsa", "a"), 401, "remembered or not");
}

#[test]
fn tokens_with_random_key_ids_do_not_become_as_many_fetches() {
    let upstream = Upstream::echo();
    let (_issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(
        &upstream,
        server.address,
        "  failures: { count: 1000, period: 60s }\n",
    );
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    for n in 0..50 {
        assert_eq!(status(&gateway, "rsa", &format!("random-{n}")), 401);
    }
    assert!(server.requests() <= 6, "{} fetches", server.requests());
    assert_eq!(status(&gateway, "rsa", "a"), 200);
}

#[test]
fn while_the_issuer_is_away_or_talks_garbage_its_keys_stay() {
    let upstream = Upstream::echo();
    let (issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    let failing = "tidegate_jwks_fetches_total{outcome=\"failed\"}";
    for (n, garbage) in ["<html>", "{\"keys\":[]}"].into_iter().enumerate() {
        issuer.now(answering(garbage.to_owned()));
        assert_eq!(status(&gateway, "rsa", &format!("unknown-{n}")), 401);
        assert_eq!(status(&gateway, "rsa", "a"), 200);
    }
    assert!(gateway.metric(failing) >= 2.0);
    issuer.now(Arc::new(|_| Ok(Then::Close)));
    assert_eq!(status(&gateway, "rsa", "unknown-2"), 401);
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    gateway
        .stderr
        .line_with("the issuer's keys cannot be fetched");
}

#[test]
fn an_issuer_that_never_answered_is_503_and_a_start_does_not_wait_for_it() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream, crate::upstream::nobody(), "");
    assert_eq!(status(&gateway, "rsa", "a"), 503);
    assert_eq!(gateway.get("/").status, 401);
    assert!(
        gateway.metric("tidegate_authentications_total{method=\"jwt\",outcome=\"unavailable\"}")
            >= 1.0
    );
}

#[test]
fn a_slow_issuer_costs_a_request_no_more_than_the_timeout_and_others_nothing() {
    let upstream = Upstream::echo();
    let (issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "  timeout: 200ms\n");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(wait));
    let document = published(&[("rsa", "a"), ("other-rsa", "b")]);
    issuer.now(Arc::new(move |exchange| {
        let _ = wait.lock().unwrap().recv();
        exchange.answer(&document)
    }));
    assert_eq!(status(&gateway, "other-rsa", "b"), 503);
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    drop(go_on);
    waiting::until("the new key is known", || {
        status(&gateway, "other-rsa", "b") == 200
    });
}

#[test]
fn whoever_waits_for_one_fetch_takes_no_place_from_the_others() {
    let upstream = Upstream::echo();
    let (issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "  timeout: 20s\n");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    let document = published(&[("rsa", "a"), ("other-rsa", "b")]);
    issuer.now(Arc::new(move |exchange| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        exchange.answer(&document)
    }));
    std::thread::scope(|threads| {
        let one = || status(&gateway, "other-rsa", "b");
        let all: Vec<_> = (0..100).map(|_| threads.spawn(one)).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
}

#[test]
fn a_document_without_end_is_given_up() {
    let upstream = Upstream::echo();
    let (_issuer, server) = Issuer::publishing(format!("{{\"keys\":[\"{}", "x".repeat(2 << 20)));
    let gateway = with(&upstream, server.address, "");
    assert_eq!(status(&gateway, "rsa", "a"), 503);
    gateway.stderr.line_with("more than 1048576 bytes");
}

#[test]
fn a_reload_keeps_the_keys_a_refused_one_too_and_forgets_tokens_where_the_rules_change() {
    let upstream = Upstream::echo();
    let (_issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    let written = |rest: &str, url: &str| {
        format!(
            "{}routes: [{{ name: app, upstream: app, auth: required }}]\nauth: {{ jwt: {{ algorithms: [RS256], jwks_url: '{url}'{rest} }} }}\n",
            app(upstream.address)
        )
    };
    let url = format!("http://{}/.well-known/jwks.json", server.address);
    let times = |part| gateway.lines_with(part);
    gateway.reload(&written(", audience: somebody", &url));
    waiting::until("it is reloaded", || times("configuration reloaded") == 1);
    assert_eq!(
        status(&gateway, "rsa", "a"),
        401,
        "remembered, but not for us"
    );
    // another issuer, and a mistake: nothing of it may count
    let refused = written(", leeway: 1h", "http://127.0.0.1:9/other.json");
    gateway.reload(&refused);
    waiting::until("it is refused", || {
        times("the configuration is refused") == 1
    });
    gateway.reload(&written("", &url));
    waiting::until("it is reloaded", || times("configuration reloaded") == 2);
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    assert_eq!(server.requests(), 1, "the keys were never fetched again");
}

#[test]
fn a_crowd_that_waits_for_an_issuer_is_bounded_and_hinders_nobody_else() {
    let upstream = Upstream::echo();
    let (issuer, server) = Issuer::publishing(published(&[("rsa", "a")]));
    let gateway = with(&upstream, server.address, "  timeout: 3s\n");
    assert_eq!(status(&gateway, "rsa", "a"), 200);
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(wait));
    issuer.now(Arc::new(move |_| {
        let _ = wait.lock().unwrap().recv();
        Ok(Then::Close)
    }));
    let token = by_rsa("rsa", "unknown", json!({ "sub": "acme" }));
    let mut crowd: Vec<_> = (0..80).map(|_| gateway.connect()).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n");
    for connection in &mut crowd {
        connection.send(&head);
    }
    let unavailable = "tidegate_authentications_total{method=\"jwt\",outcome=\"unavailable\"}";
    waiting::until("those beyond 64 are refused at once", || {
        gateway.metric(unavailable) >= 16.0
    });
    assert_eq!(status(&gateway, "rsa", "a"), 200, "a known token");
    assert_eq!(gateway.get("/").status, 401, "no token");
    drop(go_on);
    let statuses: Vec<u16> = crowd
        .iter_mut()
        .map(|connection| connection.answer().status)
        .collect();
    let refused_at_once = statuses.iter().filter(|&&status| status == 503).count();
    assert!(refused_at_once >= 16, "{statuses:?}");
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status, 401 | 429 | 503)),
        "{statuses:?}"
    );
}
