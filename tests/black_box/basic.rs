//! Names and passwords from a file of htpasswd.

use crate::gateway::{Gateway, app, outcome, tidegate};
use crate::scratch::Scratch;
use crate::upstream::{Upstream, header_in};
use crate::waiting;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// `open sesame`, hashed in three ways.
const USERS: &str = "ann:$2y$04$Vgj5su0gi1DptC8Fz9OnEu.JWRwY18vg.8iGj3KtH8LL8X6OaW.3a
bob:$apr1$abcdefgh$T64oOxnD8c28.dQa.2Lty1
eve:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=
";

struct Scene {
    gateway: Gateway,
    _files: Scratch,
}

fn with(upstream: &Upstream, rest: &str) -> Scene {
    let files = Scratch::new();
    let file = files.file("htpasswd", USERS);
    let gateway = Gateway::start(&configuration(upstream, &file, rest));
    Scene {
        gateway,
        _files: files,
    }
}

fn configuration(upstream: &Upstream, file: &Path, rest: &str) -> String {
    format!(
        "{}auth: {{ basic: {{ htpasswd_file: {}, realm: The office }}{rest} }}
tiers: {{ pro: {{}} }}
clients:
  ann: {{ tier: pro }}
  bob: {{ api_keys: [{{ plain: key-of-bob }}] }}
routes:
  - {{ name: app, upstream: app, auth: required }}
  - {{ name: open, match: {{ path: /open }}, upstream: app }}
",
        app(upstream.address),
        file.display()
    )
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

#[test]
fn a_right_password_names_the_client_and_stays_here() {
    let upstream = Upstream::echo();
    let scene = with(&upstream, "");
    for (name, tier) in [("ann", Some("pro")), ("bob", None), ("eve", None)] {
        for _ in 0..3 {
            let password = basic(name, "open sesame");
            let seen = scene
                .gateway
                .get_with("/", &[("Authorization", &password)])
                .text();
            assert_eq!(header_in(&seen, "x-tidegate-client"), Some(name));
            assert_eq!(header_in(&seen, "x-tidegate-tier"), tier);
            assert_eq!(header_in(&seen, "authorization"), None);
        }
    }
    let password = basic("ann", "open sesame");
    let seen = scene
        .gateway
        .get_with("/open", &[("Authorization", &password)])
        .text();
    assert_eq!(header_in(&seen, "authorization"), Some(password.as_str()));
    let valid = "tidegate_authentications_total{method=\"basic\",outcome=\"valid\"}";
    assert_eq!(scene.gateway.metric(valid), 9.0);
}

#[test]
fn wrong_passwords_and_garbage_get_401_with_the_realm() {
    let upstream = Upstream::echo();
    let scene = with(&upstream, "");
    for bad in [
        basic("ann", "open sesam"),
        basic("ann", ""),
        basic("nobody", "open sesame"),
        basic("", ""),
        format!("Basic {}", STANDARD.encode("no colon")),
        format!("Basic {}", STANDARD.encode(b"ann:\xff\xfe")),
        "Basic".to_owned(),
        "Basic %%%".to_owned(),
        format!("basic {}", "A".repeat(4_000)),
    ] {
        let refusal = scene.gateway.get_with("/", &[("Authorization", &bad)]);
        assert_eq!(refusal.status, 401, "{bad}: {refusal}");
        assert_eq!(
            refusal.header("WWW-Authenticate"),
            Some("ApiKey realm=\"tidegate\", Basic realm=\"The office\", charset=\"UTF-8\"")
        );
    }
    assert_eq!(upstream.requests(), 0);
    let log = scene.gateway.stderr.text();
    assert!(!log.contains("sesam"), "{log}");
}

#[test]
fn a_password_and_a_key_of_different_clients_are_refused() {
    let upstream = Upstream::echo();
    let scene = with(&upstream, "");
    let status = |name| {
        let password = basic(name, "open sesame");
        let headers = [
            ("X-API-Key", "key-of-bob"),
            ("Authorization", password.as_str()),
        ];
        scene.gateway.get_with("/", &headers).status
    };
    assert_eq!([status("bob"), status("ann")], [200, 401]);
}

#[test]
fn under_guard_only_passwords_that_were_right_before_pass() {
    let upstream = Upstream::echo();
    let scene = with(&upstream, ", failures: { count: 3, period: 1h }");
    let status = |name, password| {
        let password = basic(name, password);
        scene
            .gateway
            .get_with("/", &[("Authorization", &password)])
            .status
    };
    assert_eq!(status("ann", "open sesame"), 200);
    for guess in ["a", "b", "c"] {
        assert_eq!(status("ann", guess), 401);
    }
    assert_eq!(status("ann", "d"), 429);
    assert_eq!(status("bob", "open sesame"), 429);
    assert_eq!(status("ann", "open sesame"), 200);
}

#[test]
fn a_password_that_many_send_at_once_is_hashed_once() {
    let upstream = Upstream::echo();
    let files = Scratch::new();
    let hash = bcrypt::hash("open sesame", 7).unwrap();
    let file = files.file("htpasswd", &format!("ann:{hash}\n"));
    let gateway = Gateway::start(&configuration(&upstream, &file, ", timeout: 30s"));
    let password = basic("ann", "open sesame");
    // more than may wait for hashes of their own
    let ready = std::sync::Barrier::new(100);
    let ask = || {
        let mut connection = gateway.connect();
        ready.wait();
        let headers = [("Authorization", password.as_str())];
        connection.request("GET", "/", &headers, b"").status
    };
    std::thread::scope(|threads| {
        let all: Vec<_> = (0..100).map(|_| threads.spawn(ask)).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
}

#[test]
fn right_passwords_stay_known_when_a_policy_changes_and_are_forgotten_when_the_file_does() {
    let upstream = Upstream::echo();
    let files = Scratch::new();
    let file = files.file("htpasswd", USERS);
    let first = configuration(&upstream, &file, ", failures: { count: 3, period: 1h }");
    let gateway = Gateway::start(&first);
    let status = |name, password| {
        let password = basic(name, password);
        let headers = [("Authorization", password.as_str())];
        gateway.get_with("/", &headers).status
    };
    let reloaded = |times| {
        let line = "configuration reloaded";
        waiting::until("it is reloaded", || gateway.lines_with(line) == times);
    };
    assert_eq!(status("ann", "open sesame"), 200);
    for guess in ["a", "b", "c"] {
        assert_eq!(status("ann", guess), 401);
    }
    let second = format!(
        "{first}policies: {{ p: {{ key: [client], algorithm: token_bucket, quota: {{ count: 9, period: 1h }} }} }}\n"
    );
    gateway.reload(&second);
    reloaded(1);
    assert_eq!(status("bob", "open sesame"), 429, "unknown under guard");
    assert_eq!(status("ann", "open sesame"), 200, "known all the same");
    files.file("htpasswd", &USERS.replace("eve", "mallory"));
    gateway.reload(&second);
    reloaded(2);
    assert_eq!(status("ann", "open sesame"), 429);
}

#[test]
fn a_file_with_hashes_that_are_not_supported_is_refused_by_line() {
    let files = Scratch::new();
    let passwords = files.file("htpasswd", "ann:hunter2\nbob:$y$j9T$a$b\n");
    let configuration = files.file(
        "tidegate.yaml",
        &format!(
            "auth:\n  basic:\n    htpasswd_file: {}\n",
            passwords.display()
        ),
    );
    let mut command = tidegate(files.path());
    let (code, _, stderr) = outcome(command.args(["check", "-c"]).arg(configuration));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("tidegate.yaml:3:20: auth.basic.htpasswd_file: "),
        "{stderr}"
    );
    assert!(
        stderr.contains("line 1: ") && stderr.contains("line 2: "),
        "{stderr}"
    );
    assert!(!stderr.contains("hunter2"), "{stderr}");
}
