//! Where the shared store's connection lives: with the only worker, or beside several.

use crate::snapshot::Running;
use std::time::Duration;

/// How long a start waits for the shared store, before it goes on without.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// Starts the shared store here and says so if it does not answer.
pub(super) async fn start(running: &Running) {
    let Some(store) = running.limiter.shared_store() else {
        return;
    };
    store.start();
    if !store.first_connection(FIRST_CONNECTION).await {
        tracing::warn!("the shared store does not answer yet; policies go by their outage mode");
    }
}

/// Waits until it is connected elsewhere, but no longer than that.
pub(super) async fn is_connected_elsewhere(running: &Running) {
    if let Some(store) = running.limiter.shared_store() {
        store.first_connection(FIRST_CONNECTION).await;
    }
}
