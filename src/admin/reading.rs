//! From a request to what a handler wants of it: body, query, path, each with its own refusal.

mod distinct;

use super::problem::{FieldProblem, Problem};
use axum::RequestPartsExt;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use distinct::Distinct;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let empty = is_empty(request.headers());
        if !empty && !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON: send Content-Type: application/json.",
            ));
        }
        let bytes = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state))
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "The body did not arrive within ten seconds.",
                )
            })?
            .map_err(too_large_or_cut)?;
        read(&bytes).map(Body)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn is_empty(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_none_or(|length| length.as_bytes() == b"0")
        && !headers.contains_key(header::TRANSFER_ENCODING)
}

fn too_large_or_cut(rejection: BytesRejection) -> Problem {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is larger than {MAX_BODY} bytes."),
        ),
        _ => Problem::unreadable("The body did not arrive whole."),
    }
}

/// First JSON, then what it should say: a body that is neither is told the former.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::unreadable("The body is empty; it must be JSON."));
    }
    // serde_json says line and column, and repeats nothing of the text
    let Distinct(value) = serde_json::from_slice(bytes)
        .map_err(|error| Problem::unreadable(format!("The body is not JSON: {error}.")))?;
    let unfit = |message: String| {
        Problem::invalid(vec![FieldProblem {
            path: String::new(),
            message,
            hint: None,
        }])
    };
    // serde would take a list for a mapping whose fields may all be absent
    if !value.is_object() {
        return Err(unfit("it must be a mapping: write `{...}`".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| unfit(error.to_string()))
}

/// The query; parameters that are not known are refused, or a misspelt one would seem to work.
pub(super) struct Asked<T>(pub(super) T);

/// The query of what takes no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

impl<S: Send + Sync, T: DeserializeOwned + 'static> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text.rsplit_once(": ").map_or(text.as_str(), |(_, why)| why);
                Err(Problem::unreadable(format!(
                    "The query cannot be used: {why}."
                )))
            }
        }
    }
}

/// The part of the path that names something.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send + 'static> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extract::<Path<T>>().await {
            Ok(Path(name)) => Ok(Named(name)),
            Err(_) => Err(Problem::not_found(
                "Nothing has such a name: it is not what a name here can be.",
            )),
        }
    }
}
