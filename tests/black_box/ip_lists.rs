//! Networks that a route takes requests from, and those it does not.

use crate::gateway::{Gateway, app};
use crate::upstream::Upstream;

#[test]
fn deny_wins_allow_excludes_and_both_come_before_credentials() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "{}trusted_proxies: [127.0.0.0/8]
auth: {{ failures: {{ count: 2, period: 1h }} }}
clients: {{ acme: {{ api_keys: [{{ plain: key-of-acme }}] }} }}
routes:
  - {{ name: everywhere, upstream: app }}
  - {{ name: office, match: {{ path: /office }}, upstream: app, allow: [192.0.2.0/24, '2001:db8::/32'], deny: [192.0.2.66], auth: required }}
  - {{ name: banned, match: {{ path: /banned }}, upstream: app, deny: [198.51.100.0/24] }}
",
        app(upstream.address)
    ));
    let answer = |path: &str, from: &str, key: &str| {
        gateway.get_with(path, &[("X-Forwarded-For", from), ("X-API-Key", key)])
    };
    let status = |path, from| answer(path, from, "key-of-acme").status;
    assert_eq!(status("/office", "192.0.2.1"), 200);
    assert_eq!(status("/office", "2001:db8::1"), 200);
    assert_eq!(status("/office", "::ffff:192.0.2.1"), 200);
    assert_eq!(status("/office", "192.0.2.66"), 403);
    assert_eq!(status("/office", "198.51.100.1"), 403);
    assert_eq!(status("/banned", "198.51.100.1"), 403);
    assert_eq!(status("/banned", "203.0.113.1"), 200);
    assert_eq!(status("/", "198.51.100.1"), 200);
    let seen = upstream.requests();
    // no credential is looked at, so none fails and nobody is guarded
    for _ in 0..5 {
        let refusal = answer("/office", "198.51.100.1", "wrong");
        assert_eq!(refusal.status, 403, "{refusal}");
        assert_eq!(refusal.header("WWW-Authenticate"), None);
        assert_eq!(
            refusal.json()["detail"],
            "This address may not be used here."
        );
    }
    assert_eq!(upstream.requests(), seen);
    let preflight = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    assert_eq!(gateway.send("OPTIONS", "/office", &preflight).status, 403);
}
