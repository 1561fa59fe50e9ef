//! gRPC clients are refused in their own terms: HTTP 200 and grpc-status.

use crate::client::Response;
use crate::gateway::Gateway;
use crate::upstream::{Upstream, nobody};

fn call(gateway: &Gateway, target: &str, content_type: &str) -> Response {
    let headers = [("Content-Type", content_type), ("TE", "trailers")];
    gateway
        .connect()
        .request("POST", target, &headers, b"\0\0\0\0\0")
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "upstreams:
  app: {{ peers: [{{ address: \"{}\" }}] }}
  away: {{ peers: [{{ address: \"{}\" }}] }}
routes:
  - {{ name: limited, match: {{ path: /pkg.Limited }}, upstream: app }}
  - {{ name: closed, match: {{ path: /pkg.Closed }}, upstream: app, auth: required }}
  - {{ name: away, match: {{ path: /pkg.Away }}, upstream: away }}
policies: {{ p: {{ routes: [limited], key: [ip], algorithm: sliding_window, quota: {{ count: 1, period: 1h }} }} }}
",
        upstream.address,
        nobody()
    ))
}

fn assert_status(response: &Response, code: &str) {
    assert_eq!(response.status, 200, "{response}");
    assert_eq!(response.header("grpc-status"), Some(code), "{response}");
    assert_eq!(response.header("Content-Type"), Some("application/grpc"));
    assert!(
        response
            .header("grpc-message")
            .is_some_and(|message| !message.is_empty())
    );
    assert_eq!(response.body, b"");
}

#[test]
fn over_a_limit_is_resource_exhausted() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let allowed = call(&gateway, "/pkg.Limited/Call", "application/grpc");
    assert_eq!((allowed.status, allowed.header("grpc-status")), (200, None));
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc;x=y",
    ] {
        let refusal = call(&gateway, "/pkg.Limited/Call", content_type);
        assert_status(&refusal, "8");
        assert!(refusal.number("Retry-After") > 0);
        assert_eq!(refusal.number("X-RateLimit-Remaining"), 0);
    }
    assert_eq!(
        call(&gateway, "/pkg.Limited/Call", "application/json").status,
        429
    );
}

#[test]
fn no_credentials_is_unauthenticated() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    assert_status(
        &call(&gateway, "/pkg.Closed/Call", "application/grpc"),
        "16",
    );
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn an_upstream_that_is_away_is_unavailable() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    assert_status(&call(&gateway, "/pkg.Away/Call", "application/grpc"), "14");
}

#[test]
fn where_nothing_is_served_it_is_unimplemented() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    assert_status(&call(&gateway, "/pkg.None/Call", "application/grpc"), "12");
}
