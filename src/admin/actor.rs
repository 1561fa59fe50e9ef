//! Who makes a change, as revisions name them.

use super::problem::Problem;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use std::net::SocketAddr;

/// The header by which a tool in front says on whose behalf it writes.
const HEADER: &str = "x-tidegate-actor";

/// Longest name in bytes.
const MAX_BYTES: usize = 128;

/// Who makes a change.
pub(super) struct Actor(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if let Some(name) = parts.headers.get(HEADER) {
            let name = name.to_str().unwrap_or_default();
            let fits = (1..=MAX_BYTES).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() || byte == b' ');
            return match fits {
                true => Ok(Actor(name.to_owned())),
                false => Err(Problem::unreadable(
                    "X-Tidegate-Actor must be 1 to 128 visible ASCII characters.",
                )),
            };
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Actor(peer.map_or_else(
            || "admin".to_owned(),
            |ConnectInfo(peer)| format!("admin {}", peer.ip().to_canonical()),
        )))
    }
}
