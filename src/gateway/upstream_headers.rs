//! What the upstream gets: the path that was matched, where the request comes from, who is calling.

use super::client_address::X_FORWARDED_FOR;
use super::context::Context;
use super::header_map::put;
use super::hygiene::{is_spelling_of, only_ours, without_nominations};
use crate::limit::descriptor::write_ipv4;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};
use smallvec::SmallVec;
use std::net::IpAddr;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_TIDEGATE_CLIENT: HeaderName = HeaderName::from_static("x-tidegate-client");
const X_TIDEGATE_TIER: HeaderName = HeaderName::from_static("x-tidegate-tier");

/// Most headers that are added.
const ADDED: usize = 7;

/// Listeners speak plain HTTP.
const SCHEME: &str = "http";

/// Puts the normalised path in place of the one that came, without the route's prefix.
pub(super) fn rewrite(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let stripped = ctx.route().and_then(|route| route.strip_prefix.as_deref());
    let path = ctx.path.as_deref().unwrap_or_else(|| request.uri.path());
    let shorter = stripped.and_then(|prefix| without_prefix(path, prefix));
    let origin_form = request.raw_path().first() == Some(&b'/');
    if ctx.path.is_none() && shorter.is_none() && origin_form {
        return Ok(());
    }
    let mut target = shorter.unwrap_or(path).to_owned();
    if !target.starts_with('/') && target != "*" {
        target.insert(0, '/');
    }
    if let Some(query) = request.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    if request.uri.authority().is_none() {
        return request.set_raw_path(target.as_bytes());
    }
    // HTTP/2 keeps the host in the target
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().or_err(ErrorType::InternalError, "target")?);
    let uri = Uri::from_parts(parts).or_err(ErrorType::InternalError, "target")?;
    request.set_uri(uri);
    Ok(())
}

/// What follows a prefix of whole segments. Segments are compared decoded: `/%40x` begins with `/@x`.
fn without_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let mut rest = path;
    for wanted in prefix.split('/').filter(|segment| !segment.is_empty()) {
        let after_slash = rest.strip_prefix('/')?;
        let length = after_slash.find('/').unwrap_or(after_slash.len());
        let (segment, behind) = after_slash.split_at_checked(length)?;
        if !percent_decode_str(segment).eq(percent_decode_str(wanted)) {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

/// Removes what only we may say, then says it.
///
/// Names leave in lower case, as they do in HTTP/2 (RFC 9110, 5.1: they mean the same in any case).
/// To keep their case, Pingora holds a second table in step, which would cost more than all of
/// [`admission`](crate::admission).
pub(super) fn set(request: &mut RequestHeader, came: &RequestHeader, ctx: &Context) -> Result<()> {
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts: Parts = std::mem::replace(request, nothing).into();
    let headers = &mut parts.headers;
    headers.reserve(ADDED);
    if ctx.spoofed {
        let names: Vec<HeaderName> = headers
            .keys()
            .filter(|name| only_ours(name))
            .cloned()
            .collect();
        for name in names {
            headers.remove(&name);
        }
    }
    origin(headers, came, ctx)?;
    identity(headers, ctx)?;
    *request = RequestHeader::from(parts);
    Ok(())
}

/// Where the request comes from, and its id.
fn origin(headers: &mut HeaderMap, came: &RequestHeader, ctx: &Context) -> Result<()> {
    let believed = |name: HeaderName| {
        ctx.peer_trusted
            .then(|| joined(came, &name))
            .filter(|value| !value.is_empty())
    };
    let ip = ctx.peer.to_canonical();
    let hops = match believed(X_FORWARDED_FOR) {
        Some(before) => valued(format!("{before}, {ip}"))?,
        None => text_of(ip)?,
    };
    put(headers, X_FORWARDED_FOR, hops);
    let scheme = match believed(X_FORWARDED_PROTO) {
        Some(scheme) => valued(scheme)?,
        None => HeaderValue::from_static(SCHEME),
    };
    put(headers, X_FORWARDED_PROTO, scheme);
    if let Some(host) = believed(X_FORWARDED_HOST) {
        put(headers, X_FORWARDED_HOST, valued(host)?);
    } else if !ctx.host.is_empty() {
        put(headers, X_FORWARDED_HOST, host_of(came, ctx)?);
    }
    put(headers, X_REQUEST_ID, valued(ctx.request_id())?);
    if ctx.route().is_some_and(|route| route.forwarded_header) {
        let element = forwarded(ctx, believed(header::FORWARDED));
        put(headers, header::FORWARDED, valued(element)?);
    }
    Ok(())
}

/// The host as it came; the bytes of the `Host` header are shared, not copied.
fn host_of(came: &RequestHeader, ctx: &Context) -> Result<HeaderValue> {
    match came.headers.get(header::HOST) {
        Some(host) if host.as_bytes() == ctx.host.as_bytes() => Ok(host.clone()),
        _ => valued(ctx.host.clone()),
    }
}

fn identity(headers: &mut HeaderMap, ctx: &Context) -> Result<()> {
    credentials(headers, ctx);
    let Some(client) = ctx.identity.client() else {
        return Ok(());
    };
    put(headers, X_TIDEGATE_CLIENT, client.id_header());
    if let Some(tier) = &client.tier {
        let tier = HeaderValue::from_str(tier).or_err(ErrorType::InvalidHTTPHeader, "a tier")?;
        put(headers, X_TIDEGATE_TIER, tier);
    }
    Ok(())
}

/// What was verified here stays here, unless the route says otherwise; what `forward_auth` says goes
/// in place of what the client says under the same name.
fn credentials(headers: &mut HeaderMap, ctx: &Context) {
    let Some(route) = ctx.route() else { return };
    let proven = &ctx.identity.proven;
    if !route.forward_credentials {
        if proven.api_key_verified {
            headers.remove(ctx.snapshot.authenticator.api_key_header());
        }
        if proven.authorization_verified {
            headers.remove(header::AUTHORIZATION);
        }
    }
    if let Some(asked) = &route.forward_auth {
        let copied = asked.copied();
        let same = |name: &HeaderName| copied.iter().any(|copied| is_spelling_of(name, copied));
        let names: Vec<HeaderName> = headers.keys().filter(|name| same(name)).cloned().collect();
        for name in names {
            headers.remove(&name);
        }
        unnominate(headers, same);
    }
    for (name, values) in ctx.identity.passed.iter().flat_map(|passed| &passed.copied) {
        for value in values {
            headers.append(name, value.clone());
        }
    }
}

/// Takes names out of `Connection`: a proxy further on would remove the headers they name.
fn unnominate(headers: &mut HeaderMap, ours: impl Fn(&HeaderName) -> bool) {
    let Some(rest) = without_nominations(headers, ours) else {
        return;
    };
    headers.remove(header::CONNECTION);
    if let Some(rest) = rest.and_then(|rest| HeaderValue::from_bytes(&rest).ok()) {
        put(headers, header::CONNECTION, rest);
    }
}

/// `http` or `https`, as the client used it; what a proxy says is believed if it is trusted.
pub(super) fn scheme<'a>(came: &'a RequestHeader, ctx: &Context) -> &'a str {
    if !ctx.peer_trusted {
        return SCHEME;
    }
    let said = came.headers.get(X_FORWARDED_PROTO);
    said.and_then(|value| value.to_str().ok())
        .filter(|said| matches!(*said, "http" | "https"))
        .unwrap_or(SCHEME)
}

