//! What every request must satisfy before it is looked at: sizes, one host, nobody else's headers.

use crate::admission::Rejection;
use http::{HeaderName, Version, header};
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use std::time::Duration;

/// How long an idle connection of a client is kept.
pub(super) const KEEPALIVE_SECONDS: u64 = 75;

/// Largest header section in bytes, names and values (nginx: four buffers of 8 KiB).
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How long a refused request's body is waited for before its connection is closed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most header lines.
const MAX_HEADERS: usize = 128;

/// Headers only we may set, as [`only_ours`] reads them.
const OURS: [&[u8]; 7] = [
    b"x-request-id",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"forwarded",
    b"x-tidegate-client",
    b"x-tidegate-tier",
];

/// A request that may be looked at.
pub(super) struct Checked {
    /// its host as sent; empty where HTTP/1.0 sent none
    pub(super) host: String,
    /// does it carry headers that only we may set?
    pub(super) spoofed: bool,
}

pub(super) fn check(request: &RequestHeader) -> Result<Checked, Rejection> {
    let mut bytes = request.raw_path().len();
    let mut spoofed = false;
    for (name, value) in &request.headers {
        bytes += name.as_str().len() + value.len();
        spoofed |= only_ours(name);
    }
    if bytes > MAX_HEADER_BYTES || request.headers.len() > MAX_HEADERS {
        return Err(Rejection::HeadersTooLarge);
    }
    if !request.raw_path_is_utf8() {
        return Err(Rejection::BadRequest(
            "the path is not valid UTF-8; percent-encode it",
        ));
    }
    Ok(Checked {
        host: host(request)?,
        spoofed,
    })
}

/// The one host a request is for (RFC 9112, 3.2): of an absolute target its authority, otherwise
/// `Host`, of which there is exactly one.
fn host(request: &RequestHeader) -> Result<String, Rejection> {
    let mut lines = request.headers.get_all(header::HOST).into_iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Rejection::BadRequest("more than one Host header"));
    }
    if let Some(authority) = authority(request) {
        return Ok(authority);
    }
    match line.map(|value| value.to_str()) {
        Some(Ok(host)) => Ok(host.to_owned()),
        Some(Err(_)) => Err(Rejection::BadRequest(
            "the Host header is not visible ASCII",
        )),
        None if request.version == Version::HTTP_11 => {
            Err(Rejection::BadRequest("the Host header is missing"))
        }
        None => Ok(String::new()),
    }
}

/// The authority of an absolute target (`GET http://host/path`) or of HTTP/2.
fn authority(request: &RequestHeader) -> Option<String> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.host().to_owned());
    }
    let target = request.raw_path();
    if target.first() == Some(&b'/') {
        return None;
    }
    let target = std::str::from_utf8(target)
        .ok()?
        .parse::<http::Uri>()
        .ok()?;
    target
        .authority()
        .map(|authority| authority.host().to_owned())
}

/// Is this one of the headers only we may set, in any spelling an upstream may take for it? CGI
/// and its heirs read every byte but letters and digits as one and the same.
pub(super) fn only_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    if !matches!(name.first(), Some(b'x' | b'f')) {
        return false;
    }
    let same = |(&a, &b): (&u8, &u8)| a == b || (b == b'-' && !a.is_ascii_alphanumeric());
    OURS.iter()
        .any(|ours| ours.len() == name.len() && name.iter().zip(*ours).all(same))
}

/// The length of the body a request announces; 0 where it announces none.
pub(super) fn declared_length(request: &RequestHeader) -> u64 {
    let length = request.headers.get(header::CONTENT_LENGTH);
    length
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Makes the connection usable again after a refusal by reading the body away, if it is small and
/// on its way; `false`: close the connection instead.
pub(super) async fn read_away_body(session: &mut Session) -> bool {
    if !may_reuse(session.req_header()) {
        return false;
    }
    if declared_length(session.req_header()) == 0 {
        return true;
    }
    session.set_total_drain_timeout(Some(PATIENCE));
    session.drain_request_body().await.is_ok()
}

/// May the connection be used again after a refusal? Not if a body of unknown or large size would
/// have to be read away first, nor if the client still waits for leave to send it.
fn may_reuse(request: &RequestHeader) -> bool {
    const WORTH_READING: u64 = 64 * 1024;
    !request.headers.contains_key(header::EXPECT)
        && !request.headers.contains_key(header::TRANSFER_ENCODING)
        && declared_length(request) <= WORTH_READING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_an_upstream_may_take_for_ours_is_found() {
        for name in [
            "x-tidegate-client",
            "x_tidegate_client",
            "x-tidegate_tier",
            "x.request.id",
            "forwarded",
        ] {
            assert!(only_ours(&name.parse().unwrap()), "{name}");
        }
        for name in [
            "x-tidegate",
            "x-api-key",
            "xx-request-id",
            "forwarded-x",
            "x-real-ip",
        ] {
            assert!(!only_ours(&name.parse().unwrap()), "{name}");
        }
    }

    fn request(target: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        request.set_version(Version::HTTP_11);
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn host_of(target: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        check(&request(target, headers))
            .ok()
            .map(|checked| checked.host)
    }

    #[test]
    fn a_request_is_for_exactly_one_host() {
        assert_eq!(
            host_of("/", &[("Host", "a.example:8080")]).as_deref(),
            Some("a.example:8080")
        );
        assert_eq!(host_of("/", &[]), None);
        assert_eq!(host_of("/", &[("Host", "a"), ("Host", "b")]), None);
        assert_eq!(
            host_of("http://b.example/x", &[("Host", "a")]).as_deref(),
            Some("b.example")
        );
    }

    #[test]
    fn too_many_or_too_large_headers_are_refused() {
        let large = "x".repeat(MAX_HEADER_BYTES);
        assert!(check(&request("/", &[("Host", "a"), ("X-Large", &large)])).is_err());
        let many: Vec<_> = std::iter::repeat_n(("X-Many", "1"), MAX_HEADERS + 1).collect();
        assert!(check(&request("/", &many)).is_err());
    }

    #[test]
    fn a_connection_is_kept_after_a_refusal_unless_a_large_body_is_on_its_way() {
        assert!(may_reuse(&request("/", &[("Content-Length", "100")])));
        assert!(!may_reuse(&request("/", &[("Content-Length", "10000000")])));
        assert!(!may_reuse(&request(
            "/",
            &[("Transfer-Encoding", "chunked")]
        )));
        assert!(!may_reuse(&request("/", &[("Expect", "100-continue")])));
    }
}
