//! What is wrong with a request to the admin API, as `application/problem+json` (RFC 9457).

use crate::database::DatabaseError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An answer that says what is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldProblem>,
    /// the `ETag` of what is there now
    etag: Option<String>,
}

/// What is wrong with a request.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body {
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong, for people.
    detail: String,
    /// What is wrong with each field, where a document or a parameter is not valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The field, such as `quota.count`; empty: the whole.
    pub path: String,
    /// Why it cannot be used.
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            etag: None,
        }
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// Something was sent that cannot be read at all.
    pub(super) fn unreadable(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// It can be read, but not used.
    pub(super) fn invalid(errors: Vec<FieldProblem>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("One field is not valid: {}.", one.place()),
            several => format!("{} fields are not valid; see errors.", several.len()),
        };
        Problem {
            errors,
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
    }

    /// Something else needs what was to be deleted.
    pub(super) fn needed(errors: Vec<FieldProblem>) -> Self {
        Problem {
            errors,
            ..Problem::new(
                StatusCode::CONFLICT,
                "Without it something else would not be valid; see errors.",
            )
        }
    }

    /// The writer knows another version than the one that is there.
    pub(super) fn has_changed(etag: Option<String>) -> Self {
        let detail = match &etag {
            Some(_) => {
                "It is not what If-Match or If-None-Match expect; its ETag is in the header."
            }
            None => "If-Match expects something to be here, and nothing is.",
        };
        Problem {
            etag,
            ..Problem::new(StatusCode::PRECONDITION_FAILED, detail)
        }
    }

    pub(super) fn store_is_out() -> Self {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The shared store does not answer; try again.",
        )
    }
}

impl FieldProblem {
    pub(super) fn new(path: &str, message: impl Into<String>, hint: &str) -> Self {
        FieldProblem {
            path: path.to_owned(),
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    fn place(&self) -> &str {
        if self.path.is_empty() {
            "the whole"
        } else {
            &self.path
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Unavailable(why) => {
                // what Postgres or the network says is for the operator's log
                tracing::warn!("the admin API got no answer from the database: {why}");
                Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The database does not answer; nothing was changed as far as is known. Try again.",
                )
            }
            DatabaseError::Schema(version) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, version.to_string())
            }
            DatabaseError::NotFound(what) => Problem::not_found(format!("{what} does not exist.")),
            DatabaseError::PreconditionFailed { etag } => Problem::has_changed(etag),
            DatabaseError::Overtaken => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Others write at the same time; nothing was changed. Try again.",
            ),
            DatabaseError::Invalid(why) => Problem::invalid(vec![FieldProblem {
                path: String::new(),
                message: why,
                hint: None,
            }]),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"tidegate admin\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => (),
        }
        let etag = self
            .etag
            .and_then(|etag| format!("\"{etag}\"").parse().ok());
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}
