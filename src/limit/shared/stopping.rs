//! What a gateway that stops gives back: units taken in advance, requests in flight.

use super::Shared;
use crate::limit::store::redis::link::CallFailed;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest wait for the store at the end, far below any grace period. What is not back by then
/// comes back by itself: permits within their ttl, units of leases with the refill.
const PATIENCE: Duration = Duration::from_millis(250);

impl Shared {
    /// Gives back what this process holds in the store; tried once. No request may be decided any
    /// more.
    pub(in crate::limit) async fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.breaker.is_open() {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.give_all_back()).await {
            Ok(Ok(())) => tracing::debug!("what was held in the shared store is back"),
            Ok(Err(error)) => tracing::debug!("what was held in the shared store is lost: {error}"),
            Err(_) => tracing::debug!("what was held in the shared store may be lost: no answer"),
        }
    }

    async fn give_all_back(self: &Arc<Self>) -> Result<(), CallFailed> {
        let leases = self.leases.take_all();
        self.give_back_leases(leases).await?;
        self.ledger.lets_go();
        self.hold_exactly().await?;
        // what others have asked for meanwhile is given back by them
        self.late_ones_end().await;
        Ok(())
    }
}
