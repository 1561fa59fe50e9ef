//! What every request must satisfy before it is looked at: sizes, one host, nobody else's headers.

use crate::admission::Rejection;
use http::{HeaderMap, HeaderName, Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use std::time::Duration;

/// How long an idle connection of a client is kept.
pub(super) const KEEPALIVE_SECONDS: u64 = 75;

/// Largest header section in bytes, names and values (nginx: four buffers of 8 KiB).
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How long a client may take to accept the next bytes of an answer.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest request id taken over from a trusted proxy.
const MAX_REQUEST_ID: usize = 128;

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
    let mut lengths = 0;
    for (name, value) in &request.headers {
        bytes += name.as_str().len() + value.len();
        spoofed |= only_ours(name);
        lengths += usize::from(*name == header::CONTENT_LENGTH);
    }
    if bytes > MAX_HEADER_BYTES || request.headers.len() > MAX_HEADERS {
        return Err(Rejection::HeadersTooLarge);
    }
    if !request.raw_path_is_utf8() {
        return Err(Rejection::BadRequest(
            "the path is not valid UTF-8; percent-encode it",
        ));
    }
    let target = request.raw_path();
    if target.first() != Some(&b'/') && target != b"*" && authority(request).is_none() {
        return Err(Rejection::BadRequest(
            "the request target is neither a path nor a URL",
        ));
    }
    if lengths > 1 {
        return Err(Rejection::BadRequest("more than one Content-Length header"));
    }
    Ok(Checked {
        host: host(request)?,
        spoofed,
    })
}

/// The one host a request is for (RFC 9112, 3.2): of an absolute target its authority, otherwise
/// `Host`, of which HTTP/1.1 has exactly one.
fn host(request: &RequestHeader) -> Result<String, Rejection> {
    let mut lines = request.headers.get_all(header::HOST).into_iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Rejection::BadRequest("more than one Host header"));
    }
    if line.is_none() && request.version == Version::HTTP_11 {
        return Err(Rejection::BadRequest("the Host header is missing"));
    }
    if line.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(Rejection::BadRequest(
            "the Host header is not a host with an optional port",
        ));
    }
    let host =
        authority(request).or_else(|| line.and_then(|host| host.to_str().ok()).map(str::to_owned));
    Ok(host.unwrap_or_default())
}

/// The authority of an absolute target (`GET http://host/path`) or of HTTP/2.
fn authority(request: &RequestHeader) -> Option<String> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let target = request.raw_path();
    if target.first() == Some(&b'/') {
        return None;
    }
    let target = std::str::from_utf8(target)
        .ok()?
        .parse::<http::Uri>()
        .ok()?;
    target.scheme()?;
    target
        .authority()
        .map(|authority| authority.as_str().to_owned())
}

/// `name`, `192.0.2.1` or `[2001:db8::1]`, with or without `:port`; nothing at all is allowed too.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let (address, port) = rest.split_at(end);
            if !address
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
            {
                return false;
            }
            (&[][..], port.get(1..).unwrap_or_default())
        }
        None => host.split_at(
            host.iter()
                .position(|&byte| byte == b':')
                .unwrap_or(host.len()),
        ),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_port = port.is_empty()
        || port
            .strip_prefix(b":")
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    name.iter().all(is_name) && is_port
}

/// Takes our headers out of `Connection`: whoever nominates them there asks for their removal,
/// and ours are set whatever a client says.
pub(super) fn unnominate(request: &mut RequestHeader) -> Result<()> {
    let Some(rest) = without_nominations(&request.headers, only_ours) else {
        return Ok(());
    };
    request.remove_header(&header::CONNECTION);
    if let Some(rest) = rest {
        request.insert_header(header::CONNECTION, rest)?;
    }
    Ok(())
}

/// What is left of `Connection` without the names that are ours: `None` if it has none of them,
/// otherwise the rest, if there is any.
pub(super) fn without_nominations(
    headers: &HeaderMap,
    ours: impl Fn(&HeaderName) -> bool,
) -> Option<Option<Vec<u8>>> {
    // mostly there is none, and then nothing of what follows is even loaded into a cache
    if !headers.contains_key(header::CONNECTION) {
        return None;
    }
    let is_ours =
        |token: &[u8]| HeaderName::from_bytes(token.trim_ascii()).is_ok_and(|name| ours(&name));
    let tokens = || {
        let lines = headers.get_all(header::CONNECTION).into_iter();
        lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
    };
    if !tokens().any(is_ours) {
        return None;
    }
    let others: Vec<&[u8]> = tokens().filter(|token| !is_ours(token)).collect();
    let rest = others.join(&b","[..]);
    Some((!rest.trim_ascii().is_empty()).then_some(rest))
}

/// Is this one of the headers only we may set, in any spelling an upstream may take for it? CGI
/// and its heirs read every byte but letters and digits as one and the same.
pub(super) fn only_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    if !matches!(name.first(), Some(b'x' | b'f')) {
        return false;
    }
    OURS.iter().any(|ours| spells(name, ours))
}

/// May an upstream take this name for that one?
pub(super) fn is_spelling_of(name: &HeaderName, meant: &HeaderName) -> bool {
    spells(name.as_str().as_bytes(), meant.as_str().as_bytes())
}

fn spells(name: &[u8], meant: &[u8]) -> bool {
    let same =
        |(&a, &b): (&u8, &u8)| a == b || (!b.is_ascii_alphanumeric() && !a.is_ascii_alphanumeric());
    name.len() == meant.len() && name.iter().zip(meant).all(same)
}

/// The id a request already has; believed only of a trusted proxy.
pub(super) fn request_id(request: &RequestHeader) -> Option<String> {
    let id = request.headers.get("x-request-id")?.to_str().ok()?;
    (1..=MAX_REQUEST_ID)
        .contains(&id.len())
        .then(|| id.to_owned())
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
        for host in ["a b", "a/b", "a,b", "a@b", "[::1", "a:b", "[::1]x"] {
            assert_eq!(host_of("/", &[("Host", host)]), None, "{host}");
        }
        for host in ["[::1]:80", "a_b.example.", "127.0.0.1:1"] {
            assert_eq!(host_of("/", &[("Host", host)]).as_deref(), Some(host));
        }
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
