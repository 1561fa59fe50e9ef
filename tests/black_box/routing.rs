//! Routes: hosts, paths, methods, and which of several matches is the most specific.

use crate::gateway::{Gateway, app};
use crate::upstream::{Upstream, header_in};

/// A gateway whose upstream is told which route took a request: each strips nothing and is
/// recognised by its policy's limit.
struct Routes {
    gateway: Gateway,
    names: Vec<&'static str>,
    _upstream: Upstream,
}

/// Each route has a policy whose limit is 1000 plus the route's place in the list.
fn routes(matches: &[(&'static str, &str)]) -> Routes {
    let upstream = Upstream::echo();
    let mut text = app(upstream.address) + "routes:\n";
    for (name, matching) in matches {
        text += &format!("  - {{ name: {name}, match: {{ {matching} }}, upstream: app }}\n");
    }
    text += "policies:\n";
    for (place, (name, _)) in matches.iter().enumerate() {
        text += &format!(
            "  {name}: {{ routes: [{name}], key: [ip], algorithm: token_bucket, quota: {{ count: {}, period: 1h }} }}\n",
            1000 + place
        );
    }
    Routes {
        gateway: Gateway::start(&text),
        names: matches.iter().map(|(name, _)| *name).collect(),
        _upstream: upstream,
    }
}

impl Routes {
    /// The route that took a request, or the status of the refusal.
    fn taken(&self, method: &str, host: &str, target: &str) -> String {
        let response = self.gateway.send(method, target, &[("Host", host)]);
        match response.status {
            200 => self.names[response.number("X-RateLimit-Limit") as usize - 1000].to_owned(),
            status => status.to_string(),
        }
    }
}

#[test]
fn hosts_match_exactly_by_wildcard_or_any() {
    let routes = routes(&[
        ("any", "path: /"),
        ("wildcard", "hosts: [\"*.example.com\"]"),
        ("deeper", "hosts: [\"*.eu.example.com\"]"),
        ("exact", "hosts: [api.example.com]"),
    ]);
    for (host, route) in [
        ("api.example.com", "exact"),
        ("API.Example.COM", "exact"),
        ("api.example.com:8080", "exact"),
        ("api.example.com.", "exact"),
        ("www.example.com", "wildcard"),
        ("a.b.example.com", "wildcard"),
        ("x.eu.example.com", "deeper"),
        ("example.com", "any"),
        ("evilexample.com", "any"),
        ("127.0.0.1:1", "any"),
        ("[::1]:8080", "any"),
    ] {
        assert_eq!(routes.taken("GET", host, "/"), route, "{host}");
    }
}

#[test]
fn paths_match_exactly_by_segments_or_by_regex() {
    let routes = routes(&[
        ("root", "path: /"),
        ("api", "path: /api"),
        ("search", "path: /api/search"),
        ("exact", "path_exact: /api/search/exact"),
        ("items", "path_regex: \"^/items/[0-9]+$\""),
    ]);
    for (target, route) in [
        ("/", "root"),
        ("/apix", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api/other", "api"),
        ("/api/search", "search"),
        ("/api/search?q=/items/1", "search"),
        ("/api/searching", "api"),
        ("/api/search/deeper/still", "search"),
        ("/api/search/exact", "exact"),
        ("/api/search/exact/not", "search"),
        ("/items/42", "items"),
        ("/items/42/x", "root"),
        ("/items/x", "root"),
        ("/API", "root"),
    ] {
        assert_eq!(routes.taken("GET", "h", target), route, "{target}");
    }
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    let one = routes(&[
        ("broad", "path: /"),
        ("narrow", "path: /a/b"),
        ("middle", "path: /a"),
    ]);
    let other = routes(&[
        ("narrow", "path: /a/b"),
        ("middle", "path: /a"),
        ("broad", "path: /"),
    ]);
    for target in ["/", "/a", "/a/b", "/a/b/c", "/ab"] {
        assert_eq!(
            one.taken("GET", "h", target),
            other.taken("GET", "h", target),
            "{target}"
        );
    }
}

#[test]
fn methods_part_routes_and_what_is_left_is_405_with_allow() {
    let routes = routes(&[
        ("read", "path: /thing, methods: [GET]"),
        ("write", "path: /thing, methods: [POST, PUT]"),
    ]);
    assert_eq!(routes.taken("GET", "h", "/thing"), "read");
    assert_eq!(routes.taken("HEAD", "h", "/thing"), "read");
    assert_eq!(routes.taken("PUT", "h", "/thing"), "write");
    let refusal = routes.gateway.send("DELETE", "/thing", &[]);
    assert_eq!(refusal.status, 405);
    assert_eq!(refusal.json()["status"], 405);
    let mut allow: Vec<_> = refusal.header("Allow").unwrap().split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST", "PUT"]);
}

#[test]
fn where_nothing_is_served_the_answer_is_404() {
    let routes = routes(&[("thing", "path: /thing, hosts: [a.example]")]);
    let refusal = routes.gateway.get_with("/other", &[("Host", "a.example")]);
    assert_eq!(refusal.status, 404);
    assert_eq!(
        refusal.header("Content-Type"),
        Some("application/problem+json")
    );
    let body = refusal.json();
    assert_eq!(
        (&body["status"], &body["title"]),
        (&404.into(), &"Not Found".into())
    );
    assert!(
        body["detail"].is_string() && body["request_id"].is_string(),
        "{body}"
    );
    assert_eq!(routes.taken("GET", "b.example", "/thing"), "404");
}

#[test]
fn a_prefix_is_stripped_before_forwarding() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &(app(upstream.address)
            + "routes: [{ name: app, match: { path: /api }, upstream: app, rewrite: { strip_prefix: /api } }]\n"),
    );
    for (target, forwarded) in [
        ("/api/search?q=%2f", "/search?q=%2f"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?x=1", "/?x=1"),
        ("/api/api", "/api"),
        ("/%61pi/x", "/x"),
    ] {
        let seen = gateway.get(target).text();
        assert!(
            seen.starts_with(&format!("GET {forwarded} HTTP/1.1\r\n")),
            "{target}: {seen}"
        );
    }
}

#[test]
fn several_upstreams_get_their_own_requests() {
    let (one, two) = (Upstream::echo(), Upstream::echo());
    let gateway = Gateway::start(&format!(
        "upstreams:
  one: {{ peers: [{{ address: \"{}\" }}] }}
  two: {{ peers: [{{ address: \"{}\" }}] }}
routes:
  - {{ name: one, match: {{ path: /one }}, upstream: one }}
  - {{ name: two, match: {{ path: /two }}, upstream: two }}
",
        one.address, two.address
    ));
    for target in ["/one", "/two", "/one", "/one"] {
        assert_eq!(gateway.get(target).status, 200);
    }
    assert_eq!((one.requests(), two.requests()), (3, 1));
}

#[test]
fn weights_share_out_requests() {
    let (one, two) = (Upstream::echo(), Upstream::echo());
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ peers: [{{ address: \"{}\", weight: 3 }}, {{ address: \"{}\", weight: 1 }}] }} }}
routes: [{{ name: app, upstream: app }}]
",
        one.address, two.address
    ));
    for _ in 0..40 {
        assert!(header_in(&gateway.get("/").text(), "host").is_some());
    }
    assert_eq!((one.requests(), two.requests()), (30, 10));
}
