//! The shared store's connection on a thread of its own, where several workers count through it.

use crate::snapshot::Running;
use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use std::sync::Arc;
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

/// A service of one thread: what one worker is busy with must not delay the counting of the others.
pub(super) struct SharedStore {
    running: Arc<Running>,
}

impl SharedStore {
    pub(super) fn new(running: Arc<Running>) -> Self {
        SharedStore { running }
    }
}

#[async_trait]
impl Service for SharedStore {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _per_fd: usize,
    ) {
        let running = self.running.clone();
        super::housekeeping::must_not_panic("shared store", async move {
            start(&running).await;
        })
        .await;
    }

    fn name(&self) -> &str {
        "shared-store"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}
