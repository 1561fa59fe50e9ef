//! Waiting on behalf of a client, for as long as it is there.

use pingora::ErrorType;
use pingora::prelude::{Error, Result};
use pingora_proxy::Session;

/// Waits for something, but no longer than the client does. A request with a body cannot be
/// watched without reading it; it waits to the end.
pub(super) async fn unless_client_leaves<T>(
    session: &mut Session,
    waits: impl Future<Output = T>,
) -> Result<T> {
    if !session.is_body_empty() {
        return Ok(waits.await);
    }
    tokio::select! {
        done = waits => Ok(done),
        left = session.downstream_session.read_body_or_idle(true) => match left {
            Ok(_) => Error::e_explain(ErrorType::ReadError, "a body where there is none").map_err(|e| e.into_down()),
            Err(error) => Err(error.into_down()),
        },
    }
}
