//! What upstreams are told about the client, and that nobody else can tell them.

use crate::client::head;
use crate::gateway::{Gateway, app};
use crate::upstream::{Upstream, header_in, headers_in};

fn with(upstream: &Upstream) -> Gateway {
    Gateway::start(
        &(app(upstream.address)
            + "tiers: { pro: {} }
clients:
  acme: { tier: pro, api_keys: [{ plain: key-of-acme }] }
  globex: { api_keys: [{ plain: key-of-globex }] }
routes: [{ name: app, upstream: app, auth: optional }]
"),
    )
}

/// Every header line whose name an upstream may read as this one.
fn readings(seen: &str, name: &str) -> Vec<String> {
    let alike = |is: &str| {
        let is: String = is
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        is == name
    };
    let lines = seen
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'));
    lines
        .filter(|(is, _)| alike(is))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

#[test]
fn an_upstream_hears_client_and_tier() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    let seen = gateway
        .get_with("/", &[("X-API-Key", "key-of-acme")])
        .text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), Some("acme"));
    assert_eq!(header_in(&seen, "x-tidegate-tier"), Some("pro"));
    let seen = gateway
        .get_with("/", &[("X-API-Key", "key-of-globex")])
        .text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), Some("globex"));
    assert_eq!(header_in(&seen, "x-tidegate-tier"), None);
    let seen = gateway.get("/").text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), None);
    assert_eq!(header_in(&seen, "x-tidegate-tier"), None);
}

#[test]
fn spoofed_identity_is_removed_in_every_spelling() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    for spelling in [
        "X-Tidegate-Client",
        "x_tidegate_client",
        "X_Tidegate_Client",
        "X-Tidegate_Client",
        "x.tidegate.client",
        "X-TIDEGATE-CLIENT",
        "X-Tidegate-Tier",
        "X_Tidegate_Tier",
    ] {
        let name = spelling.to_ascii_lowercase().replace(['_', '.'], "-");
        let seen = gateway.get_with("/", &[(spelling, "root")]).text();
        assert_eq!(readings(&seen, &name), [""; 0], "{spelling}: {seen}");
        let both = [(spelling, "root"), ("X-API-Key", "key-of-acme")];
        let seen = gateway.get_with("/", &both).text();
        let honest = if name.ends_with("client") {
            "acme"
        } else {
            "pro"
        };
        assert_eq!(readings(&seen, &name), [honest], "{spelling}: {seen}");
    }
}

#[test]
fn several_spoofed_lines_are_removed_together() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    let spoofed = [
        ("X-Tidegate-Client", "root"),
        ("X-Tidegate-Client", "admin"),
        ("x_tidegate_client", "root"),
        ("X-Tidegate-Tier", "unlimited"),
        ("X-API-Key", "key-of-globex"),
    ];
    let seen = gateway.get_with("/", &spoofed).text();
    assert_eq!(readings(&seen, "x-tidegate-client"), ["globex"]);
    assert_eq!(readings(&seen, "x-tidegate-tier"), [""; 0]);
}

#[test]
fn nominating_our_headers_in_connection_does_not_remove_them() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    let nominated = [
        ("X-API-Key", "key-of-acme"),
        (
            "Connection",
            "X-Tidegate-Client, x-tidegate-tier, X-Forwarded-For, X-Request-Id",
        ),
    ];
    let seen = gateway.get_with("/", &nominated).text();
    assert_eq!(readings(&seen, "x-tidegate-client"), ["acme"]);
    assert_eq!(readings(&seen, "x-tidegate-tier"), ["pro"]);
    assert_eq!(readings(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(readings(&seen, "x-request-id").len(), 1);
    let connection = headers_in(&seen, "connection")
        .join(",")
        .to_ascii_lowercase();
    assert!(
        !connection.contains("x-tidegate"),
        "an upstream would drop them: {seen}"
    );
}

#[test]
fn spoofed_identity_in_trailers_does_not_arrive() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    let mut connection = gateway.connect();
    let headers = [
        ("Transfer-Encoding", "chunked"),
        ("Trailer", "X-Tidegate-Client"),
    ];
    connection.send(head("POST", "/", &headers, 0));
    connection.send("2\r\nab\r\n0\r\nX-Tidegate-Client: root\r\n\r\n");
    if let Ok(response) = connection.answer_to("POST") {
        assert!(matches!(response.status, 200 | 400), "{response}");
    }
    assert!(upstream.heads().iter().all(|seen| !seen.contains("root")));
}

#[test]
fn every_request_has_an_id_that_the_client_cannot_choose() {
    let upstream = Upstream::echo();
    let gateway = with(&upstream);
    let one = gateway.get_with("/", &[("X-Request-Id", "mine")]).text();
    let two = gateway.get("/").text();
    let ids = [&one, &two].map(|seen| header_in(seen, "x-request-id").unwrap_or_default());
    assert!(ids.iter().all(|id| id.len() >= 16), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}
