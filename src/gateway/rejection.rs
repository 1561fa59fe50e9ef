//! From rejections to answers: headers, body, and what gRPC has instead; the table is admission's.

use super::context::Context;
use super::ratelimit_headers;
use crate::admission::told::{self, Row};
use crate::admission::{BadCredentials, Rejection};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;
use serde_json::json;

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
    let row = told::row(rejection, &ctx.snapshot);
    let mut headers = Vec::with_capacity(4);
    if let Some(seconds) = row.retry_after() {
        headers.push(("Retry-After", HeaderValue::from(seconds)));
    }
    let challenges = challenges(rejection, ctx).into_iter();
    headers.extend(challenges.map(|value| ("WWW-Authenticate", value)));
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

/// `WWW-Authenticate`: how to come back (RFC 9110, 11.6.1; RFC 6750, 3). No 401 is without.
fn challenges(rejection: &Rejection, ctx: &Context) -> Vec<HeaderValue> {
    let ours = || vec![ctx.snapshot.authenticator.challenge().clone()];
    match rejection {
        Rejection::Unauthenticated(BadCredentials::InvalidToken) => vec![HeaderValue::from_static(
            "Bearer realm=\"tidegate\", error=\"invalid_token\"",
        )],
        Rejection::Unauthenticated(_) => ours(),
        Rejection::ForwardAuthRefused(refusal)
            if refusal.status == 401 && refusal.challenges.is_empty() =>
        {
            ours()
        }
        Rejection::ForwardAuthRefused(refusal) => refusal.challenges.clone(),
        Rejection::ScopeMissing { by_token: true } => {
            let scopes = ctx.route().map(|route| route.scopes.join(" "));
            let scopes = scopes.unwrap_or_default();
            let text = format!(
                "Bearer realm=\"tidegate\", error=\"insufficient_scope\", scope=\"{scopes}\""
            );
            text.parse().into_iter().collect()
        }
        _ => Vec::new(),
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
            // there may be several challenges
            response.append_header(name, value)?;
        }
        response.insert_header(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()))?;
        if let Some(name) = &ctx.snapshot.server_name {
            response.insert_header(header::SERVER, name.clone())?;
        }
        ratelimit_headers::add(ctx, self.refused_by, |name, value| {
            response.insert_header(name, value)
        })?;
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
