//! One table from rejections to answers: status, text, headers, gRPC status.

use super::context::Context;
use super::ratelimit_headers;
use crate::admission::{BadCredentials, Rejection};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;
use serde_json::json;

/// A row: what a client is told.
struct Row {
    status: u16,
    /// for the client; tells what to fix, and an attacker nothing
    detail: &'static str,
    /// canonical code of gRPC
    grpc: u8,
    /// microseconds, for `Retry-After`
    retry_after_us: Option<u64>,
}

/// Canonical codes of gRPC (grpc.io, "Status codes").
mod grpc {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

const SECOND_US: u64 = 1_000_000;

/// When to come back to a route in maintenance; nobody knows how long it takes.
const MAINTENANCE_US: u64 = 30 * SECOND_US;

/// The table. Columns: HTTP status, gRPC status, text for the client.
#[rustfmt::skip]
fn row(rejection: &Rejection, ctx: &Context) -> Row {
    use Rejection::*;
    let row = |status, grpc, detail| Row { status, grpc, detail, retry_after_us: None };
    let table = match rejection {
        BadPath(_)               => row(400, grpc::INVALID_ARGUMENT, "The path is ambiguous or malformed."),
        BadRequest(detail)       => row(400, grpc::INVALID_ARGUMENT, detail),
        Unauthenticated(BadCredentials::Missing)
                                 => row(401, grpc::UNAUTHENTICATED, "This route needs credentials; see the WWW-Authenticate header."),
        Unauthenticated(BadCredentials::Invalid)
                                 => row(401, grpc::UNAUTHENTICATED, "The credentials are not valid."),
        Unauthenticated(BadCredentials::InvalidToken)
                                 => row(401, grpc::UNAUTHENTICATED, "The token is not valid or has expired."),
        ForwardAuthRefused(refusal) if refusal.status == 401
                                 => row(401, grpc::UNAUTHENTICATED, "This route needs valid credentials."),
        ForwardAuthRefused(_)    => row(403, grpc::PERMISSION_DENIED, "These credentials may not be used here."),
        AddressRefused           => row(403, grpc::PERMISSION_DENIED, "This address may not be used here."),
        ScopeMissing { .. }      => row(403, grpc::PERMISSION_DENIED, "These credentials are not good for this route."),
        NoRoute                  => row(404, grpc::UNIMPLEMENTED, "Nothing is served here."),
        MethodNotAllowed { .. }  => row(405, grpc::UNIMPLEMENTED, "This method is not served here; see the Allow header."),
        BodyTooLarge             => row(413, grpc::RESOURCE_EXHAUSTED, "The body is larger than this route takes."),
        TooManyFailures { .. }   => row(429, grpc::RESOURCE_EXHAUSTED, "Too many failed authentications."),
        OverLimit { policy, .. } => row(refusal_status(ctx, *policy), grpc::RESOURCE_EXHAUSTED, "Too many requests. Please retry later."),
        HeadersTooLarge          => row(431, grpc::RESOURCE_EXHAUSTED, "Too many or too large headers."),
        Internal                 => row(500, grpc::INTERNAL, "Something is wrong with this gateway."),
        UpstreamFailed           => row(502, grpc::UNAVAILABLE, "The upstream could not be reached."),
        QueueFull | QueueTimedOut
                                 => row(503, grpc::UNAVAILABLE, "The upstream is at capacity. Please retry later."),
        Maintenance              => row(503, grpc::UNAVAILABLE, "This route is in maintenance. Please retry later."),
        IdentityUnavailable(_)   => row(503, grpc::UNAVAILABLE, "Credentials cannot be checked now. Please retry later."),
        StoreUnavailable         => row(503, grpc::UNAVAILABLE, "Requests cannot be counted now. Please retry later."),
        Draining                 => row(503, grpc::UNAVAILABLE, "This gateway is stopping. Please retry."),
        UpstreamTimedOut         => row(504, grpc::DEADLINE_EXCEEDED, "The upstream did not answer in time."),
    };
    let retry_after_us = match rejection {
        TooManyFailures { retry_after_us } => Some(*retry_after_us),
        OverLimit { retry_after_us, soon, .. } => retry_after_us.or(soon.then_some(SECOND_US)),
        Maintenance => Some(MAINTENANCE_US),
        IdentityUnavailable(_) | QueueFull | QueueTimedOut | StoreUnavailable | Draining => Some(SECOND_US),
        _ => None,
    };
    Row { retry_after_us, ..table }
}

fn refusal_status(ctx: &Context, policy: usize) -> u16 {
    ctx.snapshot
        .policies
        .get(policy)
        .map_or(429, |policy| policy.status())
}

/// An answer of our own.
pub(super) struct Answer {
    status: u16,
    /// the status it would have without gRPC
    means: u16,
    headers: Vec<(&'static str, HeaderValue)>,
    body: Bytes,
    /// HEAD: announce the body but do not send it
    head: bool,
    refused_by: Option<usize>,
}

/// The answer to a rejected request.
pub(super) fn answer(rejection: &Rejection, request: &RequestHeader, ctx: &Context) -> Answer {
    let row = row(rejection, ctx);
    let mut headers = Vec::with_capacity(4);
    if let Some(retry_after_us) = row.retry_after_us {
        let seconds = retry_after_us.div_ceil(SECOND_US).max(1);
        headers.push(("Retry-After", HeaderValue::from(seconds)));
    }
    headers.extend(challenge(rejection, ctx).map(|value| ("WWW-Authenticate", value)));
    let mut refused_by = None;
    match rejection {
        Rejection::MethodNotAllowed { allow } => {
            headers.extend(
                allow
                    .parse()
                    .ok()
                    .map(|allow: HeaderValue| ("Allow", allow)),
            );
        }
        Rejection::OverLimit { policy, .. } => refused_by = Some(*policy),
        _ => (),
    }
    if is_grpc(request) {
        return grpc_answer(&row, headers, refused_by);
    }
    headers.push((
        "Content-Type",
        HeaderValue::from_static("application/problem+json"),
    ));
    let body = Bytes::from(problem(rejection, &row, ctx));
    Answer {
        status: row.status,
        means: row.status,
        headers,
        body,
        head: request.method == Method::HEAD,
        refused_by,
    }
}

/// `WWW-Authenticate`: how to come back (RFC 9110, 11.6.1; RFC 6750, 3).
fn challenge(rejection: &Rejection, ctx: &Context) -> Option<HeaderValue> {
    match rejection {
        Rejection::Unauthenticated(BadCredentials::InvalidToken) => Some(HeaderValue::from_static(
            "Bearer realm=\"tidegate\", error=\"invalid_token\"",
        )),
        Rejection::Unauthenticated(_) => Some(ctx.snapshot.authenticator.challenge().clone()),
        Rejection::ForwardAuthRefused(refusal) => refusal.challenge.clone(),
        Rejection::ScopeMissing { by_token: true } => {
            let scopes = ctx.route().map(|route| route.scopes.join(" "));
            let scopes = scopes.unwrap_or_default();
            let text = format!(
                "Bearer realm=\"tidegate\", error=\"insufficient_scope\", scope=\"{scopes}\""
            );
            text.parse().ok()
        }
        _ => None,
    }
}

fn is_grpc(request: &RequestHeader) -> bool {
    let content_type = request.headers.get(header::CONTENT_TYPE);
    // application/grpc, application/grpc+proto, not application/grpc-web
    let rest = content_type.and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// A response of headers only, as gRPC calls it: the status is in the headers, HTTP says 200.
fn grpc_answer(
    row: &Row,
    mut headers: Vec<(&'static str, HeaderValue)>,
    refused_by: Option<usize>,
) -> Answer {
    headers.push(("Content-Type", HeaderValue::from_static("application/grpc")));
    headers.push(("grpc-status", HeaderValue::from(u64::from(row.grpc))));
    headers.push(("grpc-message", HeaderValue::from_static(row.detail)));
    Answer {
        status: 200,
        means: row.status,
        headers,
        body: Bytes::new(),
        head: false,
        refused_by,
    }
}

/// `application/problem+json` (RFC 9457).
fn problem(rejection: &Rejection, row: &Row, ctx: &Context) -> String {
    let title = StatusCode::from_u16(row.status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let mut body = json!({
        "title": title.unwrap_or("Refused"),
        "status": row.status,
        "detail": row.detail,
        "request_id": ctx.request_id(),
    });
    let mut also = |key: &str, value: serde_json::Value| {
        if let Some(members) = body.as_object_mut() {
            members.insert(key.to_owned(), value);
        }
    };
    match rejection {
        Rejection::OverLimit {
            policy,
            retry_after_us,
            ..
        } => {
            also(
                "policy",
                json!(
                    ctx.snapshot
                        .policies
                        .get(*policy)
                        .map(|policy| policy.name())
                ),
            );
            also(
                "retry_after_ms",
                json!(retry_after_us.map(|micros| micros.div_ceil(1_000))),
            );
        }
        Rejection::TooManyFailures { retry_after_us } => {
            also("retry_after_ms", json!(retry_after_us.div_ceil(1_000)));
        }
        Rejection::BadPath(problem) => also("reason", json!(problem.to_string())),
        _ => (),
    }
    body.to_string()
}

impl Answer {
    /// A document of our own that is no refusal.
    pub(super) fn json(status: u16, body: String, head: bool) -> Self {
        let headers = vec![
            ("Content-Type", HeaderValue::from_static("application/json")),
            ("Cache-Control", HeaderValue::from_static("no-store")),
        ];
        Answer {
            status,
            means: status,
            headers,
            body: body.into(),
            head,
            refused_by: None,
        }
    }

    /// The status for the metrics.
    pub(super) fn means(&self) -> u16 {
        self.means
    }

    /// The status on the wire.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Sends it; `true`, as Pingora wants to hear from `request_filter`.
    pub(super) async fn send(self, session: &mut Session, ctx: &Context) -> Result<bool> {
        let mut response = ResponseHeader::build(self.status, Some(self.headers.len() + 10))?;
        for (name, value) in self.headers {
            response.insert_header(name, value)?;
        }
        response.insert_header(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()))?;
        if let Some(name) = &ctx.snapshot.server_name {
            response.insert_header(header::SERVER, name.clone())?;
        }
        ratelimit_headers::add(&mut response, ctx, self.refused_by)?;
        let no_body = self.head || self.body.is_empty();
        session
            .write_response_header(Box::new(response), no_body)
            .await?;
        if !no_body {
            session.write_response_body(Some(self.body), true).await?;
        }
        Ok(true)
    }
}

/// What an error of Pingora's means for the client; `None`: there is nobody left to tell.
pub(super) fn of_error(error: &Error) -> Option<Rejection> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => {
            Some(Rejection::UpstreamTimedOut)
        }
        (ErrorSource::Upstream, _) => Some(Rejection::UpstreamFailed),
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout) => {
            None
        }
        (ErrorSource::Downstream, _) => Some(Rejection::BadRequest("the request is malformed")),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Rejection::Internal),
    }
}
