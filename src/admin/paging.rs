//! Lists in pieces: where one begins, how long it is, and where the next one is found.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Items of a piece, if nothing is said.
const DEFAULT_LIMIT: u32 = 100;

/// Most items of a piece.
const MAX_LIMIT: u32 = 1_000;

/// Which piece of a list that is ordered by name.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Piece {
    /// Most items to return.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    pub(super) limit: u32,
    /// The name to begin after: `next` of the piece before.
    pub(super) after: Option<String>,
}

/// Which piece of the revisions, from the newest on.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Backwards {
    /// Most items to return.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    pub(super) limit: u32,
    /// The id to begin before: `next` of the piece before.
    pub(super) before: Option<i64>,
}

/// A piece of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Listed<T> {
    /// In order.
    pub(super) items: Vec<T>,
    /// Where the next piece begins; null: this was the last.
    pub(super) next: Option<String>,
}

pub(super) fn default_limit() -> u32 {
    DEFAULT_LIMIT
}

pub(super) fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let limit = u32::deserialize(deserializer)?;
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    let given = Unexpected::Unsigned(limit.into());
    Err(D::Error::invalid_value(given, &"a limit from 1 to 1000"))
}

impl<T: Serialize> Listed<T> {
    /// The piece, and a `Link` to the next (RFC 8288). `by`: the parameter that names its begin.
    pub(super) fn answer(self, path: &str, by: &str, limit: u32) -> Response {
        let mut headers = HeaderMap::new();
        let link = self.next.as_ref().map(|next| {
            let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
            format!("<{path}?limit={limit}&{by}={next}>; rel=\"next\"")
        });
        if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            headers.insert(header::LINK, link);
        }
        (headers, Json(self)).into_response()
    }
}
