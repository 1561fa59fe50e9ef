//! Odd spellings of paths: the policy of what the upstream will serve applies, or 400.

use crate::client::head;
use crate::gateway::{Gateway, app};
use crate::upstream::Upstream;

/// /admin has a policy that admits nobody a second time; /api and everything else have none.
fn guarded(upstream: &Upstream) -> Gateway {
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes:
  - { name: everything, upstream: app }
  - { name: api, match: { path: /api }, upstream: app }
  - { name: admin, match: { path: /admin }, upstream: app }
policies: { admin: { routes: [admin], key: [global], algorithm: sliding_window, quota: { count: 1, period: 1h } } }
"),
    );
    assert_eq!(gateway.get("/admin").status, 200);
    assert_eq!(gateway.get("/admin").status, 429);
    gateway
}

/// The path of the request line an upstream got.
fn path_of(seen: &str) -> &str {
    seen.split(' ').nth(1).unwrap()
}

#[test]
fn no_spelling_of_a_limited_path_is_a_way_around_its_policy() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for target in [
        "/admin/",
        "/admin/x",
        "/api/../admin",
        "/api/./../admin",
        "/api/%2e%2e/admin",
        "/api/%2E%2E/admin",
        "/api/.%2e/admin",
        "/./admin",
        "/%2e/admin",
        "//admin",
        "///admin",
        "/api//../admin",
        "/api/..//admin",
        "/admin%2f",
        "/admin%2Fx",
        "/%2fadmin",
        "/api%2f..%2fadmin",
        "/api/..%2fadmin",
        "/admin\\",
        "/\\admin",
        "/api/..\\admin",
        "/api\\..\\admin",
        "/admin%5c",
        "/api/..%5cadmin",
        "/admin%00",
        "/admin%00.html",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/a%64min/x",
        "/%2561dmin/../admin",
        "/admin;x=1",
        "/admin;/x",
        "/api/..;/admin",
        "/api/..;x/admin",
        "/admin?x",
        "/admin#x",
        "/admin/../admin",
        "/admin%0a",
        "/admin%09",
        "/x/../../admin",
        "/../admin",
        "/%c0%ae%c0%ae/admin",
        "/%c0%afadmin",
        "http://localhost/admin",
        "http://localhost/api/../admin",
        "http://localhost//admin",
        "http://localhost\\admin",
        "HTTP://LOCALHOST/admin",
    ] {
        let mut connection = gateway.connect();
        connection.send(head("GET", target, &[], 0));
        let response = connection.answer();
        assert!(matches!(response.status, 400 | 429), "{target}: {response}");
    }
    assert_eq!(upstream.requests(), 1, "{:?}", upstream.heads());
}

#[test]
fn raw_bytes_in_a_path_are_refused_or_limited() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for target in [
        b"/admin\0".as_slice(),
        b"/\0/admin",
        b"/admin\t",
        b"/admin\x7f",
        b"/admin\xff",
        b"/api/../admin\xc3\xa9",
        b"/api /../admin",
    ] {
        let mut connection = gateway.connect();
        connection.send([b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        let response = connection.answer();
        assert!(
            matches!(response.status, 400 | 429),
            "{target:?}: {response}"
        );
    }
    assert_eq!(upstream.requests(), 1, "{:?}", upstream.heads());
}

#[test]
fn a_target_that_is_no_path_and_no_url_is_400() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for target in [
        "admin",
        "localhost",
        "localhost:80",
        "*",
        "*/../admin",
        "?x",
        "mailto:x",
    ] {
        let response = gateway.get(target);
        assert_eq!(response.status, 400, "{target}: {response}");
    }
    assert_eq!(upstream.requests(), 1, "{:?}", upstream.heads());
}

#[test]
fn the_upstream_gets_the_normalised_path() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for (target, forwarded) in [
        ("/%61pi/x", "/api/x"),
        ("/api/../b", "/b"),
        ("/api/./x/", "/api/x/"),
        ("/api/%7Euser/%2d", "/api/~user/-"),
        ("/api/a%20b", "/api/a%20b"),
        ("/api/x/..", "/api/"),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ("http://localhost", "/"),
        ("http://localhost?x=1", "/?x=1"),
    ] {
        let response = gateway.get(target);
        assert_eq!(response.status, 200, "{target}: {response}");
        assert_eq!(path_of(&response.text()), forwarded, "{target}");
    }
}

#[test]
fn escapes_in_a_plain_path_keep_their_meaning() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for target in [
        "/caf%C3%A9",
        "/100%25",
        "/a%3Fb",
        "/a%23b",
        "/%252e%252e/admin",
    ] {
        let response = gateway.get(target);
        assert_eq!(response.status, 200, "{target}: {response}");
        assert!(
            path_of(&response.text()).eq_ignore_ascii_case(target),
            "{target}: {response}"
        );
    }
}

#[test]
fn ambiguous_paths_are_400_with_a_reason() {
    let upstream = Upstream::echo();
    let gateway = guarded(&upstream);
    for target in ["/x%2fy", "/x%00", "/x\\y", "//x", "/x//y", "/x%zz", "/../x"] {
        let response = gateway.get(target);
        assert_eq!(response.status, 400, "{target}: {response}");
        assert_eq!(
            response.header("Content-Type"),
            Some("application/problem+json"),
            "{target}"
        );
        assert!(
            response.json()["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_route_may_allow_raw_paths() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: raw, match: { path: /raw, raw_path: true }, upstream: app }]\n"),
    );
    for target in ["/raw/a%2Fb", "/raw//x", "/raw/a\\b", "/raw/%00"] {
        let response = gateway.get(target);
        assert_eq!(response.status, 200, "{target}: {response}");
        assert_eq!(path_of(&response.text()), target);
    }
    for target in ["/raw/..%2f..%2fx", "/raw/../x"] {
        assert!(matches!(gateway.get(target).status, 400 | 404), "{target}");
    }
}
