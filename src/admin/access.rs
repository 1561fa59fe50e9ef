//! Who may use the admin listener: a bearer token, or on loopback nobody from elsewhere.

use super::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Who may use the admin listener.
#[derive(Clone)]
pub struct Access {
    token: Option<Arc<str>>,
    hosts: Arc<[String]>,
}

impl Access {
    /// With a token: whoever has it. Without: requests that name this machine (or one of `hosts`)
    /// and come from no other site; the configuration allows that on loopback only.
    pub fn new(token: Option<&str>, hosts: &[String]) -> Self {
        Access {
            token: token.map(Arc::from),
            hosts: hosts.into(),
        }
    }
}

/// Everything but the start page and the health check needs the token, if there is one.
pub(super) async fn require_token(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &access.token else {
        return next.run(request).await;
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(bearer);
    if given.is_some_and(|given| bool::from(given.ct_eq(token.as_bytes()))) {
        return next.run(request).await;
    }
    let detail = "This needs the header Authorization: Bearer <admin.token>.";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}

/// Without a token a page of another site could use the browser of somebody on this machine: its
/// requests name another origin, or, after DNS rebinding, another host.
pub(super) async fn require_own_origin(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response {
    if access.token.is_some() {
        return next.run(request).await;
    }
    let headers = request.headers();
    if !host_is_ours(headers, &access.hosts) {
        return refused(
            StatusCode::FORBIDDEN,
            "The Host header names neither this machine nor one of admin.hosts.",
        );
    }
    if comes_from_elsewhere(headers) {
        return refused(
            StatusCode::FORBIDDEN,
            "Requests from other sites are not accepted without a token.",
        );
    }
    let reads = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    let json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !reads && !json {
        return refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Writes need Content-Type: application/json.",
        );
    }
    next.run(request).await
}

fn refused(status: StatusCode, detail: &str) -> Response {
    Problem::new(status, detail).into_response()
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn host_is_ours(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = name_of(host).to_ascii_lowercase();
    is_loopback(&name) || hosts.contains(&name)
}

fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let own = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let (origin, own) = (origin.as_bytes(), own.unwrap_or_default());
    !["http://", "https://"]
        .iter()
        .any(|scheme| origin.strip_prefix(scheme.as_bytes()) == Some(own))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or(host),
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_names_of_this_machine_and_configured_ones_are_ours() {
        let hosts = ["admin.example".to_owned()];
        for host in [
            "localhost:9180",
            "127.0.0.1",
            "127.8.8.8:1",
            "[::1]:9180",
            "Admin.Example:9180",
        ] {
            assert!(host_is_ours(&headers(&[("host", host)]), &hosts), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!host_is_ours(&headers(&[("host", host)]), &hosts), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_recognised() {
        assert!(!comes_from_elsewhere(&headers(&[(
            "host",
            "localhost:9180"
        )])));
        let own = [
            ("host", "localhost:9180"),
            ("origin", "http://localhost:9180"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(!comes_from_elsewhere(&headers(&own)));
        assert!(comes_from_elsewhere(&headers(&[
            ("host", "localhost:9180"),
            ("origin", "http://evil.example")
        ])));
        assert!(comes_from_elsewhere(&headers(&[
            ("host", "localhost:9180"),
            ("origin", "null")
        ])));
        assert!(comes_from_elsewhere(&headers(&[(
            "sec-fetch-site",
            "cross-site"
        )])));
    }
}