/// An address as text.
fn text_of(address: IpAddr) -> Result<HeaderValue> {
    const LONGEST: usize = "255.255.255.255".len();
    let IpAddr::V4(v4) = address else {
        return valued(address.to_string());
    };
    let mut text = SmallVec::<[u8; LONGEST]>::new();
    write_ipv4(v4, |part| text.extend_from_slice(part.as_bytes()));
    HeaderValue::from_bytes(&text).or_err(ErrorType::InvalidHTTPHeader, "an address")
}

fn valued(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InvalidHTTPHeader, "a header of ours")
}

/// All lines of a header as one list; bytes that are not visible ASCII are left out.
fn joined(request: &RequestHeader, name: &HeaderName) -> String {
    let lines: Vec<&str> = request
        .headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    lines.join(", ")
}

/// RFC 7239: `for=192.0.2.1;host="api.example.com";proto=http`, after what trusted proxies said.
fn forwarded(ctx: &Context, before: Option<String>) -> String {
    let ip = ctx.peer.to_canonical();
    let mut element = before.map_or(String::new(), |before| format!("{before}, "));
    element.push_str(&match ip.is_ipv6() {
        true => format!("for=\"[{ip}]\""),
        false => format!("for={ip}"),
    });
    if !ctx.host.is_empty() && !ctx.host.contains(['"', '\\']) {
        element.push_str(&format!(";host=\"{}\"", ctx.host));
    }
    element.push_str(";proto=");
    element.push_str(SCHEME);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_std_writes_them() {
        for address in ["0.0.0.0", "10.200.3.255", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(text_of(address).unwrap(), address.to_string());
        }
    }

    #[test]
    fn a_prefix_is_taken_off_by_whole_segments() {
        assert_eq!(without_prefix("/api/search", "/api"), Some("/search"));
        assert_eq!(without_prefix("/api/search", "/api/"), Some("/search"));
        assert_eq!(without_prefix("/api", "/api"), Some(""));
        assert_eq!(without_prefix("/apix", "/api"), None);
        assert_eq!(without_prefix("/%40x/y", "/@x"), Some("/y"));
        assert_eq!(without_prefix("/a/b", "/"), Some("/a/b"));
    }
}
