//! What the upstream gets: the path that was matched, where the request comes from, who is calling.

use super::client_address::X_FORWARDED_FOR;
use super::context::Context;
use super::hygiene::only_ours;
use http::{HeaderName, HeaderValue, Uri, header};
use percent_encoding::percent_decode_str;
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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
pub(super) fn set(request: &mut RequestHeader, came: &RequestHeader, ctx: &Context) -> Result<()> {
    if ctx.spoofed {
        let names: Vec<HeaderName> = request
            .headers
            .keys()
            .filter(|name| only_ours(name))
            .cloned()
            .collect();
        for name in names {
            request.remove_header(&name);
        }
    }
    let believed = |name: HeaderName| {
        ctx.peer_trusted
            .then(|| joined(came, &name))
            .filter(|value| !value.is_empty())
    };
    let ip = ctx.peer.to_canonical();
    let hops = match believed(X_FORWARDED_FOR) {
        Some(before) => format!("{before}, {ip}"),
        None => ip.to_string(),
    };
    request.insert_header("X-Forwarded-For", hops)?;
    match believed(X_FORWARDED_PROTO) {
        Some(scheme) => request.insert_header("X-Forwarded-Proto", scheme)?,
        None => request.insert_header("X-Forwarded-Proto", HeaderValue::from_static(SCHEME))?,
    }
    match believed(X_FORWARDED_HOST) {
        Some(host) => request.insert_header("X-Forwarded-Host", host)?,
        None if ctx.host.is_empty() => (),
        None => request.insert_header("X-Forwarded-Host", ctx.host.as_str())?,
    }
    request.insert_header("X-Request-Id", ctx.request_id())?;
    if ctx.route().is_some_and(|route| route.forwarded_header) {
        request.insert_header("Forwarded", forwarded(ctx, believed(header::FORWARDED)))?;
    }
    identity(request, ctx)
}

fn identity(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let Some(client) = &ctx.client else {
        return Ok(());
    };
    request.insert_header("X-Tidegate-Client", client.id_header.clone())?;
    if let Some(tier) = &client.tier {
        request.insert_header("X-Tidegate-Tier", tier.as_str())?;
    }
    if ctx.route().is_some_and(|route| !route.forward_credentials) {
        request.remove_header(ctx.snapshot.authenticator.api_key_header());
    }
    Ok(())
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
    fn a_prefix_is_taken_off_by_whole_segments() {
        assert_eq!(without_prefix("/api/search", "/api"), Some("/search"));
        assert_eq!(without_prefix("/api/search", "/api/"), Some("/search"));
        assert_eq!(without_prefix("/api", "/api"), Some(""));
        assert_eq!(without_prefix("/apix", "/api"), None);
        assert_eq!(without_prefix("/%40x/y", "/@x"), Some("/y"));
        assert_eq!(without_prefix("/a/b", "/"), Some("/a/b"));
    }
}
